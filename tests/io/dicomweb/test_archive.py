"""Search, retrieval and storage against a real Orthanc: whole series arrive unchanged, or a line says why not."""

import re

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import RLELossless

from medssl.errors import BadInput
from medssl.io.dicom import reader
from medssl.io.dicomweb.address import parse_address
from medssl.io.dicomweb.retrieve import find_series, retrieve_all
from medssl.io.dicomweb.service import PAUSES_S, connect
from medssl.io.dicomweb.store import store_files
from tests.helpers.archive_server import FaultyProxy, cut_body, free_port, run_orthanc, write_netrc
from tests.helpers.dicom_phantom import ROOT, make_slices, save, true_value


def make_patient(number, modality="CT"):
    """The slices of a series; those of patient 2 are larger than what is read from the network at once."""
    size = {"rows": 480, "columns": 512} if number == 2 else {}
    datasets = make_slices(modality=modality, count=4, **size)
    for k, d in enumerate(datasets):
        d.PatientID, d.StudyInstanceUID, d.SeriesInstanceUID = (
            f"patient-{number}",
            f"{ROOT}1.{number}",
            f"{ROOT}2.{number}",
        )
        d.SOPInstanceUID, d.AccessionNumber = f"{ROOT}3.{number}.{k}", f"A{number}"
    return datasets


def compress(path):
    """Encodes the pixels of a file in RLE."""
    data = dcmread(path)
    data.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    data.save_as(path)
    return path


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """The address of an archive with four series of four patients."""
    folder = tmp_path_factory.mktemp("archive")
    with run_orthanc(folder / "db") as url, pytest.MonkeyPatch.context() as patch:
        write_netrc(folder / "netrc", patch)
        for number, modality in enumerate(("CT", "CT", "MR"), 1):
            store_files(connect(url), save(make_patient(number, modality), folder / str(number)))
        store_files(connect(url), [compress(path) for path in save(make_patient(4), folder / "4")])
        yield url


@pytest.fixture(autouse=True)
def sign_in(tmp_path, monkeypatch):
    write_netrc(tmp_path / "netrc", monkeypatch)


def retrieve(url, query, folder, **options):
    address = parse_address(f"dicomweb+{url}?{query}")
    service = connect(address.url, **options)
    return retrieve_all(service, find_series(service, address), folder)


def read_patients(folder):
    return sorted(s.patient for s in reader.read(folder))


@pytest.mark.parametrize(("query", "patients"), [
    ("PatientID=patient-2", [2]),
    ("PatientID=patient-*&Modality=MR", [3]),
    (f"StudyInstanceUID={ROOT}1.1", [1]),
    ("AccessionNumber=A3", [3]),
    (f"SeriesInstanceUID={ROOT}2.1", [1]),
    ("Modality=CT", [1, 2, 4]),
])  # fmt: skip
def test_the_keys_choose_the_series(archive, tmp_path, query, patients):
    folder = retrieve(archive, query, tmp_path / "in")
    assert read_patients(folder) == [f"patient-{n}" for n in patients]


@pytest.mark.parametrize("number", [1, 4])
def test_the_voxels_arrive_unchanged_in_their_own_encoding(archive, tmp_path, number):
    folder = retrieve(archive, f"PatientID=patient-{number}", tmp_path / "in")
    (series,) = reader.read(folder)
    volume = series.volume()
    index = np.argwhere(np.ones(volume.shape, bool))
    expected = true_value(volume.to_mm(index.astype(float)))
    assert np.abs(volume.voxels.ravel() - expected).max() < 0.51
    assert (dcmread(series.files[0]).file_meta.TransferSyntaxUID == RLELossless) == (number == 4)


def test_a_complete_series_is_not_retrieved_again_and_only_the_owner_can_read_it(archive, tmp_path):
    with FaultyProxy(archive) as proxy:
        for _ in range(2):
            retrieve(proxy.url, "PatientID=patient-1", tmp_path / "in")
        is_retrieval = [path.endswith(f"/series/{ROOT}2.1") for path, _ in proxy.requests]
        assert sum(is_retrieval) == 1
        next((tmp_path / "in" / "series").rglob("*.dcm")).unlink()
        retrieve(proxy.url, "PatientID=patient-1", tmp_path / "in")
    assert read_patients(tmp_path / "in" / "series") == ["patient-1"]
    assert (tmp_path / "in").stat().st_mode & 0o077 == 0


def test_a_connection_that_breaks_costs_no_slice(archive, tmp_path):
    with FaultyProxy(archive, lambda path, _: cut_body if path.endswith(f"/series/{ROOT}2.2") else None) as proxy:
        folder = retrieve(proxy.url, "PatientID=patient-2", tmp_path / "in")
        fetched = [path for path, _ in proxy.requests if re.search(r"/instances/[\d.]+$", path)]
    assert 1 <= len(fetched) < 4  # the files before the break are not fetched twice
    (series,) = reader.read(folder)
    assert len(series.files) == 4


def test_a_series_that_breaks_for_good_is_left_out_and_the_next_run_goes_on(archive, tmp_path):
    def fail(path, _):
        return 503 if f"/series/{ROOT}2.2" in path and not path.partition("?")[0].endswith("/instances") else None

    pauses = []
    with FaultyProxy(archive, fail) as proxy:
        with pytest.raises(BadInput, match=r"cannot be reached \(it answers 503\)"):
            retrieve(proxy.url, "Modality=CT", tmp_path / "in", pause=pauses.append)
        assert pauses == list(PAUSES_S)
        assert read_patients(tmp_path / "in" / "series") == ["patient-1"]
        proxy.fault = lambda path, _: None
        proxy.requests.clear()
        folder = retrieve(proxy.url, "Modality=CT", tmp_path / "in")
        assert not [path for path, _ in proxy.requests if path.endswith(f"/series/{ROOT}2.1")]
    assert read_patients(folder) == ["patient-1", "patient-2", "patient-4"]


def test_a_busy_service_is_asked_again(archive, tmp_path):
    pauses = []
    with FaultyProxy(archive, lambda path, count: 503 if count < 2 and "/studies?" in path else None) as proxy:
        retrieve(proxy.url, "PatientID=patient-1", tmp_path / "in", pause=pauses.append)
    assert pauses == list(PAUSES_S[:2])


def test_a_service_that_is_away_gives_one_line():
    url, pauses = f"http://127.0.0.1:{free_port()}/dicom-web", []
    with pytest.raises(BadInput, match=r"cannot be reached \(no connection\).*run the command again") as refusal:
        find_series(connect(url, pauses.append), parse_address(f"dicomweb+{url}?PatientID=Qwertzsmith"))
    assert pauses == list(PAUSES_S) and "Qwertz" not in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_service_that_ignores_a_key_sends_no_scan_of_another_patient(archive, tmp_path):
    with FaultyProxy(archive) as proxy:
        proxy.fault = lambda path, _: (
            (lambda body: body.replace(b"patient-1", b"patient-9")) if "/studies?" in path else None
        )
        with pytest.raises(BadInput, match="ignores the key PatientID"):
            retrieve(proxy.url, "PatientID=patient-1", tmp_path / "in")
    assert not (tmp_path / "in").exists()


REFUSALS = {
    "no key": ("", None, "names no patient or study"),
    "no match": ("PatientID=patient-9", None, "no series matches PatientID; check"),
    "no access": ("PatientID=patient-1", 401, "refuses access"),
    "no service": ("PatientID=patient-1", 404, "no DICOMweb service at this address"),
    "another error": ("PatientID=patient-1", 400, r"refuses the request \(400\)"),
    "a web page": ("PatientID=patient-1", lambda body: b"<html>", "not DICOMweb"),
    "a path": ("PatientID=patient-1", lambda body: body.replace(f"{ROOT}1.1".encode(), b"../../x"), "no UID"),
}


@pytest.mark.parametrize("fault", REFUSALS)
def test_a_refusal_says_what_to_do_and_shows_no_value(archive, tmp_path, fault):
    query, answer, words = REFUSALS[fault]
    with FaultyProxy(archive, lambda path, _: answer) as proxy, pytest.raises(BadInput, match=words) as refusal:
        retrieve(proxy.url, query, tmp_path / "in", pause=lambda seconds: None)
    assert "patient-" not in str(refusal.value)


def test_a_wrong_password_is_refused_once(archive, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login reader password wrong\n")
    with pytest.raises(BadInput, match=r"refuses access \(401\)"):
        retrieve(archive, "PatientID=patient-1", tmp_path / "in", pause=pytest.fail)


def test_a_file_of_headers_signs_in(archive, tmp_path, monkeypatch):
    (tmp_path / "headers").write_text("# of the proxy\nAuthorization: Bearer Qwertztoken\n")
    monkeypatch.setenv("MEDSSL_DICOMWEB_HEADERS", str(tmp_path / "headers"))
    with FaultyProxy(archive) as proxy:
        retrieve(proxy.url, "PatientID=patient-1", tmp_path / "in")
        assert {headers["Authorization"] for _, headers in proxy.requests} == {"Bearer Qwertztoken"}


@pytest.mark.parametrize("content", [b"", b"Bearer Qwertztoken", b"\xff\xfe", None])
def test_a_damaged_file_of_headers_is_named_and_not_shown(tmp_path, monkeypatch, content):
    if content is not None:
        (tmp_path / "headers").write_bytes(content)
    monkeypatch.setenv("MEDSSL_DICOMWEB_HEADERS", str(tmp_path / "headers"))
    with pytest.raises(BadInput, match="headers") as refusal:
        connect("http://127.0.0.1/dicom-web")
    assert "Qwertz" not in str(refusal.value)


def test_files_that_are_not_stored_are_counted(archive, tmp_path):
    answer = b'{"00081198": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [42752]}}]}}'
    paths = save(make_patient(5), tmp_path / "new")
    with FaultyProxy(archive, lambda path, _: lambda body: answer) as proxy:  # noqa: SIM117
        with pytest.raises(BadInput, match=r"stores 3 of 4 files \(reason A700\)"):
            store_files(connect(proxy.url), paths)
