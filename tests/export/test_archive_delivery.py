"""SEG and SR of reviewed cases arrive in a real archive, next to the scans that came from it."""

import pytest

from app import case_export
from medssl import cli
from medssl.errors import BadInput
from medssl.export.archive_delivery import retrieve_scans, send_archive, send_documents
from medssl.export.export import ExportOptions, export_archive, export_review
from medssl.io.dicomweb.address import parse_address
from medssl.io.dicomweb.retrieve import find_series
from medssl.io.dicomweb.service import connect
from medssl.io.dicomweb.store import store_files
from medssl.review.access.reviewers import ReviewConfig, Reviewer
from tests.export.test_export import A1, A2, ReviewedPredictions
from tests.helpers.archive_server import free_port, run_orthanc, write_netrc

pytestmark = pytest.mark.slow
QUERY = "PatientID=case-a"


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """The address of an archive without files."""
    write_netrc(tmp_path / "netrc", monkeypatch)
    with run_orthanc(tmp_path / "db") as url:
        yield f"dicomweb+{url}"


@pytest.fixture
def review(predictions):
    return ReviewedPredictions(predictions).act("accept", A1).act("accept", A2).sign()


def list_modalities(archive: str) -> list[tuple[str, str]]:
    address = parse_address(f"{archive}?{QUERY}")
    return sorted((series.study, series.modality) for series in find_series(connect(address.url), address))


def test_a_signed_case_is_delivered_into_the_study_that_its_scan_came_from(archive, review, predictions, tmp_path):
    store_files(connect(parse_address(archive).url), sorted(path for path in review.dicom.rglob("*") if path.is_file()))
    words = [str(predictions), "--dicomweb", f"{archive}?{QUERY}", "--audit-db", str(review.store.name)]
    assert cli.run("deliver", [*words, "--out", str(tmp_path / "out")]) == 0
    modalities = list_modalities(archive)
    assert len({study for study, _ in modalities}) == 1
    assert [modality for _, modality in modalities] == ["CT", "SEG", "SR"]
    assert cli.run("deliver", [*words, "--out", str(tmp_path / "again")]) == 0
    assert list_modalities(archive) == modalities  # the same content is the same document
    assert (predictions.parent / "predictions-scans").stat().st_mode & 0o077 == 0


def test_the_app_stores_what_it_exports(archive, review):
    content = export_archive(review.index, review.store, "case-a", ExportOptions(review.dicom))
    assert [send_archive(archive, content) for _ in range(2)] == [2, 2]  # sent twice, stored once
    assert [modality for _, modality in list_modalities(archive)] == ["SEG", "SR"]
    config = ReviewConfig(predictions="p", audit_db="s", key="k" * 32, dicomweb=archive)
    assert "also into the archive" in case_export.describe_formats(config)


def test_a_delivery_that_does_not_arrive_is_not_recorded_and_leaves_nothing(review, tmp_path):
    def fail(paths):
        raise BadInput("the archive is away")

    with pytest.raises(BadInput, match="is away"):
        export_review(
            review.index, review.store, tmp_path / "out", ExportOptions(review.dicom), Reviewer("ana", "senior"), fail
        )
    assert not (tmp_path / "out").exists()
    assert [event.action for event in review.store.read_events()] == ["accept", "accept", "sign"]


def test_what_the_archive_lacks_is_said_in_one_line(archive, predictions, tmp_path):
    with pytest.raises(BadInput, match="no series matches PatientID"):
        retrieve_scans(f"{archive}?{QUERY}", predictions)
    with pytest.raises(BadInput, match="no DICOM SEG or SR"):
        send_documents(archive, [tmp_path / "report.pdf"])
    with pytest.raises(BadInput, match="cannot be reached"):
        retrieve_scans(f"dicomweb+http://127.0.0.1:{free_port()}/dicom-web?{QUERY}", predictions)
