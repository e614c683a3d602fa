"""Layouts: which files belong together."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from medssl.data.ingest import dataset_layouts as layouts
from medssl.data.ingest import file_ledger as ledger
from medssl.data.ingest.config import IngestConfig
from medssl.data.ingest.pipeline import ingest
from medssl.data.ingest.read_source import read_source
from medssl.data.store import Store
from medssl.data.store_metadata import StoreMetadata
from medssl.errors import BadInput


def image(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.random.default_rng(seed).integers(0, 900, (12, 14, 16)).astype(np.int16)
    sitk.WriteImage(sitk.GetImageFromArray(voxels), str(path))
    return path


def names(found):
    return {source.id: [p.name for p in source.files] for source in found.sources}


def test_nnunet_joins_channels_and_labels_by_name(tmp_path):
    for name in (
        "imagesTr/a_0000",
        "imagesTr/a_0001",
        "labelsTr/a",
        "imagesTr/b_0000",
        "imagesTr/b_0001",
        "labelsTr/c",
    ):
        image(tmp_path / f"{name}.nii.gz")
    description = {"channel_names": {"0": "T1", "1": "CT"}, "labels": {"background": 0, "tumour": 1}}
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    layout = layouts.discover_dataset(tmp_path)
    assert names(layout) == {
        "a": ["a_0000.nii.gz", "a_0001.nii.gz", "a.nii.gz"],
        "b": ["b_0000.nii.gz", "b_0001.nii.gz"],
    }
    assert layout.labels == {1: "tumour"} and layout.sources[0].modalities == ("MR", "CT")
    assert [(r.path[-15:], r.status) for r in layout.rows if "without" in r.reason] == [
        ("labelsTr/c.nii.gz"[-15:], "refused")
    ]


def discover_with_labels(folder, labels):
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}))
    return layouts.discover_dataset(folder)


def test_regions_of_nnunet_are_read_with_a_name_for_each_of_their_classes(tmp_path):
    image(tmp_path / "imagesTr/a_0000.nii.gz")
    tumour = {"background": 0, "whole": [3, 1, 2], "core": [2, 3], "enhancing": 3, "ignore": 4}
    layout = discover_with_labels(tmp_path, tumour)
    assert layout.regions == {"whole": [1, 2, 3], "core": [2, 3], "enhancing": [3]}
    assert layout.labels == {1: "whole_1", 2: "core_2", 3: "enhancing", 4: "ignore"}
    assert discover_with_labels(tmp_path, {"background": 0, "organ": 1}).regions == {}


@pytest.mark.parametrize("values", [[], [0, 1], [1, 2]])
def test_a_region_without_classes_or_with_what_is_none_is_refused(tmp_path, values):
    image(tmp_path / "imagesTr/a_0000.nii.gz")
    layout = discover_with_labels(tmp_path, {"background": 0, "whole": values, "ignore": 2})
    assert layout.labels == {}
    assert any("region 'whole'" in row.reason for row in layout.rows if row.status == "refused")


def test_plain_images_are_cases_named_by_their_path(tmp_path):
    for name in ("x/scan.nii.gz", "y/scan.mha", "y/scan two.nrrd", "z/v.mhd"):
        image(tmp_path / name)
    layout = layouts.discover_dataset(tmp_path)
    assert sorted(names(layout)) == ["x_scan", "y_scan", "y_scan-two", "z_v"]
    assert names(layout)["z_v"] == ["v.mhd", "v.raw"]


def test_names_that_would_collide_are_distinguished(tmp_path):
    image(tmp_path / "a.nii.gz")
    image(tmp_path / "a.mha", seed=1)
    layout = layouts.discover_dataset(tmp_path)
    assert len({s.id for s in layout.sources}) == 2


def test_a_table_gives_the_patients(tmp_path):
    image(tmp_path / "scans/a.nii.gz")
    (tmp_path / "p.csv").write_text("case,patient\na,Z9\n")
    options = IngestConfig(patients=tmp_path / "p.csv")
    assert layouts.discover_dataset(tmp_path / "scans", options).sources[0].patient == "Z9"
    (tmp_path / "p.csv").write_text("name,who\na,Z9\n")
    with pytest.raises(BadInput, match="columns"):
        layouts.discover_dataset(tmp_path / "scans", options)


@pytest.mark.parametrize("description", ["{", "[1]", '{"labels": [1]}', '{"training": 5}', '{"modality": {"x": "CT"}}'])
def test_a_broken_description_is_refused_and_the_images_stay(tmp_path, description):
    image(tmp_path / "scan.nii.gz")
    (tmp_path / "dataset.json").write_text(description)
    layout = layouts.discover_dataset(tmp_path)
    assert names(layout) == {"scan": ["scan.nii.gz"]}
    assert [r.status for r in layout.rows] == ["refused"] and "dataset.json" in layout.rows[0].reason


def test_a_description_cannot_reach_outside_its_folder(tmp_path):
    image(tmp_path / "secret.nii.gz")
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans/dataset.json").write_text(json.dumps({"training": ["../secret.nii.gz"]}))
    assert layouts.discover_dataset(tmp_path / "scans").sources == []


def test_a_set_that_declares_its_validation_keeps_it(tmp_path):
    items = [{"image": str(image(tmp_path / f"{n}.nii.gz").name)} for n in range(2)]
    (tmp_path / "dataset.json").write_text(json.dumps({"training": items[:1], "validation": items[1:]}))
    assert [s.split for s in layouts.discover_dataset(tmp_path).sources] == ["train", "val"]


def test_files_of_an_archive_and_the_archive_are_accounted_for(tmp_path):
    (tmp_path / "scans").mkdir()
    with zipfile.ZipFile(tmp_path / "scans/a.zip", "w") as archive:
        archive.writestr("note.txt", "hello")
    rows = layouts.discover_dataset(tmp_path / "scans").rows
    assert sorted(r.path.partition("scans/")[2] for r in rows) == ["a.zip", "a.zip/note.txt"]


@pytest.mark.slow
def test_real_dicom_is_stored_with_its_structures(shared_data, tmp_path):
    scans = shared_data("dicom") / "sarcoma_STS_002"
    options = IngestConfig(spacing_mm="native", deidentify=False, num_workers=0)
    manifest = ingest(scans, tmp_path / "store", options, lambda done, of: None).manifest
    assert (
        sorted(c.modality for c in manifest.cases) == ["CT", "MR", "PT"]
        and len({c.patient for c in manifest.cases}) == 1
    )
    rows = ledger.read_ledger(tmp_path / "store/ledger.csv")
    assert sorted(r.path for r in rows) == sorted(str(p) for p in scans.rglob("*") if p.is_file())
    assert sorted(StoreMetadata.read(tmp_path / "store").labels.values()) == [
        "GTV_Mass_CT",
        "GTV_Mass_MR_T1",
        "GTV_Mass_PET",
    ]
    ct = next(c for c in manifest.cases if c.modality == "CT")
    original, stored = read_source(ct, manifest), Store(manifest).image(ct).volume()
    assert np.array_equal(original.reorient("RAS").voxels, stored.voxels[0]) and original.unit == "HU"


@pytest.mark.slow
def test_real_hippocampi_keep_patients_together(shared_data, tmp_path):
    manifest = ingest(
        shared_data("hippocampus"), tmp_path / "store", IngestConfig(num_workers=0), lambda done, of: None
    ).manifest
    assert len(manifest.cases) == 200 and len({c.patient for c in manifest.cases}) == 131
    assert len({(c.patient, c.split) for c in manifest.cases}) == 131


def test_cases_that_the_table_leaves_out_are_reported(tmp_path, caplog):
    for name in "ab":
        image(tmp_path / f"imagesTr/{name}.nii.gz")
    listed = [{"image": f"imagesTr/{name}.nii.gz"} for name in "ab"]
    (tmp_path / "dataset.json").write_text(json.dumps({"training": listed}))
    (tmp_path / "cases.csv").write_text("case,patient\na,P1\n")
    assert {s.id: s.patient for s in layouts.discover_dataset(tmp_path).sources} == {"a": "P1", "b": "b"}
    assert "1 cases are in no table" in caplog.text


def test_a_json_for_each_case_names_its_patient(tmp_path):
    listed = []
    for n in range(4):
        image(tmp_path / f"images/c{n}.nii.gz")
        listed.append({"image": f"images/c{n}.nii.gz"})
        (tmp_path / "boxes").mkdir(exist_ok=True)
        description = {"case": f"c{n}", "background_patient": f"B{n % 2}", "boxes": [{"box": [1, 2]}]}
        (tmp_path / f"boxes/c{n}.json").write_text(json.dumps(description))
    (tmp_path / "boxes/odd.json").write_text("[1, 2]")
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {}, "training": listed}))
    layout = layouts.discover_dataset(tmp_path)
    assert [(s.id, s.patient) for s in layout.sources] == [("c0", "B0"), ("c1", "B1"), ("c2", "B0"), ("c3", "B1")]
    used = [Path(r.path).name for r in layout.rows if r.status == "used"]
    assert sorted(used) == ["c0.json", "c1.json", "c2.json", "c3.json", "dataset.json"]
    assert [Path(r.path).name for r in layout.rows if r.status == "refused"] == ["odd.json"]


def test_every_real_nodule_volume_belongs_to_its_background(shared_data):
    """Also those without a nodule, which its table leaves out: volumes of one scan overlap, and must not be parted."""
    layout = layouts.discover_dataset(shared_data("nodules"))
    background = {
        s.id: json.loads((shared_data("nodules") / f"boxes/{s.id}.json").read_text())["background_patient"]
        for s in layout.sources
    }
    assert {s.id: s.patient for s in layout.sources} == background and len(set(background.values())) == 4
