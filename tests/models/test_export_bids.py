"""A store that is exported as BIDS ingests to the same cases, patients, labels and splits."""

import json

import numpy as np
import pytest

from medssl import cli
from medssl.data import store
from medssl.data.ingest.config import IngestConfig
from medssl.data.ingest.pipeline import ingest
from medssl.data.manifest import Manifest
from medssl.data.store_metadata import STORE_VERSION, StoreMetadata
from medssl.errors import BadInput
from medssl.models.export_bids import write_bids
from tests.helpers.scan_folders import ScanFolder


@pytest.fixture
def manifest(tmp_path):
    """A CT store of four patients: two scans of the first, classes of which one case has only one annotated."""
    folder = ScanFolder(tmp_path / "scans")
    for n in range(5):
        folder.scan(f"p{n}/ct.nii.gz", n, "CT")
        folder.label(f"p{n}/segmentations/liver.nii.gz", 0)
        if n:
            folder.label(f"p{n}/segmentations/spleen.nii.gz", 3)
    rows = ["p0,A_1,60,F,2020-01-01", "p1,A_1,61,F,2021-01-01", *(f"p{n},B{n},70,M,2020-05-05" for n in (2, 3, 4))]
    table = folder.text("../patients.csv", "\n".join(["case,patient,age_years,sex,study_date", *rows]))
    options = IngestConfig(num_workers=0, deidentify=False, spacing_mm="native", patients=table)
    return ingest(folder.root, tmp_path / "store", options, lambda *_: None).manifest


def contents(manifest):
    """The scan, the patient, the split and the voxels of each class of every case."""
    names = StoreMetadata.read(manifest.folder).labels
    result = {}
    for case in manifest.cases:
        label = store.read(manifest.label_path(case)).volume().voxels
        present = StoreMetadata.read(manifest.folder).present_labels.get(case.id, sorted(names))
        counts = {names[value]: int((label == value).sum()) for value in present}
        result[case.sha256] = (case.patient.removeprefix("sub-").replace("_", ""), case.split, case.unit, counts)
    return result


def test_an_exported_store_ingests_to_the_same_store(manifest, tmp_path, capsys):
    out = tmp_path / "bids"
    assert cli.run("export-store", [str(manifest.folder), "--bids", "--out", str(out)]) == 0
    options = IngestConfig(num_workers=0, deidentify=False, spacing_mm="native")
    again = ingest(out, tmp_path / "again", options, lambda *_: None).manifest
    assert contents(again) == contents(manifest) and len(again.cases) == 5
    assert {(c.age_years, c.sex) for c in again.cases} == {(60.0, "F"), (70.0, "M")}
    assert sorted(p.name for p in (out / "sub-A1").iterdir()) == ["ses-01", "ses-02"]
    assert json.loads((out / "dataset_description.json").read_text())["BIDSVersion"]
    refused = [p for p in out.rglob("*.nii.gz") if p.is_file()]
    assert len(refused) == 10  # a scan and a label of each case


def test_names_that_bids_cannot_hold_stay_different(manifest, tmp_path):
    write_bids(manifest, tmp_path / "bids")
    names = [p.name for p in (tmp_path / "bids").rglob("*_ct.nii.gz")]
    assert len(set(names)) == len(names) == 5 and all("_acq-p" in name for name in names)


def test_predictions_and_empty_stores_are_no_bids_data(manifest, tmp_path, capsys):
    assert cli.run("export-store", [str(tmp_path), "--bids", "--out", str(tmp_path / "bids")]) == 2
    assert "give its folder" in capsys.readouterr().err
    empty = Manifest((), manifest.folder)
    empty.write(manifest.folder / "none.csv")
    words = [str(manifest.folder / "none.csv"), "--bids", "--out", str(tmp_path / "bids")]
    assert cli.run("export-store", words) == 2
    assert not (tmp_path / "bids").exists()


def test_a_store_of_a_newer_version_is_refused_by_its_version(manifest):
    path = manifest.folder / "store.json"
    values = json.loads(path.read_text())
    assert values["version"] == STORE_VERSION
    path.write_text(json.dumps(values | {"version": STORE_VERSION + 1, "unknown_key": np.pi}))
    with pytest.raises(BadInput, match=f"store of version {STORE_VERSION + 1}.*reads up to version {STORE_VERSION}"):
        StoreMetadata.read(manifest.folder)
    path.write_text(json.dumps({name: value for name, value in values.items() if name != "version"}))
    assert StoreMetadata.read(manifest.folder).version == STORE_VERSION
