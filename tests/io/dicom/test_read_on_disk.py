"""A series read on disk has the voxels of one that is read in memory."""

import numpy as np
import pytest
from pydicom.pixels import get_encoder
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from medssl.arrays import disk_arrays
from medssl.arrays.disk_arrays import is_on_disk
from medssl.io.dicom import reader
from tests.helpers.dicom_phantom import make_slices, paint, save, with_compressed_frames


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
@pytest.mark.parametrize("slope", ["1", "0.5"])
def test_voxels_equal_those_in_memory(tmp_path, monkeypatch, syntax, slope):
    slices = make_slices(7)
    for dataset in slices:
        dataset.RescaleSlope = slope
        paint(dataset)
        if syntax == RLELossless:
            options = {"number_of_frames": 1, "rows": dataset.Rows, "columns": dataset.Columns}
            options |= {"samples_per_pixel": 1, "bits_allocated": 16, "bits_stored": 16, "pixel_representation": 1}
            options |= {"photometric_interpretation": "MONOCHROME2"}
            frame = get_encoder(RLELossless).encode(dataset.PixelData, encoding_plugin="pydicom", **options)
            with_compressed_frames(dataset, frame)
    save(slices, tmp_path, syntax)
    (series,) = reader.read(tmp_path)
    monkeypatch.setattr(disk_arrays, "MAX_BYTES_IN_MEMORY", 0)
    expected, found = series.volume(), series.volume(on_disk=True)
    assert is_on_disk(found.voxels) and not is_on_disk(expected.voxels)
    assert found.voxels.dtype == expected.voxels.dtype
    assert np.array_equal(found.voxels, expected.voxels)
