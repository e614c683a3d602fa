"""Ingestion: what is used, what is refused, and that nothing is lost on the way."""

import json
import tracemalloc
from collections import Counter

import nibabel
import numpy as np
import pytest

from medssl.arrays import resampling
from medssl.data.ingest import file_ledger as ledger
from medssl.data.ingest.config import IngestConfig
from medssl.data.ingest.dicom_studies import discover_series
from medssl.data.ingest.pipeline import ingest
from medssl.data.ingest.prepare_case import PrepareJob, prepare_case
from medssl.data.ingest.read_source import read_source
from medssl.data.manifest import Manifest
from medssl.data.normalization import IntensityNormalization
from medssl.data.selection.splits import assign_splits
from medssl.data.store import Store
from medssl.data.store_metadata import StoreMetadata
from medssl.errors import BadInput
from tests.helpers import dicom_phantom

AFFINE = np.array([[-1.0, 0, 0, 20], [0, 1.0, 0, -10], [0, 0, 2.0, 5], [0, 0, 0, 1]])


def save(path, voxels, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units("mm")
    image.to_filename(path)
    return path


def head(seed, shape=(20, 24, 12)):
    return np.random.default_rng(seed).uniform(50, 900, shape).astype(np.float32)


@pytest.fixture
def decathlon(tmp_path):
    """Three cases of two patients in the layout of the Medical Segmentation Decathlon."""
    root = tmp_path / "scans"
    training = []
    for n in range(3):
        label = np.zeros((20, 24, 12), np.uint8)
        label[4:9, 5:9, 3:7] = 1 + n % 2
        save(root / f"imagesTr/c{n}.nii.gz", head(n))
        save(root / f"labelsTr/c{n}.nii.gz", label)
        training.append({"image": f"./imagesTr/c{n}.nii.gz", "label": f"./labelsTr/c{n}.nii.gz"})
    description = {
        "labels": {"0": "background", "1": "front", "2": "back"},
        "modality": {"0": "MRI"},
        "training": training,
    }
    (root / "dataset.json").write_text(json.dumps(description))
    (root / "cases.csv").write_text("case,patient_group\nc0,P1\nc1,P1\nc2,P2\n")
    return root


def run(scans, out, **options):
    return ingest(scans, out, IngestConfig(**({"num_workers": 0} | options)), lambda done, of: None)


def test_a_roundabout_path_to_the_scans_loses_no_label(decathlon, tmp_path):
    run(decathlon.parent / "elsewhere" / ".." / "scans", tmp_path / "store")
    assert len(Manifest.read(tmp_path / "store/manifest.csv").with_labels().cases) == 3


def test_every_file_is_in_the_ledger_exactly_once(decathlon, tmp_path):
    (decathlon / "notes.txt").write_text("hello")
    (decathlon / "link.nii.gz").symlink_to(decathlon / "imagesTr/c0.nii.gz")
    save(decathlon / "labelsTr/orphan.nii.gz", np.ones((20, 24, 12), np.uint8))
    run(decathlon, tmp_path / "store", deidentify=False)
    rows = ledger.read_ledger(tmp_path / "store/ledger.csv")
    assert sorted(r.path for r in rows) == sorted(str(p) for p in decathlon.rglob("*") if not p.is_dir())
    assert all((r.status == "used") == (not r.reason or r.reason == "describes the data set") for r in rows)


def test_patients_and_class_names_come_from_files_next_to_the_images(decathlon, tmp_path):
    manifest = run(decathlon, tmp_path / "store").manifest
    assert sorted((c.id, c.patient) for c in manifest.cases) == [("c0", "P1"), ("c1", "P1"), ("c2", "P2")]
    assert len({c.split for c in manifest.cases if c.patient == "P1"}) == 1
    assert StoreMetadata.read(tmp_path / "store").labels == {1: "front", 2: "back"}


def test_a_second_run_does_nothing(decathlon, tmp_path):
    first = run(decathlon, tmp_path / "store")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "store").rglob("*.b2nd")}
    again = run(decathlon, tmp_path / "store")
    assert (first.prepared, again.prepared) == (3, 0)
    assert again.manifest == first.manifest == Manifest.read(tmp_path / "store/manifest.csv")
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "store").rglob("*.b2nd")}
    assert "nothing to do" in again.describe()


def test_the_picture_page_is_written_again_if_it_is_missing_or_the_store_changes(decathlon, tmp_path):
    run(decathlon, tmp_path / "store")
    page = tmp_path / "store" / "report.html"
    first = page.stat().st_mtime_ns
    run(decathlon, tmp_path / "store")
    assert page.stat().st_mtime_ns == first
    run(decathlon, tmp_path / "store", kinds={"front": "organ"}, resplit=True, seed=5)
    assert page.stat().st_mtime_ns > first
    page.unlink()
    run(decathlon, tmp_path / "store", kinds={"front": "organ"})
    assert page.exists()


def test_a_changed_file_is_prepared_again(decathlon, tmp_path):
    first = run(decathlon, tmp_path / "store").manifest
    save(decathlon / "imagesTr/c1.nii.gz", head(9))
    again = run(decathlon, tmp_path / "store")
    assert again.prepared == 1
    before, after = ({c.id: c.sha256 for c in manifest.cases} for manifest in (first, again.manifest))
    assert {name for name in before if before[name] != after[name]} == {"c1"} and before.keys() == after.keys()


def test_stored_voxels_lie_where_the_scanner_saw_them(decathlon, tmp_path):
    manifest = run(decathlon, tmp_path / "store", spacing_mm="native").manifest
    store = Store(manifest)
    for case in manifest.cases:
        original = read_source(case, manifest)
        stored, label = store.image(case).volume(), store.label(case).volume()
        assert stored.orientation() == "RAS"
        stored_indices = np.argwhere(label.voxels > 0)
        original_indices = original.to_index(stored.to_mm(stored_indices.astype(float)))
        assert original_indices.min(0).round().tolist() == [4, 5, 3]
        assert original_indices.max(0).round().tolist() == [8, 8, 6]
        brightest = np.unravel_index(original.voxels.argmax(), original.shape)
        place = stored.to_index(original.to_mm(np.array(brightest, float)[None]))[0].round().astype(int)
        assert stored.voxels[0][tuple(place)] == stored.voxels.max()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda root: save(root / "labelsTr/c1.nii.gz", np.ones((20, 24, 11), np.uint8)), "grid"),
        (
            lambda root: save(root / "labelsTr/c1.nii.gz", np.ones((20, 24, 12), np.uint8), np.diag([-1, 1, 2, 1.0])),
            "grid",
        ),
        (lambda root: save(root / "labelsTr/c1.nii.gz", np.full((20, 24, 12), 7, np.uint8)), "classes [7]"),
        (lambda root: (root / "labelsTr/c1.nii.gz").unlink(), "not there"),
        (lambda root: (root / "imagesTr/c1.nii.gz").unlink(), "not there"),
        (lambda root: (root / "imagesTr/c1.nii.gz").write_bytes(b"<html>404</html>"), "c1.nii.gz"),
    ],
)
def test_a_spoilt_case_is_refused_and_the_others_stay(decathlon, tmp_path, spoil, reason):
    spoil(decathlon)
    summary = run(decathlon, tmp_path / "store", deidentify=False)
    assert {c.id for c in summary.manifest.cases} == {"c0", "c2"}
    refused = [r for r in summary.rows if r.status == "refused"]
    assert refused and all(reason in r.reason and "c1" in r.path for r in refused)


def test_the_last_line_counts_refused_cases_apart(decathlon, tmp_path):
    save(decathlon / "labelsTr/c1.nii.gz", np.full((20, 24, 12), 7, np.uint8))
    assert run(decathlon, tmp_path / "store").describe().startswith("2 cases prepared, 1 refused; the store holds 2 (")
    assert run(decathlon, tmp_path / "store").describe().startswith("nothing to do; the store holds 2 (")


@pytest.mark.parametrize("content", [{}, {"a.txt": b"hello"}, {"a.nii.gz": b"hello"}])
def test_a_folder_without_scans_is_refused_and_leaves_nothing(tmp_path, content):
    scans = tmp_path / "scans"
    scans.mkdir()
    for name, text in content.items():
        (scans / name).write_bytes(text)
    with pytest.raises(BadInput):
        run(scans, tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_two_channels_share_one_file(tmp_path):
    for n in range(2):
        save(tmp_path / f"scans/imagesTr/a_000{n}.nii.gz", head(n))
    (tmp_path / "scans/dataset.json").write_text(json.dumps({"channel_names": {"0": "CT", "1": "T1"}, "labels": {}}))
    case = run(tmp_path / "scans", tmp_path / "store").manifest.cases[0]
    assert (case.id, case.channels, case.unit, case.modality) == ("a", 2, "a.u.", "CT+MR")


def test_instances_become_their_class(tmp_path):
    mask = np.zeros((20, 24, 12), np.int16)
    mask[2:4, 2:4, 2:4], mask[8:10, 8:10, 8:10] = 1, 2
    save(tmp_path / "scans/images/a.nii.gz", head(0))
    save(tmp_path / "scans/masks/a.nii.gz", mask)
    item = {"image": "images/a.nii.gz", "mask": "masks/a.nii.gz", "box": [[0] * 6] * 2, "label": [0, 0]}
    (tmp_path / "scans/dataset.json").write_text(json.dumps({"labels": {"0": "nodule"}, "training": [item]}))
    manifest = run(tmp_path / "scans", tmp_path / "store", modality="CT").manifest
    label = Store(manifest).label(manifest.cases[0]).volume()
    assert np.unique(label.voxels).tolist() == [0, 1] and (label.voxels > 0).sum() == 16
    assert StoreMetadata.read(tmp_path / "store").labels == {1: "nodule"}


def test_another_folder_adds_its_cases_and_leaves_the_splits(decathlon, tmp_path):
    first = run(decathlon, tmp_path / "store").manifest
    save(tmp_path / "more/c0.nii.gz", head(7))
    both = run(tmp_path / "more", tmp_path / "store", modality="MR").manifest
    assert len(both.cases) == 4 and set(first.cases) < set(both.cases)


def test_a_store_keeps_its_spacing(decathlon, tmp_path):
    run(decathlon, tmp_path / "store")
    with pytest.raises(BadInput, match="spacing"):
        run(decathlon, tmp_path / "store", spacing_mm=(3.0, 3.0, 3.0))


def test_another_split_of_a_store_must_be_requested_by_name(decathlon, tmp_path):
    for n in range(3, 12):
        save(decathlon / f"more/c{n}.nii.gz", head(n))
    first = run(decathlon, tmp_path / "store", split_fractions={"train": 0.5, "test": 0.5}, seed=1).manifest
    assert run(decathlon, tmp_path / "store").manifest == first
    for other in ({"seed": 2}, {"split_fractions": {"train": 1.0}}):
        with pytest.raises(BadInput, match="--resplit"):
            run(decathlon, tmp_path / "store", **other)
    assert Manifest.read(tmp_path / "store/manifest.csv") == first
    again = run(decathlon, tmp_path / "store", seed=2, resplit=True)
    assert again.prepared == 0 and again.manifest.split_digest() != first.split_digest()
    assert again.manifest == assign_splits(first, {"train": 0.5, "test": 0.5}, 2)
    assert run(decathlon, tmp_path / "store").manifest == again.manifest


def test_site_age_and_sex_come_from_files_next_to_the_images(decathlon, tmp_path):
    (decathlon / "cases.csv").write_text("case,site,age_years,sex\nc0,north,61,F\nc1,south,,M\nc2,north,400,\n")
    cases = run(decathlon, tmp_path / "store").manifest.cases
    assert [(c.patient, c.site, c.age_years, c.sex) for c in sorted(cases, key=lambda case: case.id)] == [
        ("c0", "north", 61.0, "F"),
        ("c1", "south", None, "M"),
        ("c2", "north", None, ""),
    ]


def test_a_changed_label_changes_the_digest(decathlon, tmp_path):
    first = run(decathlon, tmp_path / "store").manifest
    save(decathlon / "labelsTr/c1.nii.gz", np.ones((20, 24, 12), np.uint8))
    again = run(decathlon, tmp_path / "store").manifest
    assert [c.sha256 for c in again.cases] == [c.sha256 for c in first.cases]
    assert again.digest() != first.digest() and again.split_digest() == first.split_digest()


def test_patients_who_are_added_one_by_one_are_shared_out(tmp_path):
    for n in range(10):
        save(tmp_path / f"day-{n}/c{n}.nii.gz", head(n))
        before = Manifest.read(tmp_path / "store/manifest.csv").cases if n else ()
        after = run(tmp_path / f"day-{n}", tmp_path / "store", modality="MR").manifest
        assert set(before) < set(after.cases)
    assert Counter(c.split for c in after.cases) == {"train": 7, "test": 2, "val": 1}


@pytest.mark.parametrize("spacing_mm", [None, (2.5, 2.0, 4.0)])
def test_a_ct_needs_little_more_memory_than_its_voxels(tmp_path, monkeypatch, spacing_mm):
    monkeypatch.setattr(resampling, "SLAB_VOXELS", 1 << 20)  # of 16 million in all
    slices = dicom_phantom.make_slices(count=60, rows=512, columns=512)
    for d in slices:
        dicom_phantom.paint(d, dicom_phantom.slice_values(d) % 1000)
    files = dicom_phantom.save(slices, tmp_path / "scans")
    del slices
    (source,) = discover_series(files, allow_gaps=False).sources
    for name in ("images", "records"):
        (tmp_path / "store" / name).mkdir(parents=True)
    job = PrepareJob(source, tmp_path / "store", IntensityNormalization(), spacing_mm, tmp_path / "store" / "records")
    tracemalloc.start()
    try:
        assert prepare_case(job).case is not None
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2.5 * 60 * 512 * 512 * 2
