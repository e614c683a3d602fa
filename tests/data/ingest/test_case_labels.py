"""A table labels whole scans, by case or by patient, and a wrong table is refused."""

import numpy as np
import pytest

from medssl import cli
from medssl.data.classes import Classes
from medssl.data.ingest.config import IngestConfig
from medssl.data.ingest.dry_run import plan_ingestion
from medssl.data.ingest.pipeline import ingest
from medssl.data.ingest.reference_labels import References
from medssl.data.store import Store
from medssl.data.store_metadata import StoreMetadata
from medssl.volume import Volume
from tests.helpers.scan_folders import SHAPE, ScanFolder

pytestmark = pytest.mark.filterwarnings("ignore:modality not given")
NAMES = ["p1", "p2", "q1", "q2", "r1"]
TABLE = "case,label\np1,malignant\np2,benign\nq1,\nq2,0\n"


@pytest.fixture
def folder(tmp_path):
    """Scans of three patients, p, q and r, without labels."""
    scans = ScanFolder(tmp_path / "scans")
    for number, name in enumerate(NAMES):
        scans.scan(f"{name}.nii.gz", number)
    return scans


def run(tmp_path, table, **options):
    path = tmp_path / "labels.csv"
    path.write_text(table)
    config = IngestConfig(num_workers=0, case_labels=path, patient_pattern="([pqr])", **options)
    return ingest(tmp_path / "scans", tmp_path / "store", config, lambda *_: None).manifest


def read_classes(manifest):
    """Returns the class of each case, after checking that its stored label and its reference are filled with it."""
    classes = Classes.from_metadata(StoreMetadata.read(manifest.folder))
    references, store, labels = References.read(manifest.folder / "manifest.csv"), Store(manifest), {}
    for case in manifest.cases:
        if case.label is None:
            assert case.id in references.unlabelled
            labels[case.id] = None
            continue
        empty = Volume(np.zeros(SHAPE, np.int16), np.eye(4), "a.u.")
        stored, reference = (
            np.unique(v) for v in (store.label(case).array[:], references.read_label(case.id, empty).voxels)
        )
        assert stored.tolist() == reference.tolist() and len(stored) == 1, "the label fills the whole scan"
        labels[case.id] = {0: "none", **classes.names}[int(stored[0])]
    return labels


def test_each_scan_gets_the_label_of_its_case_and_others_stay_without(folder, tmp_path):
    manifest = run(tmp_path, TABLE, deidentify=False)
    assert read_classes(manifest) == dict(zip(NAMES, ["malignant", "benign", "none", "none", None], strict=True))
    plan = plan_ingestion(folder.root, IngestConfig(case_labels=tmp_path / "labels.csv"))
    assert [row[3] for row in plan.cases] == ["malignant", "benign", "none of the classes", "none of the classes", ""]


def test_a_patient_labels_all_its_scans(folder, tmp_path):
    manifest = run(tmp_path, "patient,label\np,sick\nr,\n", deidentify=False)
    assert read_classes(manifest) == dict(zip(NAMES, ["sick", "sick", None, None, "none"], strict=True))


def test_the_names_in_the_table_are_those_of_the_files_in_a_deidentified_store(folder, tmp_path):
    labels = read_classes(run(tmp_path, TABLE))
    assert sorted(map(str, labels.values())) == ["None", "benign", "malignant", "none", "none"]
    assert not set(NAMES) & labels.keys()


def test_a_changed_table_changes_the_labels_of_a_store_and_keeps_its_classes(folder, tmp_path):
    run(tmp_path, "case,label\np1,malignant\np2,benign\n", deidentify=False)
    assert read_classes(run(tmp_path, "case,label\np1,benign\nq1,awful\n", deidentify=False)) == dict(
        zip(NAMES, ["benign", None, "awful", None, None], strict=True)
    )
    assert StoreMetadata.read(tmp_path / "store").labels == {1: "benign", 2: "malignant", 3: "awful"}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            "case,label\np1,x\nz,y\n",
            "labels.csv: no scan has the case z; `medssl ingest SCANS --dry-run` prints the names",
        ),
        ("patient,label\np,x\np1,y\n", "labels.csv: no scan has the patient p1;"),
        ("case,label\np1,x\np2,y\np1,y\n", "labels.csv: lists p1 twice, as 'x' and as 'y'; give each one row"),
        (
            "case,label\np1,x\np2,x\n",
            "labels.csv: all 2 rows have the label 'x'; a classification needs two different ones",
        ),
        ("case;label\np1;x\np2;x\n", "labels.csv: all 2 rows have the label 'x'"),
        ("case,label\np1,\np2,0\n", "labels.csv: all 2 rows have the label ''"),
        (
            "case,class\np1,x\n",
            "labels.csv: needs a column label; its columns are case, class",
        ),
        ("case,label\n", "labels.csv: needs a column case or patient; its columns are none"),
        (b"\xff\xfe", "labels.csv: cannot be read as a table"),
        (None, "labels.csv: no such file"),
    ],
)
def test_a_wrong_table_is_refused_in_one_line(folder, tmp_path, capsys, table, message):
    path = tmp_path / "labels.csv"
    if table is not None:
        path.write_bytes(table if isinstance(table, bytes) else table.encode())
    args = [folder.root, "--case-labels", path, "--patient", "([pqr])", "--out", tmp_path / "store"]
    assert cli.run("ingest", [str(arg) for arg in args]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not (tmp_path / "store").exists()


def test_drawn_labels_and_a_table_are_refused_together(folder, tmp_path, capsys):
    folder.text("dataset.json", {"labels": {"0": "background", "1": "liver"}, "training": [
        {"image": "p1.nii.gz", "label": "p2.nii.gz"}]})  # fmt: skip
    (tmp_path / "labels.csv").write_text("case,label\nq1,x\nq2,y\n")
    args = [folder.root, "--case-labels", tmp_path / "labels.csv", "--out", tmp_path / "store"]
    assert cli.run("ingest", [str(arg) for arg in args]) == 2
    assert "p1: has a label that was drawn, and" in capsys.readouterr().err
