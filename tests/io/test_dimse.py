"""Files that arrive by C-STORE are on the disk before the sender hears so; wrong titles are rejected."""

import shutil
import subprocess

import numpy as np
import pytest

from medssl.errors import BadInput
from medssl.io.dicom import reader
from medssl.io.dicom.series_writer import SeriesInfo, write_series
from medssl.io.dimse import receive
from medssl.io.dimse.address import NodeAddress
from medssl.io.dimse.receive import receive_files
from medssl.io.dimse.send import send_files
from medssl.volume import Volume
from tests.helpers.archive_server import free_port


@pytest.fixture
def series(tmp_path):
    voxels = np.random.default_rng(0).integers(-900, 900, (8, 9, 5)).astype(np.int16)
    image = Volume(voxels, np.diag([1.0, 1.0, 2.0, 1.0]), "HU").reorient("LPS")
    write_series(image, tmp_path / "series", SeriesInfo("p"))
    return sorted((tmp_path / "series").rglob("*.dcm"))


def read_voxels(place):
    (series,) = reader.read(place)
    return series.volume().voxels


def test_a_series_arrives_whole_and_once(series, tmp_path):
    with receive_files(NodeAddress("WATCH", "127.0.0.1", 0), tmp_path / "inbox") as port:
        for _ in range(2):
            send_files(NodeAddress("WATCH", "127.0.0.1", port), series)
    files = sorted((tmp_path / "inbox").iterdir())
    assert len(files) == len(series) and not files[0].stat().st_mode & 0o077
    assert np.array_equal(read_voxels(tmp_path / "inbox"), read_voxels(tmp_path / "series"))


def test_dcmtk_sends_a_series(series, tmp_path):
    program = shutil.which("storescu")
    if program is None:
        pytest.skip("needs storescu (Debian: dcmtk)")
    with receive_files(NodeAddress("WATCH", "127.0.0.1", 0), tmp_path / "inbox") as port:
        command = [program, "-aec", "WATCH", "127.0.0.1", str(port), *map(str, series)]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
    assert np.array_equal(read_voxels(tmp_path / "inbox"), read_voxels(tmp_path / "series"))


def test_a_wrong_title_is_rejected_and_both_sides_say_so(series, tmp_path, caplog):
    with receive_files(NodeAddress("WATCH", "127.0.0.1", 0), tmp_path / "inbox") as port:
        with pytest.raises(BadInput, match="does not accept OTHER, or not from MEDSSL"):
            send_files(NodeAddress("OTHER", "127.0.0.1", port), series)
        with pytest.raises(BadInput, match=f"port {port} cannot be opened"):  # noqa: SIM117
            with receive_files(NodeAddress("WATCH", "127.0.0.1", port), tmp_path / "inbox"):
                pass
    assert "it calls 'OTHER', the title here is 'WATCH'" in caplog.text
    assert not list((tmp_path / "inbox").iterdir())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # pynetdicom leaves the socket open
def test_a_node_that_is_away_is_named(series):
    port = free_port()
    with pytest.raises(BadInput, match=f"ARCHIVE@127.0.0.1:{port}: the files cannot be sent: no answer"):
        send_files(NodeAddress("ARCHIVE", "127.0.0.1", port), series)


def test_a_file_that_cannot_be_written_is_refused(series, tmp_path, monkeypatch, caplog):
    """The sender keeps it, since it does not hear that it was stored."""

    def fail(*_, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(receive, "atomic_file", fail)
    with (
        receive_files(NodeAddress("WATCH", "127.0.0.1", 0), tmp_path / "inbox") as port,
        pytest.raises(BadInput, match=r"refuses a file \(status A700\)"),
    ):
        send_files(NodeAddress("WATCH", "127.0.0.1", port), series)
    assert "No space left on device" in caplog.text
