"""What the viewer writes on the planes of a scan: modality, acquisition, names and instance numbers."""

import json

import numpy as np
import pydicom
import pytest

from medssl.data.ingest.read_source import list_scans
from medssl.inference.channel_facts import describe_channels
from medssl.io import nifti
from medssl.predictions_folder import CHANNELS, ChannelFacts, read_channel_facts
from medssl.volume import Volume
from tests.helpers.dicom_phantom import make_slices, save

AFFINE = np.diag([1.0, 1.0, 2.0, 1.0])


def describe(folder):
    (scan,) = list_scans(folder, "test", "")
    return describe_channels(scan, scan.read())


def change(folder, **values):
    for path in folder.glob("*"):
        data = pydicom.dcmread(path)
        for name, value in values.items():
            setattr(data, name, value)
        data.save_as(path)


def test_a_dicom_series_tells_modality_tube_voltage_and_numbers(tmp_path):
    save(make_slices(), tmp_path / "ct")
    change(tmp_path / "ct", KVP="120", SeriesDescription="Doe")
    (facts,) = describe(tmp_path / "ct")
    (scan,) = list_scans(tmp_path / "ct", "test", "")
    volume = scan.read().reorient("RAS")
    assert (facts.name, facts.modality, facts.unit, facts.acquisition) == ("", "CT", "HU", ("120 kV",))
    assert len(facts.instances) == volume.shape[facts.slice_axis]
    for path in sorted((tmp_path / "ct").glob("*"))[:3]:  # the slice with a number lies where its header says
        data = pydicom.dcmread(path)
        voxel = np.linalg.solve(volume.affine, [*np.array(data.ImagePositionPatient) * (-1, -1, 1), 1])
        assert facts.instances[round(voxel[facts.slice_axis])] == data.InstanceNumber


def test_an_mr_tells_field_and_times(tmp_path):
    save(make_slices(), tmp_path / "mr")
    times = {"EchoTime": "4.6", "RepetitionTime": "500", "MagneticFieldStrength": "3", "SequenceName": "*tse2d"}
    change(tmp_path / "mr", Modality="MR", SOPClassUID="1.2.840.10008.5.1.4.1.1.4", **times)
    (facts,) = describe(tmp_path / "mr")
    assert facts.modality == "MR" and facts.acquisition == ("*tse2d  3 T  TR 500 ms  TE 4.6 ms",)


def test_damaged_numbers_are_left_out(tmp_path):
    save(make_slices(), tmp_path / "ct")
    change(tmp_path / "ct", KVP=None)
    assert describe(tmp_path / "ct")[0].acquisition == ()


def test_channels_of_files_have_their_modalities_and_names(tmp_path):
    images, channels = tmp_path / "imagesTr", {"0": "CT", "1": "PT"}
    images.mkdir()
    for n in channels:
        voxels = np.random.default_rng(int(n)).uniform(0, 900, (6, 7, 5)).astype(np.float32)
        voxels -= 1024 * (n == "0")
        nifti.write(Volume(voxels, AFFINE, "a.u."), images / f"a_000{n}.nii.gz")
    table = {"channel_names": channels, "labels": {"background": 0}, "file_ending": ".nii.gz", "numTraining": 0}
    (tmp_path / "dataset.json").write_text(json.dumps(table))
    facts = describe(tmp_path)
    assert [(f.modality, f.unit) for f in facts] == [("CT", "HU"), ("PT", "a.u.")]


@pytest.mark.parametrize("content", ["", "[", '[{"unit": "furlongs"}]', '{"a": 1}'])
def test_facts_that_cannot_be_read_are_none(tmp_path, content):
    assert read_channel_facts(tmp_path) == ()
    (tmp_path / CHANNELS).write_text(content)
    assert read_channel_facts(tmp_path) == ()


def test_facts_come_back_as_written(tmp_path):
    (tmp_path / CHANNELS).write_text('[{"name": "T2", "modality": "MR", "instances": [3, 2, 1], "slice_axis": 1}]')
    assert read_channel_facts(tmp_path) == (ChannelFacts("T2", "MR", "a.u.", (), 1, (3, 2, 1)),)
