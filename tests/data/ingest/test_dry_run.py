"""What the terminal and the pages of an ingestion show: the plan, the warnings, the pictures, and no private name."""

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from medssl import cli
from medssl.data.ingest.config import IngestConfig
from medssl.data.ingest.pipeline import ingest
from medssl.data.ingest.read_source import read_source
from medssl.data.ingest.reference_labels import References
from medssl.data.manifest import Manifest
from medssl.data.store_metadata import StoreMetadata
from tests.data.ingest.test_deidentification import NAME, read_everything
from tests.helpers.scan_folders import ScanFolder, box, scan


@pytest.fixture
def folder(tmp_path):
    """A BraTS-like folder, in which one patient lacks a sequence and one label is on another grid."""
    folder = ScanFolder(tmp_path / "scans")
    for n, p in enumerate(("anna", "bert", "cleo")):
        for c, sequence in enumerate(("t1", "t2")):
            if (p, sequence) != ("bert", "t2"):
                folder.scan(f"{p}/{p}_{sequence}.nii.gz", 10 * n + c)
        folder.label(f"{p}/{p}_seg.nii.gz", n, shift=5.0 if p == "cleo" else 0.0)
    folder.text("notes.txt", "hello")
    return folder


def test_a_dry_run_lists_cases_with_patient_channels_label_and_problem_and_writes_nothing(folder, tmp_path, capsys):
    assert cli.run("ingest", [str(folder.root), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    lines = [re.split(r"  +", line) for line in printed.splitlines()]
    assert lines[0] == ["case", "patient", "channels", "label", "expected problem"]
    assert ["anna", "anna", "t1 (MR), t2 (MR)", "anna_seg.nii.gz"] in lines
    cleo = next(line for line in lines if line[0] == "cleo")
    assert cleo[-1] == "cleo_seg.nii.gz: not on the grid of its image"
    assert "2 cases, 1 of them probably refused; files: 9, 3 refused" in printed
    assert "lacks the channel t2" in printed and "bert/bert_t1.nii.gz, bert/bert_seg.nii.gz" in printed
    assert [p.name for p in tmp_path.iterdir()] == ["scans"]


def test_a_dry_run_foresees_what_the_ingestion_refuses(folder, tmp_path):
    summary = ingest(folder.root, tmp_path / "store", IngestConfig(num_workers=0, deidentify=False), lambda *_: None)
    assert [case.id for case in summary.manifest.cases] == ["anna"]
    reasons = {row.path.rpartition("/")[2]: row.reason for row in summary.rows if row.status == "refused"}
    assert "grid" in reasons["cleo_seg.nii.gz"] and "lacks the channel" in reasons["bert_t1.nii.gz"]
    assert "2 patients of 2 cases, by their folders" in summary.notes[0]


def test_a_store_is_asked_for_unless_the_run_is_dry(folder, capsys):
    assert cli.run("ingest", [str(folder.root)]) == 2
    assert "--dry-run" in capsys.readouterr().err


def test_the_page_of_a_store_shows_each_case_with_its_label(folder, tmp_path, capsys, caplog):
    words = ["--out", str(tmp_path / "store"), "--workers", "0", "--no-deidentify", "--spacing", "native"]
    assert cli.run("ingest", [str(folder.root), *words]) == 2  # a labelled case is lost
    assert "report.html" in capsys.readouterr().out
    assert "the label values 1 have no names: their classes are class_1; a dataset.json" in caplog.text
    page = (tmp_path / "store/report.html").read_text()
    (picture,) = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture)))).astype(int)
    colour = np.ptp(pixels, axis=-1) > 30  # everything but the label is grey
    assert 0.02 < colour.mean() < 0.5
    assert "anna" in page and "class_1" in page and "cleo" not in page and "http" not in page


def test_warnings_of_many_cases_are_counted_in_the_terminal(tmp_path, capsys):
    folder = ScanFolder(tmp_path / "scans")
    for n in range(3):
        folder.scan(f"imagesTr/c{n}_0000.nii.gz", n, "CT")
    folder.text("dataset.json", {"channel_names": {"0": "MR"}, "labels": {"background": 0}})
    assert cli.run("ingest", [str(folder.root), "--out", str(tmp_path / "store"), "--workers", "0"]) == 0
    printed = capsys.readouterr().out
    assert "warning in 3 cases: named MR, but its values go down to -10" in printed
    assert "each of 3 cases counts as its own patient" in printed


def test_a_declared_test_set_is_neither_mixed_with_other_patients_nor_with_their_other_scans(tmp_path):
    folder = ScanFolder(tmp_path / "scans")
    for n in range(12):
        part = "Ts" if n < 3 else "Tr"
        folder.scan(f"images{part}/c{n:02}_0000.nii.gz", n)
        folder.label(f"labels{part}/c{n:02}.nii.gz", n)
    folder.text("dataset.json", {"channel_names": {"0": "MR"}, "labels": {"background": 0, "x": 1}})
    folder.text("cases.csv", "case,patient\n" + "".join(f"c{n:02},P{min(n, 10)}\n" for n in range(12)) + "c03,P0\n")
    manifest = ingest(folder.root, tmp_path / "store", IngestConfig(num_workers=0), lambda *_: None).manifest
    test = {case.id for case in manifest.cases if case.split == "test"}
    assert test == {"c00", "c01", "c02", "c03"}  # c03 is another scan of the patient of c00
    assert {case.split for case in manifest.cases} == {"train", "val", "test"}


def test_references_follow_patterns_and_merged_structures(tmp_path):
    folder = ScanFolder(tmp_path / "scans")
    for n, p in enumerate("ab"):
        folder.scan(f"{p}/x.nii.gz", n)
        folder.label(f"{p}/parts/liver.nii.gz", 0)
        folder.label(f"{p}/parts/spleen.nii.gz", 3)
    options = IngestConfig(
        num_workers=0, image_patterns=("*/x.nii.gz",), label_patterns=("*/parts/*.nii.gz",), modality="MR"
    )
    manifest = ingest(folder.root, tmp_path / "store", options, lambda *_: None).manifest
    references = References.read(tmp_path / "store/manifest.csv")
    for case in manifest.cases:
        label = references.read_label(case.id, read_source(case, manifest))
        assert np.array_equal(label.voxels, box(0) + 2 * box(3))
    assert StoreMetadata.read(tmp_path / "store").present_labels == {c.id: [1, 2] for c in manifest.cases}


def test_channels_of_one_file_are_read_again_through_the_manifest(tmp_path):
    folder = ScanFolder(tmp_path / "scans")
    folder.put("imagesTr/a.nii.gz", np.stack([scan(c) for c in range(3)], -1))
    folder.text("dataset.json", {"modality": {"0": "T1", "1": "T2", "2": "ADC"}, "training": ["imagesTr/a.nii.gz"]})
    manifest = ingest(folder.root, tmp_path / "store", IngestConfig(num_workers=0), lambda *_: None).manifest
    assert np.array_equal(read_source(manifest.cases[0], manifest).voxels, np.stack([scan(c) for c in range(3)]))


@pytest.mark.parametrize("layout", ["bids", "structures", "slicer", "patterns"])
def test_no_layout_lets_a_name_into_the_store_or_the_terminal(tmp_path, capfd, layout):
    folder, options = ScanFolder(tmp_path / "scans"), []
    low = NAME.lower()
    if layout == "bids":
        stem = f"sub-{NAME}/ses-{NAME}2/anat/sub-{NAME}_ses-{NAME}2_acq-{NAME}_T1w"
        folder.scan(f"{stem}.nii.gz", 1)
        folder.label(f"derivatives/{NAME}/{stem}_dseg.nii.gz", 1)
        folder.label(f"derivatives/other/{stem}_label-{NAME}_mask.nii.gz", 1)
        folder.text(f"derivatives/{NAME}/{stem}_dseg.tsv", f"index\tname\n1\t{NAME}\n")
        rows = f"participant_id\tage\tsex\tsite\nsub-{NAME}\t95\t{NAME}\t{NAME} clinic\n"
        folder.text("participants.tsv", rows)
    elif layout == "structures":
        folder.scan(f"{NAME}/ct.nii.gz", 1, "CT")
        folder.label(f"{NAME}/segmentations/{NAME}.nii.gz", 0)
        folder.label(f"{NAME}/segmentations/liver.nii.gz", 3)
        folder.text("meta.csv", f"image_id;age;gender;institute\n{NAME};95;{NAME};{NAME}\n")
    elif layout == "slicer":
        folder.scan(f"{NAME}/CT.nrrd", 1, "CT")
        meta = {"Segment0_Name": NAME, "Segment0_LabelValue": "1", "Segment0_Layer": "0"}
        folder.label(f"{NAME}/{NAME}.seg.nrrd", 1, meta=meta)
    else:
        folder.scan(f"{NAME}_x.nii.gz", 1)
        folder.label(f"{NAME}_{NAME}.nii.gz", 1)
        folder.scan(f"{NAME}.nii.gz", 2)
        options = ["--image", "*_x.nii.gz", "--label", f"*_{NAME}.nii.gz", "--patient", f"({NAME})"]
    words = [str(folder.root), "--out", str(tmp_path / "store"), "--workers", "0", *options]
    assert cli.run("ingest", words) == 0
    captured = capfd.readouterr()
    content = read_everything(tmp_path / "store", captured.out + captured.err).lower()
    assert low.encode() not in content and b"hidden-" in content
    manifest = Manifest.read(tmp_path / "store/manifest.csv")
    (case,) = manifest.cases
    assert case.label and (case.age_years in (None, 90)) and case.sex in ("", "M", "F", "O")
    assert json.dumps(StoreMetadata.read(tmp_path / "store").labels).lower().count(low) == 0
