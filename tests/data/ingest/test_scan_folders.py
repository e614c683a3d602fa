"""Folders as data sets, tools and people lay them out: which file is what, with the right voxels, or why refused."""

import json

import numpy as np
import pytest

from medssl.data.ingest.config import IngestConfig
from medssl.data.ingest.dataset_layouts import discover_dataset
from medssl.data.ingest.read_source import read_image
from medssl.data.ingest.structures.read_label import read_label
from medssl.errors import BadInput, InputWarning
from medssl.io.slicer_segmentation import Segment, read_segment
from tests.helpers.scan_folders import ScanFolder, box, case, require_layout, scan

pytestmark = pytest.mark.filterwarnings("ignore:modality not given")


@pytest.fixture
def folder(tmp_path):
    return ScanFolder(tmp_path / "scans")


def check(folder, cases, refused=None, **options):
    layout = discover_dataset(folder.root, IngestConfig(**options))
    require_layout(layout, folder, cases, refused or {})
    return layout


# --- Decathlon, MONAI and nnU-Net: dataset.json


def describe(folder, labels=None, **entries):
    folder.text("dataset.json", {"labels": labels or {"0": "background", "1": "liver"}, **entries})


@pytest.mark.parametrize("modalities", [["FLAIR", "T1w", "t1gd", "T2w"], ["T2", "ADC"]])
def test_decathlon_volumes_of_one_file_are_channels(folder, modalities):
    n = len(modalities)
    folder.put("imagesTr/a.nii.gz", np.stack([scan(c) for c in range(n)], -1))
    folder.label("labelsTr/a.nii.gz", 1)
    entry = {"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}
    describe(folder, modality=dict(enumerate(modalities)), training=[entry], test=[])
    layout = check(folder, {"a": case("a", *range(n), label={"liver": 1})})
    assert layout.sources[0].channel_names == tuple(modalities)


def test_volumes_that_the_description_does_not_name_are_refused(folder):
    folder.put("imagesTr/a.nii.gz", np.stack([scan(c) for c in range(3)], -1))
    describe(folder, modality={"0": "MRI"}, training=[{"image": "imagesTr/a.nii.gz"}])
    check(folder, {}, {"imagesTr/a.nii.gz": "holds 3 volumes, dataset.json declares 1 channels"})


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha", ".NII.GZ"])
def test_nnunet_2_in_every_format(folder, ending):
    for name in "ab":
        for c in range(2):
            folder.scan(f"imagesTr/{name}_{c:04d}{ending}", 2 * ord(name) + c)
        folder.label(f"labelsTr/{name}{ending}", ord(name))
    channels = {"0": "T1", "1": "T2"}
    describe(folder, {"background": 0, "liver": 1}, channel_names=channels, file_ending=ending, numTraining=2)
    check(folder, {n: case(n, 2 * ord(n), 2 * ord(n) + 1, label={"liver": ord(n)}) for n in "ab"})


def test_nnunet_1_lists_names_without_their_channel_numbers(folder):
    for name in ("Tr/a", "Tr/b", "Ts/c"):
        folder.scan(f"images{name}_0000.nii.gz", ord(name[-1]), "CT")
    for name in "ab":
        folder.label(f"labelsTr/{name}.nii.gz", 1)
    training = [{"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} for n in "ab"]
    describe(folder, modality={"0": "CT"}, training=training, test=["./imagesTs/c.nii.gz"])
    labelled = {n: case(n, ord(n), label={"liver": 1}, modality="CT") for n in "ab"}
    check(folder, labelled | {"c": case("c", ord("c"), modality="CT")})


def test_the_dataset_key_of_nnunet_names_files_anywhere(folder):
    folder.scan("raw/x.nii.gz", 1, "CT")
    folder.scan("raw/y.nii.gz", 2, "CT")
    folder.label("drawn/x-final.nii.gz", 1)
    folder.label("drawn/y-final.nii.gz", 2)
    dataset = {n: {"images": [f"raw/{n}.nii.gz"], "label": f"drawn/{n}-final.nii.gz"} for n in "xy"}
    describe(folder, {"background": 0, "liver": 1}, channel_names={"0": "CT"}, dataset=dataset)
    check(folder, {n: case(n, 1 + (n == "y"), label={"liver": 1 + (n == "y")}, modality="CT") for n in "xy"})


def test_a_byte_order_mark_hides_no_class_name(folder):
    folder.scan("imagesTr/a_0000.nii.gz", 1, "CT")
    folder.label("labelsTr/a.nii.gz", 1)
    content = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1}}
    folder.text("dataset.json", "\ufeff" + json.dumps(content))
    check(folder, {"a": case("a", 1, label={"liver": 1}, modality="CT")})


def test_a_case_without_one_of_the_channels_is_refused_by_the_name_of_the_channel(folder):
    for name in ("a_0000", "a_0001", "b_0001"):
        folder.scan(f"imagesTr/{name}.nii.gz", int(name[-1]))
    check(folder, {"a": case("a", 0, 1)}, {"imagesTr/b_0001.nii.gz": "lacks the channel 0000"})


def test_a_labelled_test_set_stays_the_test_set(folder):
    for part, name in (("Tr", "a"), ("Ts", "b"), ("Ts", "c")):
        folder.scan(f"images{part}/{name}_0000.nii.gz", ord(name), "CT")
    folder.label("labelsTr/a.nii.gz", 1)
    folder.label("labelsTs/b.nii.gz", 2)
    describe(folder, {"background": 0, "liver": 1}, channel_names={"0": "CT"})
    cases = {
        "a": case("a", ord("a"), label={"liver": 1}, modality="CT"),
        "b": case("b", ord("b"), label={"liver": 2}, modality="CT", split="test"),
        "c": case("c", ord("c"), modality="CT"),
    }
    check(folder, cases)


def test_a_listed_test_case_with_a_label_stays_in_the_test_set_and_a_table_can_say_so(folder):
    for name in "abc":
        folder.scan(f"{name}.nii.gz", ord(name))
        folder.label(f"l/{name}.nii.gz", 1)
    entry = {n: {"image": f"{n}.nii.gz", "label": f"l/{n}.nii.gz"} for n in "abc"}
    describe(folder, modality={"0": "MRI"}, training=[entry["a"], entry["c"]], test=[entry["b"]])
    folder.text("cases.csv", "case,patient,split\na,P1,Validation\nb,P2,\nc,P3,\n")
    splits = {"a": ("P1", "val"), "b": ("P2", "test"), "c": ("P3", "")}
    check(folder, {n: case(p, ord(n), label={"liver": 1}, split=s) for n, (p, s) in splits.items()})


# --- names of channels and files

MODALITIES = {
    "CT": ["CT", "ct", "CTA", "CBCT", "CT scan", "Computed Tomography", "noncontrast CT", "NCCT", "CT_x", "HRCT"],
    "PT": ["PT", "PET", "FDG-PET", "SUVbw"],
    "MR": ["MRI", "T1", "T1w", "T1-weighted", "t1gd", "FLAIR", "ADC", "T2w", "DWI b1000"],
}  # fmt: skip


@pytest.mark.parametrize(("modality", "name"), [(m, name) for m, names in MODALITIES.items() for name in names])
def test_the_name_of_a_channel_states_the_modality(folder, modality, name):
    folder.scan("imagesTr/a_0000.nii.gz", 1, modality)
    describe(folder, {"background": 0}, channel_names={"0": name})
    check(folder, {"a": case("a", 1, modality=modality)})


@pytest.mark.parametrize(("name", "modality"), [("zscore", "CT"), ("noNorm", "MR"), ("PET and CT", "CT")])
def test_a_name_without_a_modality_leaves_it_to_the_values(folder, name, modality):
    folder.scan("imagesTr/a_0000.nii.gz", 1, modality)
    describe(folder, {"background": 0}, channel_names={"0": name})
    with pytest.warns(UserWarning, match=f"assumed to be {modality}"):
        check(folder, {"a": case("a", 1, modality=modality)})


@pytest.mark.parametrize(("name", "values", "words"), [("MR", "CT", "HU of air"), ("CT", "MR", "air is -1000 HU")])
def test_values_that_contradict_the_name_raise_a_warning(folder, name, values, words):
    folder.scan("imagesTr/a_0000.nii.gz", 1, values)
    describe(folder, {"background": 0}, channel_names={"0": name})
    with pytest.warns(UserWarning, match=words):
        assert read_image(discover_dataset(folder.root).sources[0])[1] == name


# --- data sets and tools with a naming of their own

BRATS = {
    "2018": ("HGG/Brats18_2013_{}_1/Brats18_2013_{}_1_{}.nii.gz", ("flair", "t1", "t1ce", "t2"), "Brats18_2013_{}_1"),
    "2021": ("BraTS2021_0000{}/BraTS2021_0000{}_{}.nii.gz", ("flair", "t1", "t1ce", "t2"), "BraTS2021_0000{}"),
    "2023": (
        "BraTS-GLI-0000{}-000/BraTS-GLI-0000{}-000-{}.nii.gz",
        ("t1n", "t1c", "t2w", "t2f"),
        "BraTS-GLI-0000{}-000",
    ),
    "bare": ("pat{0}/{2}.nii.gz", ("FLAIR", "T1"), "pat{}"),
}


@pytest.mark.parametrize("year", BRATS)
@pytest.mark.parametrize("is_labelled", [True, False])
def test_sequences_on_one_grid_are_the_channels_of_a_case(folder, year, is_labelled):
    pattern, sequences, name = BRATS[year]
    cases = {}
    for p in (1, 2):
        for c, sequence in enumerate(sequences):
            folder.scan(pattern.format(p, p, sequence), 10 * p + c)
        if is_labelled:
            folder.label(pattern.format(p, p, "seg"), p, value=4)
        patient = name.format(p).removesuffix("-000")
        cases[name.format(p)] = (patient, p)
    order = sorted(range(len(sequences)), key=lambda c: ORDER.index(sequences[c].lower()))
    layout = discover_dataset(folder.root)
    for source in layout.sources:
        patient, p = cases[source.id]
        assert source.patient == patient
        assert source.channel_names == tuple(sequences[c].lower() for c in order)
    expected = {
        name: case(patient, *(10 * p + c for c in order), label={4: p} if is_labelled else None)
        for name, (patient, p) in cases.items()
    }
    require_layout(layout, folder, expected, {})


ORDER = ("flair", "t1", "t1n", "t1w", "t1ce", "t1gd", "t1c", "t2", "t2w", "t2f")


def test_time_points_of_brats_are_scans_of_one_patient(folder):
    for time in ("000", "001"):
        for c, sequence in enumerate(("t1n", "t2w")):
            name = f"BraTS-GLI-00005-{time}"
            folder.scan(f"{name}/{name}-{sequence}.nii.gz", c)
    check(folder, {f"BraTS-GLI-00005-{t}": case("BraTS-GLI-00005", 0, 1) for t in ("000", "001")})


def test_a_patient_without_one_sequence_is_refused_by_its_name(folder):
    for name in ("a/a_t1", "a/a_t2", "b/b_t2"):
        folder.scan(f"{name}.nii.gz", int(name[-1]))
    folder.label("b/b_seg.nii.gz", 1)
    words = "lacks the channel t1"
    check(folder, {"a": case("a", 1, 2)}, {"b/b_t2.nii.gz": words, "b/b_seg.nii.gz": words})


def test_sequences_on_different_grids_are_cases_of_one_patient(folder):
    for p in "ab":
        folder.scan(f"{p}/t1.nii.gz", 1)
        folder.scan(f"{p}/t2.nii.gz", 2, shift=9.0)
    check(folder, {f"{p}_t{n}": case(p, n) for p in "ab" for n in (1, 2)})


@pytest.mark.parametrize("label", ["segmentation", "aggregated_MAJ_seg"])
def test_kits_has_one_label_that_counts(folder, label):
    cases, refused = {}, {}
    for n in range(2):
        at = f"data/case_0000{n}"
        folder.scan(f"{at}/imaging.nii.gz", n, "CT")
        folder.label(f"{at}/{label}.nii.gz", n, value=2)
        for other in ("aggregated_AND_seg", "instances/kidney_instance-1_annotation-1"):
            folder.label(f"{at}/{other}.nii.gz", 1)
            refused[f"{at}/{other}.nii.gz"] = "in the layout of KiTS"
        cases[f"case_0000{n}"] = case(f"case_0000{n}", n, label={"tumor": n}, modality="CT")
    folder.text("data/kits23.json", "[]")
    check(folder, cases, refused)


def test_totalsegmentator_merges_a_file_for_each_structure(folder):
    for n in range(2):
        folder.scan(f"s000{n}/ct.nii.gz", n, "CT")
        folder.label(f"s000{n}/segmentations/liver.nii.gz", 0)
        folder.label(f"s000{n}/segmentations/spleen.nii.gz", 3)
    folder.put("s0001/segmentations/aorta.nii.gz", np.zeros_like(box(0)))
    folder.text("meta.csv", "\ufeffimage_id;age;gender;institute;split\ns0000;71;m;A;train\ns0001;50;f;B;test\n")
    both = {"liver": 0, "spleen": 3}
    cases = {f"s000{n}": case(f"s000{n}", n, label=both, modality="CT", split=("train", "test")[n]) for n in range(2)}
    layout = check(folder, cases)
    assert layout.labels == {1: "aorta", 2: "liver", 3: "spleen"}
    assert layout.present_labels == {"s0000": [2, 3], "s0001": [1, 2, 3]}
    assert [(s.age_years, s.sex, s.site) for s in layout.sources] == [(71, "M", "A"), (50, "F", "B")]


def test_the_smaller_of_two_overlapping_structures_is_kept_and_reported(folder):
    folder.scan("p/ct.nii.gz", 1, "CT")
    large = box(0)
    large[:] = 1
    folder.put("p/segmentations/body.nii.gz", large)
    folder.label("p/segmentations/liver.nii.gz", 0)
    (source,) = discover_dataset(folder.root).sources
    with pytest.warns(UserWarning, match=f"overlap in {box(0).sum()} voxels"):
        label = read_label(source, read_image(source)[0])
    assert np.array_equal(label.voxels, 1 + box(0))


def test_a_structure_file_of_several_values_is_refused(folder):
    folder.scan("p/ct.nii.gz", 1, "CT")
    folder.put("p/segmentations/liver.nii.gz", box(0) + 2 * box(3))
    folder.label("p/segmentations/spleen.nii.gz", 3)
    (source,) = discover_dataset(folder.root).sources
    with pytest.raises(BadInput, match=r"values \[1, 2\], a file of one structure holds one"):
        read_label(source, read_image(source)[0])


@pytest.mark.parametrize("has_datastore", [True, False])
def test_monai_label_counts_final_labels_only(folder, has_datastore):
    for name in ("spleen_1", "spleen_2"):
        folder.scan(f"{name}.nii.gz", int(name[-1]), "CT")
    folder.label("labels/final/spleen_1.nii.gz", 1)
    folder.label("labels/original/spleen_1.nii.gz", 2)
    folder.label("labels/original/spleen_2.nii.gz", 2)
    if has_datastore:
        folder.text("datastore_v2.json", {"name": "x", "objects": {}})
    refused = {f"labels/original/spleen_{n}.nii.gz": "MONAI Label" for n in (1, 2)}
    with pytest.warns(UserWarning, match="assumed to be CT"):
        check(
            folder,
            {
                "spleen_1": case("spleen_1", 1, label={1: 1}, modality="CT"),
                "spleen_2": case("spleen_2", 2, modality="CT"),
            },
            refused,
        )


def segments(*names_values_layers):
    return {
        f"Segment{n}_{key}": str(value)
        for n, entry in enumerate(names_values_layers)
        for key, value in zip(("Name", "LabelValue", "Layer"), entry, strict=True)
    }


def test_slicer_names_its_segments(folder):
    folder.scan("pat1/CT.nrrd", 1, "CT")
    voxels = box(0) + 2 * box(3)
    folder.put("pat1/Segmentation.seg.nrrd", voxels, meta=segments(("spleen", 1, 0), ("liver", 2, 0)))
    folder.scan("pat2/CT.nrrd", 2, "CT")
    folder.label("pat2/Segmentation.seg.nrrd", 4, meta=segments(("liver", 1, 0)))
    layout = check(
        folder,
        {
            "pat1_CT": case("pat1", 1, label={"spleen": 0, "liver": 3}, modality="CT"),
            "pat2_CT": case("pat2", 2, label={"liver": 4}, modality="CT"),
        },
    )
    assert layout.present_labels == {"pat1_CT": [1, 2], "pat2_CT": [1]}


def test_slicer_layers_hold_segments_that_overlap(folder):
    folder.scan("CT.nrrd", 1, "CT")
    meta = segments(("liver", 1, 0), ("tumour", 1, 1))
    folder.put("CT.seg.nrrd", np.stack([box(0), box(3)], -1), meta=meta)
    check(folder, {"CT": case("CT", 1, label={"liver": 0, "tumour": 3}, modality="CT")})


def test_slicer_voxels_that_belong_to_no_segment_leave_a_warning(folder):
    folder.put("CT.seg.nrrd", np.stack([box(0), box(3)], -1), meta=segments(("liver", 1, 0)))
    with pytest.warns(InputWarning, match="CT.seg.nrrd: 1 values belong to none of its segments"):
        label = read_segment(folder.root / "CT.seg.nrrd", Segment("liver", 1, 0))
    np.testing.assert_array_equal(label.voxels, box(0))


# --- labels by name, folder and grid


@pytest.mark.parametrize(
    ("scans", "labels"),
    [
        ("images/{}.nii.gz", "labels/{}.nii.gz"),
        ("images/{}.nii.gz", "masks/{}.nii.gz"),
        ("imgs/{}.nii.gz", "segmentations/{}_seg.nii.gz"),
        ("image/img{}.nii.gz", "label/label{}.nii.gz"),
        ("Images/{}_image.nii.gz", "Annotations/{}_label.nii.gz"),
        ("scans/{}.nrrd", "ground_truth/{}.nrrd"),
        ("volumes/{}.mha", "gt/{}_gt.mha"),
        ("{}.nii.gz", "{}_seg.nii.gz"),
        ("{}.nii.gz", "{}-label.nii.gz"),
        ("{}.nii.gz", "{}_mask.nii.gz"),
        ("{}.nii.gz", "masks/{}.nii.gz"),
        ("{}/image.nii.gz", "{}/label.nii.gz"),
        ("{}/imaging.nii.gz", "{}/segmentation.nii.gz"),
        ("{}/ct.nii.gz", "{}/seg/mask.nii.gz"),
        ("{0}/{0}_ct.nii.gz", "{0}/{0}_gt.nii.gz"),
        ("{}/T1.nii.gz", "{}/T1_dseg.nii.gz"),
        ("train/images/{}.nii.gz", "train/labels/{}.nii.gz"),
        ("{}/scan.nii.gz", "{}/lesion.nii.gz"),
    ],
)
def test_a_label_is_found_and_is_never_a_scan(folder, scans, labels):
    ids = ("07", "12")
    for n, name in enumerate(ids):
        folder.scan(scans.format(name), n, "CT" if "ct" in scans else "MR")
        folder.label(labels.format(name), n + 1)
    layout = discover_dataset(folder.root)
    assert not [row for row in layout.rows if row.status == "refused"]
    assert len({s.patient for s in layout.sources}) == len(layout.sources) == 2
    for source in layout.sources:
        n = 1 if "12" in str(source.images[0].relative_to(folder.root)) else 0
        assert ("12" in str(source.label.relative_to(folder.root))) == bool(n)
        image = read_image(source)[0]
        assert np.array_equal(image.voxels, scan(n, "CT" if "ct" in scans else "MR"))
        assert np.array_equal(read_label(source, image).voxels, box(n + 1))


LABEL_NAMES = [
    "x_seg",
    "x_mask",
    "label",
    "aseg",
    "x_dseg",
    "LiverMask",
    "segmentation2",
    "x.seg",
]


@pytest.mark.parametrize("name", LABEL_NAMES)
def test_a_label_without_an_image_is_refused_by_its_name(folder, name):
    folder.scan("a/one.nii.gz", 1)
    ending = ".nrrd" if name == "x.seg" else ".nii.gz"
    folder.scan(f"b/{name}{ending}", 2)
    check(folder, {"a_one": case("a_one", 1)}, {f"b/{name}{ending}": "looks like a label"})


@pytest.mark.parametrize("values", [(1,), (1, 2), (255,), tuple(range(1, 40))])
def test_a_label_is_known_by_its_values_whatever_its_name(folder, values):
    voxels = np.zeros((125, 8, 7), np.int16)
    for n, value in enumerate(values):
        voxels[3 * n : 3 * n + 3, 2:6, 1:6] = value
    folder.scan("a/one.nii.gz", 1)
    folder.put("b/liver.nii.gz", voxels)
    check(folder, {"a_one": case("a_one", 1)}, {"b/liver.nii.gz": "looks like a label"})


@pytest.mark.parametrize(
    "name", ["masked.nii.gz", "t1_masked_brain.nii.gz", "ground_truth.nii.gz", "landmarks.nii.gz", "legend.nii.gz"]
)
def test_a_scan_whose_name_only_resembles_that_of_a_label_stays_a_scan(folder, name):
    folder.scan(name, 1)
    folder.scan("other.nii.gz", 2)
    stem = name.removesuffix(".nii.gz")
    check(folder, {stem: case(stem, 1), "other": case("other", 2)})


def test_an_image_of_few_grey_levels_is_no_label(folder):
    voxels = np.random.default_rng(0).integers(0, 200, (16, 16, 16)).astype(np.uint8)
    folder.put("a.nii.gz", voxels)
    assert [s.label for s in discover_dataset(folder.root).sources] == [None]


@pytest.mark.parametrize("labels", [("a_rater1_seg", "a_rater2_seg"), ("a_seg", "a_mask"), ("a_seg", "a_liver_mask")])
def test_labels_among_which_nothing_decides_are_refused_and_the_scan_stays(folder, labels):
    folder.scan("a.nii.gz", 1)
    folder.scan("b.nii.gz", 2)
    for n, name in enumerate(labels):
        folder.label(f"{name}.nii.gz", n)
    refused = {f"{name}.nii.gz": "one of 2 labels of its image" for name in labels}
    check(folder, {"a": case("a", 1), "b": case("b", 2)}, refused)


def test_structures_next_to_a_scan_are_merged_under_their_names(folder):
    for p in "ab":
        folder.scan(f"{p}/{p}_ct.nii.gz", ord(p), "CT")
        folder.label(f"{p}/{p}_liver_mask.nii.gz", 0)
        folder.label(f"{p}/{p}_spleen_mask.nii.gz", 3)
    both = {"liver": 0, "spleen": 3}
    check(folder, {f"{p}_{p}_ct": case(p, ord(p), label=both, modality="CT") for p in "ab"})


def test_a_label_whose_scan_is_missing_goes_to_no_other_scan(folder):
    folder.scan("images/a.nii.gz", 1)
    folder.label("labels/b.nii.gz", 1)
    folder.scan("c_1.nii.gz", 2)
    folder.label("c_1_2_seg.nii.gz", 1)
    refused = dict.fromkeys(("labels/b.nii.gz", "c_1_2_seg.nii.gz"), "looks like a label")
    check(folder, {"images_a": case("images_a", 1), "c_1": case("c_1", 2)}, refused)


def test_a_label_on_another_grid_belongs_to_no_unnamed_scan(folder):
    folder.scan("a/ct.nii.gz", 1, "CT")
    folder.label("a/liver.nii.gz", 1, shift=7.0)
    check(folder, {"a_ct": case("a_ct", 1, modality="CT")}, {"a/liver.nii.gz": "looks like a label"})


def test_a_fourth_axis_that_nothing_explains_is_refused_with_the_option_that_decides(folder):
    folder.put("a.nii.gz", np.stack([scan(c) for c in range(3)], -1))
    with pytest.raises(BadInput, match=r"holds 3 volumes .*--image"):
        read_image(discover_dataset(folder.root).sources[0])
    check(folder, {"a": case("a", 0, 1, 2)}, image_patterns=("*.nii.gz",), modality="MR")


# --- whose scan it is


@pytest.mark.parametrize(
    ("names", "patients"),
    [
        (("p1/ct.nii.gz", "p1/mr.nii.gz", "p2/ct.nii.gz"), ("p1", "p1", "p2")),
        (("p1/ses-1/t1.nii.gz", "p1/ses-2/t1.nii.gz", "p2/ses-1/t1.nii.gz"), ("p1", "p1", "p2")),
        (("p1/2020-01-31/x.nii.gz", "p1/2021-02-03/x.nii.gz", "p2/2020-05-05/x.nii.gz"), ("p1", "p1", "p2")),
        (("s/p1/a.nii.gz", "s/p1/b.nii.gz", "s/p2/a.nii.gz"), ("p1", "p1", "p2")),
        (("p1/p1_x.nii.gz", "p1/p1_y.nii.gz", "p2/p2_z.nii.gz"), ("p1", "p1", "p2")),
        (("images/a.nii.gz", "images/b.nii.gz", "images/c.nii.gz"), ("images_a", "images_b", "images_c")),
        (("siteA/a.nii.gz", "siteA/b.nii.gz", "siteB/c.nii.gz"), ("siteA_a", "siteA_b", "siteB_c")),
        (("train/a.nii.gz", "train/b.nii.gz", "test/a.nii.gz"), ("train_a", "train_b", "test_a")),
    ],
)
def test_folders_that_name_patients_do_and_others_do_not(folder, names, patients):
    for n, name in enumerate(names):
        folder.scan(name, n)
    by_file = {str(s.images[0].relative_to(folder.root)): s.patient for s in discover_dataset(folder.root).sources}
    assert tuple(by_file[name] for name in names) == patients


def test_one_line_states_how_patients_were_identified_and_warns_where_nothing_does(folder):
    folder.scan("p1/ct.nii.gz", 1)
    folder.scan("p2/ct.nii.gz", 2)
    assert "2 patients of 2 cases, by their folders (2 cases)" in discover_dataset(folder.root).notes[0]
    folder.scan("loose.nii.gz", 3)
    assert "warning: each of 3 cases counts as its own patient" in discover_dataset(folder.root).notes[0]


# --- BIDS


def bids(folder, subjects=("01", "02"), sessions=("1", "2")):
    folder.text("dataset_description.json", {"Name": "x", "BIDSVersion": "1.8.0"})
    rows = "".join(f"sub-{s}\t{40 + int(s)}\tF\n" for s in subjects)
    folder.text("participants.tsv", "participant_id\tage\tsex\n" + rows)
    for s in subjects:
        for session in sessions:
            stem = f"sub-{s}/ses-{session}/anat/sub-{s}_ses-{session}_T1w"
            folder.scan(f"{stem}.nii.gz", 10 * int(s) + int(session))
            folder.text(f"{stem}.json", {"Modality": "MR"})


def bids_cases(labelled=(), subjects=("01", "02"), sessions=("1", "2")):
    return {
        f"sub-{s}_ses-{n}_T1w": case(f"sub-{s}", 10 * int(s) + int(n), label=dict(labelled).get((s, n)))
        for s in subjects
        for n in sessions
    }


def test_bids_subjects_are_patients_of_all_their_sessions(folder):
    bids(folder)
    layout = check(folder, bids_cases())
    assert {(s.patient, s.age_years, s.sex) for s in layout.sources} == {("sub-01", 41, "F"), ("sub-02", 42, "F")}
    assert "2 patients of 4 cases, by BIDS subjects (4 cases)" in layout.notes[0]


@pytest.mark.parametrize("name", ["ses-1_T1w_dseg", "ses-1_dseg", "ses-1_space-orig_desc-manual_dseg"])
@pytest.mark.parametrize("place", ["derivatives/labels/", "derivatives/", ""])
def test_bids_derivatives_are_labels_and_their_table_names_the_classes(folder, name, place):
    bids(folder)
    stem = f"{place}sub-01/ses-1/anat/sub-01_{name}"
    folder.put(f"{stem}.nii.gz", 2 * box(0) + 5 * box(3))
    folder.text(f"{stem}.tsv", "index\tname\n0\tbackground\n2\thippocampus\n5\tamygdala\n")
    layout = check(folder, bids_cases({("01", "1"): {"hippocampus": 0, "amygdala": 3}}))
    assert layout.labels == {1: "amygdala", 2: "hippocampus"}


def test_bids_masks_of_named_structures_are_merged(folder):
    bids(folder)
    at = "derivatives/manual/sub-02/ses-2/anat/sub-02_ses-2_T1w_label"
    folder.label(f"{at}-lesion_mask.nii.gz", 0)
    folder.label(f"{at}-edema_mask.nii.gz", 3)
    check(folder, bids_cases({("02", "2"): {"lesion": 0, "edema": 3}}))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("derivatives/fmriprep/sub-01/ses-1/anat/sub-01_ses-1_desc-brain_mask.nii.gz", "in the BIDS layout"),
        ("derivatives/fmriprep/sub-01/ses-1/anat/sub-01_ses-1_desc-preproc_T1w.nii.gz", "in the BIDS layout"),
        ("derivatives/fmriprep/sub-01/ses-1/anat/sub-01_ses-1_label-GM_probseg.nii.gz", "in the BIDS layout"),
        ("derivatives/x/sub-01/ses-1/anat/sub-01_ses-1_space-MNI152_dseg.nii.gz", "without a scan of its subject"),
        ("derivatives/x/sub-01/anat/sub-01_dseg.nii.gz", "without a scan of its subject"),
        ("derivatives/x/sub-09/ses-1/anat/sub-09_ses-1_dseg.nii.gz", "without a scan of its subject"),
    ],
)
def test_bids_derivatives_that_are_neither_scans_nor_labels_here_are_refused(folder, name, words):
    bids(folder)
    folder.scan(name, 99) if "T1w" in name else folder.label(name, 1)
    check(folder, bids_cases(), {name: words})


def test_bids_labels_that_several_scans_may_own_or_that_are_several_are_refused(folder):
    bids(folder, subjects=("01",), sessions=("1",))
    folder.scan("sub-01/ses-1/anat/sub-01_ses-1_T2w.nii.gz", 5)
    name = "derivatives/a/sub-01/ses-1/anat/sub-01_ses-1_dseg.nii.gz"
    folder.label(name, 1)
    cases = bids_cases(subjects=("01",), sessions=("1",)) | {"sub-01_ses-1_T2w": case("sub-01", 5)}
    check(folder, cases, {name: "2 scans of its session"})
    (folder.root / "sub-01/ses-1/anat/sub-01_ses-1_T2w.nii.gz").unlink()
    second = name.replace("/a/", "/b/")
    folder.label(second, 2)
    check(folder, bids_cases(subjects=("01",), sessions=("1",)), dict.fromkeys((name, second), "one of 2 labels"))


def test_bids_without_sessions_and_with_ct_and_pet(folder):
    folder.scan("sub-x1/ct/sub-x1_ct.nii.gz", 1, "CT")
    folder.scan("sub-x1/pet/sub-x1_trc-FDG_pet.nii.gz", 2, "PT")
    cases = {"sub-x1_ct": case("sub-x1", 1, modality="CT"), "sub-x1_trc-FDG_pet": case("sub-x1", 2, modality="PT")}
    check(folder, cases)


# --- patterns of the user


def test_patterns_name_channels_labels_and_patients(folder):
    cases = {}
    for p in ("sub-a_v1", "sub-a_v2", "sub-b_v1"):
        n = len(cases) * 10
        for c, sequence in enumerate(("t1", "t2")):
            folder.scan(f"{p}/{p}_{sequence}.nii.gz", n + c, shift=0.0)
        folder.label(f"{p}/{p}_final.nii.gz", n)
        cases[f"{p}_{p}"] = case(p[4], n, n + 1, label={1: n})
    folder.scan("other.nii.gz", 99)
    options = {
        "image_patterns": ("*_t1.nii.gz", "*_t2.nii.gz"),
        "label_patterns": ("*_final.nii.gz",),
        "patient_pattern": r"sub-(\w)",
    }
    layout = check(folder, cases, {"other.nii.gz": "neither --image nor --label"}, **options)
    assert layout.sources[0].channel_names == ("t1", "t2") and "--patient (3 cases)" in layout.notes[0]


@pytest.mark.parametrize(
    ("images", "labels", "options"),
    [
        ("im/{}.nii.gz", "drawn/{}.nii.gz", (("im/*.nii.gz",), ("drawn/*.nii.gz",))),
        ("{}/x.nii.gz", "{}/y.nii.gz", (("*/x.nii.gz",), ("*/y.nii.gz",))),
        ("{}.nii.gz", "{}_y.nii.gz", (("*.nii.gz",), ("*_y.nii.gz",))),
        ("a/{}/x.nii.gz", "b/{}/deep/y.nii.gz", (("a/*/x.nii.gz",), ("b/*/deep/y.nii.gz",))),
    ],
)
def test_patterns_pair_what_their_stars_stand_for(folder, images, labels, options):
    for n, name in enumerate(("u", "v")):
        folder.scan(images.format(name), n)
        folder.label(labels.format(name), n)
    layout = discover_dataset(
        folder.root, IngestConfig(image_patterns=options[0], label_patterns=options[1], modality="MR")
    )
    require_layout(layout, folder, {s.id: case(s.patient, n, label={1: n}) for n, s in enumerate(layout.sources)}, {})
    assert len(layout.sources) == 2


def test_a_further_star_of_a_label_pattern_names_structures(folder):
    for n, p in enumerate("ab"):
        folder.scan(f"{p}/x.nii.gz", n)
        folder.label(f"{p}/parts/liver.nii.gz", 0)
        folder.label(f"{p}/parts/spleen.nii.gz", 3)
    both = {"liver": 0, "spleen": 3}
    check(
        folder, {p: case(p, n, label=both) for n, p in enumerate("ab")},
        image_patterns=("*/x.nii.gz",), label_patterns=("*/parts/*.nii.gz",), modality="MR",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"image_patterns": ("*_ct.nii.gz",)}, "no file below"),
        ({"image_patterns": ("*1.nii.gz", "a_*.nii.gz")}, "is described by"),
        ({"image_patterns": ("*.nii.gz",), "label_patterns": ("*_x.nii.gz",)}, "no file below"),
    ],
)
def test_patterns_that_describe_nothing_or_one_file_twice_are_refused(folder, options, words):
    folder.scan("a_1.nii.gz", 1)
    with pytest.raises(BadInput, match=words):
        discover_dataset(folder.root, IngestConfig(**options))


def test_files_that_the_patient_pattern_does_not_describe_are_refused(folder):
    folder.scan("sub-a.nii.gz", 1)
    folder.scan("b.nii.gz", 2)
    options = {"image_patterns": ("*.nii.gz",), "patient_pattern": r"sub-(\w+)", "modality": "MR"}
    check(folder, {"sub-a": case("a", 1)}, {"b.nii.gz": "--patient describes no part"}, **options)
    with pytest.raises(BadInput, match=r"no part of b\.nii\.gz"):
        discover_dataset(folder.root, IngestConfig(patient_pattern=r"sub-(\w+)"))


@pytest.mark.parametrize("options", [{"patient_pattern": "("}, {"label_patterns": ("*",)}])
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(ValueError, match=r"regular expression|need image_patterns"):
        IngestConfig(**options)


def test_classes_that_contradict_each_other_are_refused(folder):
    for part, name in (("x", "liver"), ("y", "spleen")):
        folder.scan(f"{part}/imagesTr/{part}_0000.nii.gz", 1)
        folder.text(f"{part}/dataset.json", {"channel_names": {"0": "MR"}, "labels": {"background": 0, name: 1}})
    with pytest.raises(BadInput, match="class 1 is 'liver' and 'spleen'"):
        discover_dataset(folder.root)
