"""Damaged DICOM: whatever bytes change, every file is listed and no other error than a rejection is raised."""

import warnings

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medssl.errors import BadInput
from medssl.io import dicom
from tests.helpers.dicom_phantom import make_multiframe, make_slices, save


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    multiframe=st.booleans(),
    share=st.floats(0, 1),
    patch=st.binary(max_size=12),
    kind=st.sampled_from(["replace", "insert", "cut"]),
)
def test_damage_is_rejected_or_read_but_never_raised(tmp_path, multiframe, share, patch, kind):
    paths = save(
        [make_multiframe(make_slices(count=3))] if multiframe else make_slices(count=3), tmp_path / str(multiframe)
    )
    content = paths[-1].read_bytes()
    position = int(share * len(content))
    tails = {"replace": patch + content[position + len(patch) :], "insert": patch + content[position:], "cut": b""}
    paths[-1].write_bytes(content[:position] + tails[kind])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = list(dicom.read(tmp_path / str(multiframe)))
        for result in results:
            if isinstance(result, dicom.Series):
                read_or_reject(result)
    assert sorted(path for result in results for path in result.files) == paths


def read_or_reject(series):
    try:
        assert series.volume().voxels.ndim == 3
    except BadInput as error:
        assert str(error)
