"""Where a case was read from: any name a file can have comes back."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medssl import cli
from medssl.data.ingest import file_ledger as ledger
from medssl.data.ingest.config import IngestConfig
from medssl.data.ingest.deidentification import private_dir, read_real_rows
from medssl.data.ingest.pipeline import ingest
from medssl.data.ingest.read_source import read_source
from medssl.data.ingest.source import format_location, parse_location
from medssl.data.manifest import Manifest
from medssl.io import nifti
from medssl.volume import Volume
from tests.helpers.dicom_phantom import make_slices, save

NAMES = st.binary(min_size=1, max_size=12).filter(lambda b: not set(b) & {0, 0x2F} and b not in (b".", b".."))
ODD = ("M\udcfcller#2|%41", "a%23b", "100%|")


@given(st.lists(NAMES, min_size=1, max_size=3), st.sampled_from([None, "0a1b2c"]))
def test_a_place_comes_back_whatever_its_files_are_called(names, series):
    paths = [Path("/scans", os.fsdecode(name)) for name in names]
    text = format_location(paths, series)
    text.encode()
    assert parse_location(text) == ((paths, "") if series is None else ([Path("/scans")], series))


@pytest.fixture
def scans(tmp_path):
    """A series and an image in folders with names of another century."""
    for n, name in enumerate(ODD):
        voxels = np.random.default_rng(n).uniform(50, 900, (12, 14, 16)).astype(np.float32)
        nifti.write(Volume(voxels, np.eye(4), "a.u."), tmp_path / "plain.nii.gz")
        (tmp_path / "scans" / name).mkdir(parents=True)
        (tmp_path / "plain.nii.gz").rename(tmp_path / "scans" / name / "im\udce9ge.nii.gz")
    save(make_slices(), tmp_path / "scans" / ODD[0] / "CT")
    (tmp_path / "scans" / "n\udcf6tes.txt").write_text("hello")
    return tmp_path / "scans"


@pytest.mark.parametrize("deidentify", [True, False])
def test_folders_with_names_that_are_no_utf8_are_ingested_and_found_again(scans, tmp_path, deidentify, capsys):
    words = [str(scans), "--out", str(tmp_path / "s"), "--modality", "MR", "--workers", "0"]
    for _ in range(2):
        assert cli.run("ingest", [*words, *([] if deidentify else ["--no-deidentify"])]) == 0
    assert "nothing to do" in capsys.readouterr().out
    manifest = Manifest.read(tmp_path / "s/manifest.csv")
    assert len(manifest.cases) == 4 and len({c.id for c in manifest.cases}) == 4
    for case in manifest.cases:
        assert read_source(case, manifest).voxels.size
    rows = read_real_rows(tmp_path / "s")
    assert sorted(r.path for r in rows) == sorted(str(p) for p in scans.rglob("*") if p.is_file())
    if not deidentify:
        assert {r.path for r in ledger.read_ledger(tmp_path / "s/ledger.csv")} == {r.path for r in rows}


def test_the_model_of_a_scanner_is_stored_as_a_keyed_pseudonym_only(tmp_path):
    """Who has no key cannot try out which model, or which text in its place, a site stands for."""
    slices = make_slices()
    for d in slices:
        d.Manufacturer, d.ManufacturerModelName = "SIEMENS", "Skyra of Dr Doe"
    save(slices, tmp_path / "scans")
    sites = []
    for name in ("a", "b"):
        out = tmp_path / name
        sites += [
            c.site for c in ingest(tmp_path / "scans", out, IngestConfig(num_workers=0), lambda *_: None).manifest.cases
        ]
    key = private_dir(tmp_path / "a") / "key"
    options = IngestConfig(num_workers=0, pseudonym_key=key)
    sites += [c.site for c in ingest(tmp_path / "scans", tmp_path / "c", options, lambda *_: None).manifest.cases]
    assert all(site.startswith("Siemens ") and len(site) == 14 for site in sites)
    assert sites[0] != sites[1] and sites[0] == sites[2]
