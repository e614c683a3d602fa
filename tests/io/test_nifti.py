"""A NIfTI file that is written reads back exactly."""

from dataclasses import replace

import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from medssl.data.ingest.read_source import ScanRef
from medssl.inference.streaming.case_files import read_header_fields
from medssl.io import nifti
from medssl.volume import Volume


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**16),
    dtype=st.sampled_from(["uint8", "int16", "float32"]),
    order=st.permutations([0, 1, 2]),
    flips=st.tuples(*[st.sampled_from([-1, 1])] * 3),
    oblique=st.booleans(),
    ending=st.sampled_from([".nii", ".nii.gz"]),
)
def test_a_written_volume_comes_back_exactly(tmp_path, seed, dtype, order, flips, oblique, ending):
    rng = np.random.default_rng(seed)
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[:, order] * flips * rng.uniform(0.3, 6, 3)
    if oblique:
        affine[:3, :3] = Rotation.random(random_state=seed).as_matrix() @ affine[:3, :3]
    affine[:3, 3] = rng.uniform(-500, 500, 3)
    voxels = rng.integers(0, 250, (4, 5, 6)).astype(dtype)
    back = write_and_read(tmp_path / f"v{ending}", Volume(voxels, affine, "a.u."))
    assert back.voxels.dtype == dtype
    np.testing.assert_array_equal(back.voxels, voxels)
    np.testing.assert_allclose(back.affine, affine, atol=1e-4)


def write_and_read(path, volume):
    nifti.write(volume, path)
    return nifti.read(path)


def test_a_label_comes_back_as_a_label(tmp_path):
    nifti.write(Volume(np.ones((3, 3, 3), np.uint8), np.eye(4), "label"), tmp_path / "l.nii.gz")
    assert nifti.read(tmp_path / "l.nii.gz", label=True).unit == "label"


def test_a_number_type_unknown_to_nifti_is_refused(tmp_path):
    with pytest.raises(ValueError, match="cast to int16"):
        nifti.write(Volume(np.ones((3, 3, 3), np.float16), np.eye(4), "a.u."), tmp_path / "l.nii.gz")


def test_a_prediction_keeps_the_header_of_its_scan(tmp_path):
    """The codes of both forms and the unit of time in all files, window and text in the image, text of no store."""
    voxels, affine = np.arange(120, dtype=np.int16).reshape(4, 5, 6), np.diag([2.0, 2.0, 3.0, 1.0])
    header = nibabel.Nifti1Image(voxels, affine).header
    header["descrip"], header["cal_min"], header["cal_max"] = b"FSL5.0", -100, 240
    header.set_xyzt_units("mm", "sec")
    image = nibabel.Nifti1Image(voxels, affine, header)
    image.set_sform(image.affine, 4)
    image.set_qform(image.affine, 0)
    nibabel.save(image, tmp_path / "scan.nii.gz")
    fields = nifti.read_fields(tmp_path / "scan.nii.gz")
    volume = nifti.read(tmp_path / "scan.nii.gz")
    nifti.write(volume, tmp_path / "image.nii.gz", fields)
    nifti.write(volume, tmp_path / "map.nii.gz", fields.describe_map())
    kept, plain = (nibabel.load(tmp_path / name).header for name in ("image.nii.gz", "map.nii.gz"))
    for copy in (kept, plain):
        assert (int(copy["sform_code"]), int(copy["qform_code"])) == (4, 0)
        assert copy.get_xyzt_units() == ("mm", "sec")
    assert (kept["descrip"].item(), float(kept["cal_min"]), float(kept["cal_max"])) == (b"FSL5.0", -100, 240)
    assert (plain["descrip"].item(), float(plain["cal_max"])) == (b"", 0)
    assert np.allclose(nifti.read(tmp_path / "image.nii.gz").affine, volume.affine)
    scan = ScanRef("scan", "p", None, lambda: volume, list_files=lambda: (tmp_path / "scan.nii.gz",))
    assert read_header_fields(scan) == fields
    assert read_header_fields(replace(scan, is_deidentified=True)) == replace(fields, description=b"")
