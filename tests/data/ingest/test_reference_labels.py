"""References are the labels as they were drawn, whichever way they are given."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from medssl.data.ingest.config import IngestConfig
from medssl.data.ingest.pipeline import ingest
from medssl.data.ingest.reference_labels import References
from medssl.data.ingest.source import Source
from medssl.errors import BadInput
from medssl.io import images


@pytest.fixture
def dataset(shared_data, tmp_path):
    """Four cases of two patients, as their publisher laid them out."""
    source = shared_data("hippocampus")
    root = tmp_path / "scans"
    names = [line.split(",")[0] for line in (source / "cases.csv").read_text().splitlines()[1:5]]
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True)
        for name in names:
            shutil.copy(source / folder / f"{name}.nii.gz", root / folder)
    return root


def test_a_manifest_leads_to_the_files_its_cases_were_read_from(dataset, tmp_path):
    ingested = ingest(
        dataset,
        tmp_path / "store",
        IngestConfig(num_workers=0, spacing_mm=(2.0, 2.0, 2.0), modality="MR"),
        lambda *_: None,
    )
    references = References.read(tmp_path / "store" / "manifest.csv")
    references.select_labelled([case.id for case in ingested.manifest.cases])
    for case in ingested.manifest.cases:
        image = images.read(dataset / "imagesTr" / f"{case.id}.nii.gz")
        label = images.read(dataset / "labelsTr" / f"{case.id}.nii.gz", label=True)
        assert np.array_equal(references.read_label(case.id, image).voxels, label.voxels)


def test_a_part_of_a_manifest_has_the_references_of_its_cases(dataset, tmp_path):
    ingested = ingest(dataset, tmp_path / "store", IngestConfig(num_workers=0), lambda *_: None)
    part = replace(ingested.manifest, cases=ingested.manifest.cases[1:3])
    part.write(tmp_path / "store" / "part.csv")
    references = References.read(tmp_path / "store" / "part.csv")
    assert sorted(references.sources) == sorted(case.id for case in part.cases)


def test_a_data_set_and_its_folder_of_labels_give_the_same(dataset):
    whole, labels = References.read(dataset), References.read(dataset / "labelsTr")
    assert whole.sources.keys() == labels.sources.keys()
    for case in whole.sources:
        image = images.read(dataset / "imagesTr" / f"{case}.nii.gz")
        assert np.array_equal(whole.read_label(case, image).voxels, labels.read_label(case, image).voxels)


def test_unlabelled_voxels_are_negative_in_both(dataset, tmp_path):
    description = {"labels": {"background": 0, "front": 1, "ignore": 2}, "channel_names": {"0": "MR"}}
    (dataset / "dataset.json").write_text(json.dumps(description))
    ingest(dataset, tmp_path / "store", IngestConfig(num_workers=0), lambda *_: None)
    for references in (References.read(dataset), References.read(tmp_path / "store" / "manifest.csv")):
        for case in references.sources:
            image = images.read(dataset / "imagesTr" / f"{case}.nii.gz")
            label = images.read(dataset / "labelsTr" / f"{case}.nii.gz", label=True).voxels
            assert np.array_equal(references.read_label(case, image).voxels, np.array([0, 1, -1])[label])


def test_an_empty_folder_has_no_references(tmp_path):
    with pytest.raises(BadInput, match="no label for a, b"):
        References.read(tmp_path).select_labelled(("a", "b"))


def test_a_label_on_another_grid_is_refused_with_its_case(dataset):
    references = References.read(dataset)
    first, second = list(references.sources)[:2]
    with pytest.raises(BadInput, match=f"{first}: label"):
        references.read_label(first, images.read(dataset / "imagesTr" / f"{second}.nii.gz"))


def test_cases_a_manifest_knows_to_be_unlabelled_are_left_out_and_others_are_refused(tmp_path):
    references = References(tmp_path, {"a": Source("a", "a", (), ())}, unlabelled=frozenset({"b"}))
    assert references.select_labelled(["a", "b"]) == ["a"]
    with pytest.raises(BadInput, match="no label for c;"):
        references.select_labelled(["a", "b", "c"])
