"""Reports are found in a table, in text files beside images and in structured reports of the same study."""

from dataclasses import replace

import numpy as np
import pytest
from pydicom import Dataset, FileMetaDataset, dcmwrite
from pydicom.uid import ComprehensiveSRStorage, ExplicitVRLittleEndian, generate_uid

from medssl.data.ingest.config import IngestConfig
from medssl.data.ingest.pipeline import ingest
from medssl.data.reports.texts import read_reports, split_sentences
from medssl.errors import BadInput
from medssl.io.dicom.derived.sr_reader import read_report, read_study_uid
from medssl.io.dicom.series_writer import SeriesInfo, write_series
from medssl.volume import Volume
from tests.helpers.scan_folders import ScanFolder


def make_code(meaning):
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "1", "99TEST", meaning
    return code


def make_item(value_type, name="", text="", concept="", children=()):
    item = Dataset()
    item.ValueType, item.RelationshipType = value_type, "CONTAINS"
    if name:
        item.ConceptNameCodeSequence = [make_code(name)]
    if text:
        item.TextValue = text
    if concept:
        item.ConceptCodeSequence = [make_code(concept)]
    if children:
        item.ContentSequence = list(children)
    return item


def write_structured_report(path, study):
    report = make_item("CONTAINER", "Radiology Report", children=[
        make_item("CONTAINER", "Findings", children=[
            make_item("TEXT", "Finding", text="A nodule of 8 mm.\nIt lies in the left lung."),
            make_item("CODE", "Certainty", concept="Probable"),
        ]),
        make_item("TEXT", "Impression", text="Follow-up advised."),
    ])  # fmt: skip
    report.SOPClassUID, report.SOPInstanceUID, report.StudyInstanceUID = ComprehensiveSRStorage, generate_uid(), study
    report.Modality, report.PatientID = "SR", "patient-1"
    report.file_meta = FileMetaDataset()
    report.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path.parent.mkdir(parents=True, exist_ok=True)
    dcmwrite(path, report, enforce_file_format=True)
    return path


def prepare(folder, store):
    return ingest(folder, store, IngestConfig(num_workers=0), lambda done, of: None).manifest


def write_ct(folder, number):
    voxels = np.random.default_rng(number).integers(-1000, 500, (12, 12, 12)).astype(np.int16)
    info = SeriesInfo(f"patient-{number}")
    write_series(Volume(voxels, np.eye(4), "HU"), folder, info)
    return sorted(folder.iterdir())[0]


def test_a_structured_report_is_read_in_its_order(tmp_path):
    study, text = read_report(write_structured_report(tmp_path / "sr.dcm", "1.2.3"))
    assert study == "1.2.3"
    assert split_sentences(text) == [
        "A nodule of 8 mm.", "It lies in the left lung.", "Certainty: Probable", "Follow-up advised."
    ]  # fmt: skip


def test_other_files_are_no_reports(tmp_path):
    image = write_ct(tmp_path / "ct", 1)
    (tmp_path / "notes.txt").write_text("hello")
    assert read_report(image) is None and read_study_uid(image)
    assert read_report(tmp_path / "notes.txt") is None and read_study_uid(tmp_path / "notes.txt") == ""


def test_sentences_end_at_stops_and_lines_and_hold_words():
    assert split_sentences("Findings:\n No  nodule. Heart normal; lungs clear!\n\n12.5\n- \n") == [
        "Findings:", "No nodule.", "Heart normal;", "lungs clear!"
    ]  # fmt: skip


@pytest.mark.parametrize("ending", ["nii.gz", "nrrd"])
def test_a_text_file_with_the_name_of_an_image_is_its_report(tmp_path, ending):
    folder = ScanFolder(tmp_path / "scans")
    for number in range(3):
        folder.scan(f"ward/scan{number}.{ending}", number)
    folder.text("ward/scan1.txt", "No nodule.")
    manifest = prepare(folder.root, tmp_path / "store")
    (text,) = read_reports(manifest).values()
    assert text == "No nodule." and len(manifest.cases) == 3


def test_structured_reports_belong_to_the_series_of_their_study(tmp_path):
    images = [write_ct(tmp_path / "scans" / f"patient{n}", n) for n in range(2)]
    write_structured_report(tmp_path / "scans" / "reports" / "a.dcm", read_study_uid(images[1]))
    manifest = prepare(tmp_path / "scans", tmp_path / "store")
    reports = read_reports(manifest)
    assert len(manifest.cases) == 2 and len(reports) == 1
    assert "A nodule of 8 mm." in next(iter(reports.values()))


@pytest.mark.parametrize("column", ["case", "patient"])
def test_a_table_names_cases_or_patients(tmp_path, column):
    folder = ScanFolder(tmp_path / "scans")
    for number in range(2):
        folder.scan(f"scan{number}.nii.gz", number)
    manifest = prepare(folder.root, tmp_path / "store")
    first, table = manifest.cases[0], tmp_path / "reports.csv"
    name = first.id if column == "case" else first.patient
    table.write_text(f'{column};report\n{name};"Heart normal;\nno nodule."\n')
    assert read_reports(manifest, table) == {first.id: "Heart normal;\nno nodule."}


def test_scans_without_reports_are_refused(tmp_path):
    folder = ScanFolder(tmp_path / "scans")
    folder.scan("a.nii.gz", 0)
    manifest = prepare(folder.root, tmp_path / "store")
    with pytest.raises(BadInput, match=r"no text file and no structured report lies next to the scans of .*--reports"):
        read_reports(manifest)
    (tmp_path / "t.csv").write_text("case,report\nelse,No nodule.\n")
    with pytest.raises(BadInput, match=r"t.csv names no case of"):
        read_reports(manifest, tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("case,text\nelse,No nodule.\n")
    with pytest.raises(BadInput, match=r"t.csv: needs a column report; its columns are case, text"):
        read_reports(manifest, tmp_path / "t.csv")
    folder.text("a.txt", "x" * 2_000_000)
    with pytest.raises(BadInput, match="bytes are too many for a report"):
        read_reports(replace(manifest))
