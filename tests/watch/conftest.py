"""An inbox, a network that finds what is bright, and an archive in memory."""

import time
from dataclasses import replace

import numpy as np
import pytest
from pydicom import dcmread

from medssl.errors import BadInput
from medssl.inference.connected_findings import extract_findings
from medssl.inference.prediction_writer import PredictionWriter
from medssl.inference.streaming.case_stream import Prediction
from medssl.io.dicom.series_writer import SeriesInfo, write_series
from medssl.volume import Volume
from medssl.watch.destination import Destination
from medssl.watch.source import StudySource
from medssl.watch.watcher import Watcher, WatchOptions

NAMES = {1: "nodule"}


class BrightNetwork:
    """Finds what is brighter than 500 HU; `on_predict` is called with the case before each prediction."""

    weights_sha256 = "ab" * 32

    def __init__(self, on_predict=lambda case: None):
        self.on_predict, self.cases = on_predict, []

    def stream(self, volume, case):
        self.on_predict(case)
        self.cases.append(case)
        labels = replace(volume, voxels=(volume.voxels > 500).astype(np.uint8), unit="label")
        confidence = np.where(labels.voxels > 0, 0.9, 0.1).astype(np.float32)
        findings = extract_findings(labels, confidence, None, case, NAMES)
        return Prediction(labels, replace(labels, voxels=confidence, unit="probability"), findings)

    def open_writer(self, folder, cases, resume, **options):
        assert resume
        return PredictionWriter.resume(
            folder, NAMES, {"run": "r", "weights_sha256": self.weights_sha256}, requested=cases
        )


class MemoryArchive:
    """Stores instances by UID; `faults` holds the errors of the next tries."""

    def __init__(self):
        self.instances, self.faults, self.num_tries = {}, [], 0

    def send(self, paths):
        self.num_tries += 1
        if self.faults:
            raise BadInput(self.faults.pop(0))
        for data in map(dcmread, paths):
            self.instances[data.SOPInstanceUID] = (data.StudyInstanceUID, data.Modality)

    def list_modalities(self):
        return sorted(modality for _, modality in self.instances.values())


class Scene:
    """A watched folder with a clock that the test sets: it stands still but for `later`, in seconds."""

    def __init__(self, folder):
        self.inbox, self.out, self.start, self.later = folder / "inbox", folder / "out", time.time(), 0.0
        self.network, self.archive = BrightNetwork(), MemoryArchive()
        self.inbox.mkdir()
        self.options = WatchOptions(self.out, quiet_s=60)

    def write_study(self, patient, modality="CT", num_slices=8, **tags):
        """Writes a study and returns its files from feet to head."""
        voxels = np.full((16, 14, 8), -800 if modality == "CT" else 100, np.int16)
        voxels[4:9, 5:9, 2:5] = 900
        image = Volume(voxels, np.diag([1.0, 1.0, 2.0, 1.0]), "HU" if modality == "CT" else "a.u.").reorient("LPS")
        write_series(image, self.inbox / patient, SeriesInfo(patient, modality=modality))
        paths = sorted((self.inbox / patient).rglob("*.dcm"), key=lambda path: dcmread(path).ImagePositionPatient[2])
        for path in paths if tags else ():
            data = dcmread(path)
            for name, value in tags.items():
                setattr(data, name, value)
            data.save_as(path)
        for path in paths[num_slices:]:
            path.rename(self.inbox.parent / path.name)
        return paths[:num_slices], [self.inbox.parent / path.name for path in paths[num_slices:]]

    def open_watcher(self):
        source = StudySource(self.inbox, "inbox")
        destinations = [Destination("archive", self.archive.send)]
        return Watcher(source, self.network, destinations, self.options, lambda: self.start + self.later)

    def run_pass(self, later=0.0):
        self.later = later
        watcher = self.open_watcher()
        watcher.run_pass()
        return watcher


@pytest.fixture
def scene(tmp_path):
    return Scene(tmp_path)
