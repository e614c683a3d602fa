"""Rotten DICOM: whatever bytes change, every file is accounted for and nothing but a refusal is raised."""

import warnings

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medssl.errors import BadInput
from medssl.io.dicom import reader as dicom
from tests.helpers.dicom_phantom import multiframe, save, slices


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    many=st.booleans(),
    share=st.floats(0, 1),
    patch=st.binary(max_size=12),
    kind=st.sampled_from(["replace", "insert", "cut"]),
)
def test_rot_is_refused_or_read_but_never_raised(tmp_path, many, share, patch, kind):
    paths = save([multiframe(slices(count=3))] if many else slices(count=3), tmp_path / str(many))
    content = paths[-1].read_bytes()
    at = int(share * len(content))
    rest = {"replace": patch + content[at + len(patch) :], "insert": patch + content[at:], "cut": b""}[kind]
    paths[-1].write_bytes(content[:at] + rest)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = list(dicom.read(tmp_path / str(many)))
        for result in results:
            if isinstance(result, dicom.Series):
                volume_or_refusal(result)
    assert sorted(path for result in results for path in result.files) == paths


def volume_or_refusal(series):
    try:
        assert series.volume().voxels.ndim == 3
    except BadInput as refusal:
        assert str(refusal)
