"""Nothing that an ingestion writes or prints shows a name, wherever in the input the name stood."""

import json
import re
import zipfile

import blosc2
import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from pydicom import Dataset, Sequence
from pydicom.datadict import DicomDictionary

from medssl import cli
from medssl.data.ingest import file_ledger
from medssl.data.ingest.config import IngestConfig
from medssl.data.ingest.deidentification import NoPseudonyms, Pseudonymizer, private_dir, read_real_rows
from medssl.data.ingest.pipeline import ingest
from medssl.data.ingest.prepare_case import PrepareJob
from medssl.data.ingest.read_source import read_source
from medssl.data.ingest.reference_labels import References
from medssl.data.manifest import Manifest
from medssl.data.store_metadata import StoreMetadata
from medssl.errors import BadInput, InputWarning
from medssl.io import dates
from medssl.io.dicom import deidentify, reader
from medssl.io.dicomweb.service import connect
from medssl.io.dicomweb.store import store_files
from tests.helpers.archive_server import PASSWORD, USER, FaultyProxy, run_orthanc, write_netrc
from tests.helpers.dicom_phantom import ROOT, make_slices, save, write_structure_set
from tests.io.test_image_pairs import make_mgh, write_pair

NAME = "Qwertzsmith"
BORN = "19370613"
UIDS = tuple(ROOT + n for n in ("1", "2", "4", "7"))
TEXT = {"PN", "LO", "SH", "ST", "LT", "UT", "UC", "AE", "CS"}
FORM = {"DA": BORN, "DT": BORN + "101010", "AS": "101Y"}
READ = re.compile(
    "Modality|ImageType|FrameType|Photometric|SpecificCharacterSet|Burned|Conversion|Rescale|Units|Patient(Name|ID)|Lossy|"
    "Kernel|DirectoryRecord|FileSet|Transfer|MediaStorage|StackID|AcquisitionDateTime|AcquisitionTime"
)


def plant_name(**options):
    """Returns a series with the name in private attributes, and in every text attribute of its first slice."""
    datasets = make_slices(**options)
    inner = Dataset()
    for tag, (kind, _, _, _, keyword) in DicomDictionary.items():
        if keyword and kind in TEXT | set(FORM) and 0x0008 <= tag >> 16 < 0x7FE0 and not READ.search(keyword):
            setattr(inner, keyword, FORM.get(kind, NAME.upper() if kind in ("CS", "AE") else f"{NAME}^G"))
    for k, d in enumerate(datasets):
        d.PatientID, d.PatientName, d.SOPInstanceUID = f"{NAME}-4711", f"{NAME}^Greta", f"{d.SeriesInstanceUID}.7.{k}"
        d.SeriesDescription = f"{NAME} CT"
        d.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL", NAME.upper()]
        d.private_block(0x0099, f"{NAME} 1.0", create=True).add_new(1, "LO", f"{NAME} private")
    datasets[0].update({e.tag: e for e in inner if e.tag not in datasets[0]})
    datasets[0].RequestAttributesSequence = Sequence([inner])
    return datasets


def write_nifti(path, cut=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(np.random.default_rng(1).uniform(0, 900, (12, 14, 16)).astype(np.float32), np.eye(4))
    for field in ("descrip", "aux_file", "db_name", "intent_name"):
        image.header[field] = NAME.encode()
    image.to_filename(path)
    path.write_bytes(path.read_bytes()[: len(path.read_bytes()) - cut])
    return path


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """A folder as a hospital exports it: names in folders, files and headers, of readable and of broken scans."""
    root = tmp_path_factory.mktemp("in") / "scans"
    home = root / f"{NAME.upper()}_GRETA"
    save(plant_name(), home / "CT1", suffix=f"-{NAME}.dcm")
    (series,) = reader.read(home / "CT1")
    corners = [(2.5, 2.5, 2), (6.5, 2.5, 2), (6.5, 6.5, 2), (2.5, 6.5, 2)]
    write_structure_set(home, series.volume(), {f"{NAME} tumour": [corners], "Heart": [corners]}, series.uid)
    save(_move_to_series(plant_name(), "5"), home / "gap", suffix=f"-{NAME}.dcm")
    (home / "gap" / f"003-{NAME}.dcm").unlink()
    screen = _move_to_series(plant_name(), "6")
    for d in screen:
        d.BurnedInAnnotation = "YES"
    save(screen, home / "screen")
    with zipfile.ZipFile(home / f"{NAME}.zip", "w") as archive:
        archive.writestr(f"{NAME}/note.txt", NAME)
    write_nifti(home / f"{NAME}_t1.nii.gz")
    write_nifti(home / f"{NAME}_cut.nii", cut=100)
    volume = sitk.GetImageFromArray(np.random.default_rng(2).integers(0, 900, (12, 14, 16)).astype(np.int16))
    volume.SetMetaData("patient", NAME)
    sitk.WriteImage(volume, str(home / f"{NAME}.nrrd"))
    (home / f"{NAME}.txt").write_text(NAME)
    (home / "dataset.json").write_text(f'{{"labels": "{NAME}"}}')
    return root


def _move_to_series(datasets, number):
    for d in datasets:
        d.SeriesInstanceUID = ROOT + number
        d.SOPInstanceUID = f"{ROOT}{number}.7.{d.InstanceNumber}"
    return datasets


def read_everything(out, output):
    """Returns all bytes under a store, packed and unpacked, with the output of the command."""
    parts = [str(path.relative_to(out.parent)).encode() for path in out.rglob("*")] + [output.encode()]
    for path in (p for p in out.rglob("*") if p.is_file()):
        parts.append(path.read_bytes())
        if path.suffix == ".b2nd":
            array = blosc2.open(str(path))
            meta = {key: array.schunk.vlmeta[key] for key in array.schunk.vlmeta}
            parts += [array[:].tobytes(), repr(meta).encode()]
    return b"\n".join(parts)


def find_secrets(out, output):
    """Returns the planted secrets that the store or the output contains."""
    content = read_everything(out, output).lower()
    secrets = [NAME, f"{NAME}-4711", "greta", BORN, str(dates.to_ordinal(BORN)), *UIDS]
    spellings = {secret: [secret.lower().encode(code) for code in ("utf-8", "utf-16-le")] for secret in secrets}
    return {secret for secret, spelled in spellings.items() if any(form in content for form in spelled)}


def run_ingest(scans, out, capfd, caplog, *words):
    with caplog.at_level("DEBUG"):
        code = cli.run("ingest", [str(scans), "--out", str(out), "--workers", "0", "--modality", "MR", *words])
    captured = capfd.readouterr()
    assert code == 0, captured.err
    return captured.out + captured.err + caplog.text


def test_no_byte_of_a_store_and_no_line_of_output_shows_a_name(scans, tmp_path, capfd, caplog):
    output = run_ingest(scans, tmp_path / "store", capfd, caplog)
    assert find_secrets(tmp_path / "store", output) == set()
    cases = Manifest.read(tmp_path / "store/manifest.csv").cases
    assert sorted(c.modality for c in cases) == ["CT", "MR", "MR"]
    assert "Heart" in StoreMetadata.read(tmp_path / "store").labels.values()


def test_without_deidentification_the_names_are_found(scans, tmp_path, capfd, caplog):
    output = run_ingest(scans, tmp_path / "store", capfd, caplog, "--no-deidentify")
    assert NAME in find_secrets(tmp_path / "store", output) and "files.csv" not in output
    assert not private_dir(tmp_path / "store").exists()


def test_scans_of_an_archive_become_the_store_that_their_files_become(tmp_path, capfd, caplog, monkeypatch):
    write_netrc(tmp_path / "netrc", monkeypatch)
    home = tmp_path / "scans"
    save(plant_name(), home)
    with run_orthanc(tmp_path / "archive") as url, FaultyProxy(url) as proxy:
        store_files(connect(url), sorted(home.iterdir()))
        address = f"dicomweb+{proxy.url}?PatientID={NAME}*"
        with caplog.at_level("DEBUG"):
            assert cli.run("ingest", [address, "--dry-run"]) == 0
        assert "1 series of 1 studies, 6 files" in capfd.readouterr().out and not (tmp_path / "store").exists()
        output = run_ingest(address, tmp_path / "store", capfd, caplog)
        assert find_secrets(tmp_path / "store", output) == set()
        assert not any(word.encode() in read_everything(tmp_path / "store", output) for word in (USER, PASSWORD))
        assert "nothing to do" in run_ingest(address, tmp_path / "store", capfd, caplog)
        proxy.fault = lambda path, _: 401
        assert cli.run("ingest", [address, "--out", str(tmp_path / "store")]) == 2
        captured = capfd.readouterr()
    assert "refuses access" in captured.err and NAME not in captured.err + captured.out
    run_ingest(home, tmp_path / "direct", capfd, caplog)
    (case,), (direct,) = (Manifest.read(tmp_path / name / "manifest.csv").cases for name in ("store", "direct"))
    assert case.sha256 == direct.sha256
    volume = read_source(case, Manifest.read(tmp_path / "store/manifest.csv"))
    assert np.array_equal(volume.voxels, next(iter(reader.read(home))).volume().voxels)


def test_images_in_two_files_and_those_of_freesurfer_show_no_name(tmp_path, capfd, caplog):
    home = tmp_path / "scans" / f"{NAME}_GRETA"
    home.mkdir(parents=True)
    voxels = np.random.default_rng(0).integers(0, 900, (12, 14, 16)).astype(np.int16)
    header = write_pair(home, voxels=voxels, name=f"{NAME}_t1")
    content = bytearray(header.read_bytes())
    content[148 : 148 + len(NAME)] = NAME.encode()  # descrip
    header.write_bytes(content)
    write_pair(home, nibabel.AnalyzeImage, voxels=voxels, name=f"{NAME}_old")
    (home / f"{NAME}.mgh").write_bytes(make_mgh(voxels) + NAME.encode())
    (home / f"{NAME}_bad.mgh").write_bytes(make_mgh(voxels, has_orientation=0))
    image = sitk.GetImageFromArray(voxels)
    image.SetMetaData("patient", NAME)
    sitk.WriteImage(image, str(home / f"{NAME}_x.nhdr"))
    text = (home / f"{NAME}_x.nhdr").read_text()
    (home / f"{NAME}_y.nhdr").write_text(text.replace(f"{NAME}_x.raw", f"{NAME}_gone.raw"))
    output = run_ingest(tmp_path / "scans", tmp_path / "store", capfd, caplog)
    assert find_secrets(tmp_path / "store", output) == set()
    assert len(Manifest.read(tmp_path / "store/manifest.csv").cases) == 3


FAULTS = {
    "reasons of files": (Pseudonymizer, "_public_reason", lambda self, row: row.reason),
    "reasons of cases": (PrepareJob, "redact", lambda self, message: str(message)),
    "locations": (Pseudonymizer, "_public_location", lambda self, location: location),
    "cases": (Pseudonymizer, "_rename_source", NoPseudonyms._rename_source),
    "files": (Pseudonymizer, "_public_row", lambda self, name, row: row),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_hole_in_the_deidentification_would_be_seen(scans, tmp_path, capfd, caplog, monkeypatch, fault):
    monkeypatch.setattr(*FAULTS[fault])
    assert find_secrets(tmp_path / "store", run_ingest(scans, tmp_path / "store", capfd, caplog))


def test_a_date_that_was_not_counted_from_a_secret_day_would_be_seen(scans, tmp_path, capfd, caplog, monkeypatch):
    monkeypatch.setattr(
        deidentify.PseudonymKey, "count_relative_days", lambda self, patient, day: dates.to_ordinal(day)
    )
    assert find_secrets(tmp_path / "store", run_ingest(scans, tmp_path / "store", capfd, caplog)) == {
        str(dates.to_ordinal(BORN))
    }


def test_free_text_from_a_header_would_be_seen(scans, tmp_path, capfd, caplog, monkeypatch):
    monkeypatch.setitem(deidentify.KEPT_ATTRIBUTES, "StationName", ".*")
    assert find_secrets(tmp_path / "store", run_ingest(scans, tmp_path / "store", capfd, caplog)) == {NAME}


def test_the_ledger_accounts_for_every_file_under_a_name_that_the_private_table_resolves(scans, tmp_path):
    summary = ingest(scans, tmp_path / "store", IngestConfig(num_workers=0, modality="MR"), lambda *_: None)
    public, real = file_ledger.read_ledger(tmp_path / "store/ledger.csv"), read_real_rows(tmp_path / "store")
    members = [f"{path}/{NAME}/note.txt" for path in map(str, scans.rglob("*.zip"))]
    assert sorted(r.path for r in real) == sorted([*map(str, (p for p in scans.rglob("*") if p.is_file())), *members])
    assert len({r.path for r in public}) == len(public) == len(real) and tuple(public) == summary.rows
    assert [(r.status, r.case) for r in public] == [(r.status, r.case) for r in real]
    assert any("text may stand in the pixels" in r.reason for r in public if r.status == "refused")


def test_scans_and_labels_are_still_found_through_the_manifest(scans, tmp_path):
    manifest = ingest(scans, tmp_path / "store", IngestConfig(num_workers=0, modality="MR"), lambda *_: None).manifest
    with pytest.warns(InputWarning) as reading:
        images = {case.id: read_source(case, manifest) for case in manifest.cases}
    references = References.read(tmp_path / "store/manifest.csv")
    (labelled,) = (case for case in manifest.cases if case.label)
    with pytest.warns(InputWarning) as drawing:
        assert references.read_label(labelled.id, images[labelled.id]).voxels.max() > 0
    messages = "".join(str(w.message) for w in [*reading, *drawing])
    assert "voxels of [other] (class 2)" in messages and messages.count("mm") and NAME not in messages
    assert references.sources[labelled.id].patient == labelled.patient
    private_dir(tmp_path / "store").rename(tmp_path / "elsewhere")
    with pytest.raises(BadInput, match=r"store\.private"):
        read_source(labelled, manifest)


def test_a_second_run_does_nothing_and_another_key_is_refused(scans, tmp_path):
    options = IngestConfig(num_workers=0, modality="MR")
    first = ingest(scans, tmp_path / "store", options, lambda *_: None)
    again = ingest(scans, tmp_path / "store", options, lambda *_: None)
    assert (again.prepared, again.manifest, again.rows) == (0, first.manifest, first.rows)
    ingest(scans, tmp_path / "other", options, lambda *_: None)
    key = private_dir(tmp_path / "other") / "key"
    for wrong in (options.model_copy(update={"pseudonym_key": key}), options.model_copy(update={"deidentify": False})):
        with pytest.raises(BadInput, match=r"key|hidden"):
            ingest(scans, tmp_path / "store", wrong, lambda *_: None)


def test_one_key_gives_one_name_in_two_stores_and_two_keys_give_two(scans, tmp_path):
    def cases(name, **options):
        summary = ingest(scans, tmp_path / name, IngestConfig(num_workers=0, modality="MR", **options), lambda *_: None)
        return [(c.id, c.patient, c.source) for c in summary.manifest.cases]

    first = cases("a")
    assert cases("b", pseudonym_key=private_dir(tmp_path / "a") / "key") == first
    assert not {n for c in cases("c") for n in c} & {n for c in first for n in c}


def test_two_keys_give_the_same_splits_in_the_same_order(tmp_path):
    for n in range(12):
        voxels = np.random.default_rng(n).uniform(0, 900, (12, 14, 16)).astype(np.float32)
        (tmp_path / "scans").mkdir(exist_ok=True)
        nibabel.Nifti1Image(voxels, np.eye(4)).to_filename(tmp_path / f"scans/p{n}.nii.gz")
    options = IngestConfig(num_workers=0, modality="MR")
    first, second = (
        ingest(tmp_path / "scans", tmp_path / name, options, lambda *_: None).manifest.cases for name in "ab"
    )
    assert [(c.sha256, c.split) for c in first] == [(c.sha256, c.split) for c in second]
    assert {c.split for c in first} == {"train", "val", "test"} and not {c.id for c in first} & {c.id for c in second}


def test_names_of_a_published_layout_are_kept_unless_they_are_hidden(tmp_path):
    root = tmp_path / "scans"
    write_nifti(root / "imagesTr/la_003.nii.gz")
    (root / "dataset.json").write_text(json.dumps({"labels": {}, "training": [{"image": "imagesTr/la_003.nii.gz"}]}))
    (root / "cases.csv").write_text("case,patient,age_years\nla_003,P7,95\n")
    (case,) = ingest(
        root, tmp_path / "kept", IngestConfig(num_workers=0, modality="MR"), lambda *_: None
    ).manifest.cases
    assert (case.id, case.patient, case.age_years) == ("la_003", "P7", 90)
    hiding = IngestConfig(num_workers=0, modality="MR", hide_names=True)
    (hidden,) = ingest(root, tmp_path / "hidden", hiding, lambda *_: None).manifest.cases
    assert "la_003" not in hidden.id and hidden.patient != "P7"


def test_only_images_with_text_in_them_are_no_scans(tmp_path):
    burned = make_slices()
    for d in burned:
        d.BurnedInAnnotation = "YES"
    save(burned, tmp_path / "scans")
    with pytest.raises(BadInput, match="text may stand in the pixels"):
        ingest(tmp_path / "scans", tmp_path / "store", IngestConfig(num_workers=0), lambda *_: None)
    assert not (tmp_path / "store").exists() and not private_dir(tmp_path / "store").exists()


def test_a_missing_scan_is_reported_without_its_name(tmp_path):
    path = write_nifti(tmp_path / f"scans/{NAME}.nii")
    manifest = ingest(
        path.parent, tmp_path / "store", IngestConfig(num_workers=0, modality="MR"), lambda *_: None
    ).manifest
    path.unlink()
    with pytest.raises(BadInput, match="no longer") as error:
        read_source(manifest.cases[0], manifest)
    assert NAME not in str(error.value)


def test_a_killed_run_continues_with_the_same_pseudonyms(tmp_path):
    write_nifti(tmp_path / f"scans/{NAME}.nii")
    options = IngestConfig(num_workers=0, modality="MR")
    first = ingest(tmp_path / "scans", tmp_path / "store", options, lambda *_: None)
    for name in ("manifest.csv", "ledger.csv", "SHA256SUMS"):
        (tmp_path / "store" / name).unlink()
    again = ingest(tmp_path / "scans", tmp_path / "store", options, lambda *_: None)
    assert (again.prepared, again.manifest, again.rows) == (0, first.manifest, first.rows)


def test_a_second_folder_joins_a_store_and_the_first_stays(tmp_path):
    write_nifti(tmp_path / f"one/{NAME}.nii")
    write_nifti(tmp_path / f"two/{NAME}.nii")
    options = IngestConfig(num_workers=0, modality="MR")
    first = ingest(tmp_path / "one", tmp_path / "store", options, lambda *_: None).manifest.cases
    both = ingest(tmp_path / "two", tmp_path / "store", options, lambda *_: None).manifest
    assert len(both.cases) == 2 and set(first) < set(both.cases)
    assert len({row.path for row in read_real_rows(tmp_path / "store")}) == 2
    with pytest.warns(InputWarning):
        assert all(read_source(case, both).shape == (12, 14, 16) for case in both.cases)
