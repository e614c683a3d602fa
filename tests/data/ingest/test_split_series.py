"""Volumes of one series that tags tell apart: each becomes a case with its own voxels, or the ledger says why not."""

import numpy as np
import pytest

from medssl import cli
from medssl.data.ingest import file_ledger
from medssl.data.ingest.config import IngestConfig
from medssl.data.ingest.pipeline import ingest
from medssl.data.ingest.read_source import list_scans, read_source
from medssl.data.store import Store
from tests.helpers.dicom_phantom import ROOT, make_slices, paint, save, slice_values, true_value

TAGS = {
    "echoes": ("MR", "EchoTime", ("10", "80")),
    "phases": ("CT", "AcquisitionNumber", ("1", "2", "3")),
    "times": ("MR", "TemporalPositionIdentifier", ("1", "2", "3", "4")),
    "b-values": ("MR", "DiffusionBValue", (0.0, 1000.0)),
}


def write_series(folder, modality, keyword, values, subfolders=False):
    """Writes a series of one volume per value of a tag; volume n holds the true values plus 100 n."""
    for n, value in enumerate(values):
        datasets = make_slices(modality=modality, count=4)
        for k, d in enumerate(datasets):
            setattr(d, keyword, value)
            d.SOPInstanceUID = f"{ROOT}9.{n}.{k}"
            paint(d, slice_values(d) + 100 * n)
        save(datasets, folder / f"v{n}" if subfolders else folder, suffix=f"-{n}.dcm")


def run(folder, out, **options):
    options = {"num_workers": 0, "spacing_mm": "native", "deidentify": False} | options
    return ingest(folder, out, IngestConfig(**options), lambda *_: None)


def offsets(manifest):
    """The number that each volume differs from the true values by, as the scan on disk has it."""
    result = []
    for case in manifest.cases:
        volume = read_source(case, manifest)
        index = np.argwhere(np.ones(volume.shape, bool)).astype(float)
        difference = volume.voxels.ravel() - true_value(volume.to_mm(index))
        assert np.ptp(difference) < 1.01
        result.append(round(float(difference.mean()), -1))
    return sorted(result)


@pytest.mark.parametrize("subfolders", [False, True])
@pytest.mark.parametrize("kind", TAGS)
def test_every_volume_of_a_series_is_a_case_of_its_patient_with_its_own_voxels(tmp_path, kind, subfolders):
    write_series(tmp_path / "scans", *TAGS[kind], subfolders=subfolders)
    summary = run(tmp_path / "scans", tmp_path / "store")
    count = len(TAGS[kind][2])
    assert offsets(summary.manifest) == [100 * n for n in range(count)]
    assert len({c.patient for c in summary.manifest.cases}) == len({c.split for c in summary.manifest.cases}) == 1
    if kind == "phases":  # MR is scaled to its own percentiles, which hides an offset
        assert len({Store(summary.manifest).image(c).sha256 for c in summary.manifest.cases}) == count
    assert f"1 DICOM series hold {count} volumes" in summary.notes[0]
    assert run(tmp_path / "scans", tmp_path / "store").prepared == 0


SELECTIONS = [("first", [0]), ("all", [0, 100, 200]), ("auto", [0, 100, 200]), ("AcquisitionNumber=02", [100])]


@pytest.mark.parametrize(("select", "expected"), SELECTIONS)
def test_select_names_the_volumes_and_the_ledger_the_others(tmp_path, select, expected):
    write_series(tmp_path / "scans", *TAGS["phases"])
    summary = run(tmp_path / "scans", tmp_path / "store", select=select)
    assert offsets(summary.manifest) == expected
    refused = [row for row in summary.rows if row.status == "refused"]
    assert len(refused) == 4 * (3 - len(expected))
    assert all("one of 3 volumes of its series" in r.reason and "AcquisitionNumber " in r.reason for r in refused)


def test_a_dynamic_series_gives_its_first_volume_and_the_terminal_says_so(tmp_path, capsys):
    write_series(tmp_path / "scans", "MR", "TemporalPositionIdentifier", [str(n) for n in range(1, 13)])
    words = [str(tmp_path / "scans"), "--out", str(tmp_path / "store"), "--workers", "0"]
    assert cli.run("ingest", words) == 0
    printed = capsys.readouterr().out
    assert "1 DICOM series hold 12 volumes" in printed and "1 became cases; --select all" in printed
    rows = file_ledger.read_ledger(tmp_path / "store/ledger.csv")
    assert [row.status for row in rows].count("refused") == 44
    assert len(list_scans(tmp_path / "scans", "", "")) == 12
    assert cli.run("ingest", [*words, "--select", "last"]) == 2
    assert "TAG=VALUE" in capsys.readouterr().err
