"""A recipe fitted to a pool of MRs, and carried by what is made from it."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from medssl import cli
from medssl.data.crops import CropDataset
from medssl.data.ingest.pipeline import Options, ingest
from medssl.data.ingest.read_source import read_source
from medssl.data.normalization import DECILES, Recipe, body, deciles
from medssl.data.store import Card, Store, fault
from medssl.errors import BadInput
from medssl.io import nifti
from medssl.models.select_cases import suggested
from medssl.models.trained_model import Network
from medssl.nn.encoder import EncoderConfig
from medssl.nn.interop import weight_transfer as transfer
from medssl.run import Run
from medssl.settings import Settings
from medssl.training.data_loaders import wholes
from medssl.volume import Volume

SHAPE = (24, 28, 16)
LEVELS = tuple(round(0.1 * n, 2) for n in range(1, 10))


def brain(seed, bent=1.0, scale=700.0):
    """A ball of tissue in air whose values are bent and scaled as another scanner's are."""
    random = np.random.default_rng(seed)
    at = np.indices(SHAPE).transpose(1, 2, 3, 0) - (12, 14, 8)
    inside = np.linalg.norm(at / (11, 12, 8), axis=-1) < 1
    tissue = random.choice([0.3, 0.55, 0.8], SHAPE, p=[0.2, 0.5, 0.3]) + random.normal(0, 0.03, SHAPE)
    return Volume((np.where(inside, tissue.clip(0.05, 1) ** bent, 0) * scale).astype(np.float32), np.eye(4), "a.u.")


def scans_of(folder, **splits):
    """Brains of one bend a split, in a Decathlon's layout."""
    told = {"modality": {"0": "MRI"}, "labels": {"0": "background", "1": "brain"}}
    listed = {"train": "training", "val": "validation", "test": "test"}
    for split, (number, bent) in splits.items():
        told[listed[split]] = []
        for n in range(number):
            name = f"{split}{n}.nii.gz"
            image = brain(n, bent, 300 + 500 * n)
            nifti.write(image, folder / "images" / name)
            label = (image.voxels > 0).astype(np.uint8)
            nifti.write(replace(image, voxels=label, unit="label"), folder / "labels" / name)
            told[listed[split]].append({"image": f"images/{name}", "label": f"labels/{name}"})
    (folder / "dataset.json").write_text(json.dumps(told))
    return folder


def run(scans, out, **options):
    return ingest(scans, out, Options(**({"workers": 0} | options)), lambda done, of: None).manifest


@pytest.fixture
def pool(tmp_path):
    scans_of(tmp_path / "pool", train=(5, 1.0), val=(2, 3.0), test=(2, 0.3))
    return run(tmp_path / "pool", tmp_path / "store", recipe="auto")


def test_landmarks_are_those_of_the_training_scans_and_of_no_other(pool, tmp_path):
    recipe = Card.read(pool.folder).recipe
    store = Store(pool)
    of_train = np.mean([store.image(case).deciles for case in pool.by("train").cases], axis=0)
    assert np.allclose(recipe.landmarks, of_train, atol=1e-3)
    scans_of(tmp_path / "other", train=(5, 1.0), val=(3, 0.5), test=(1, 2.0))
    other = run(tmp_path / "other", tmp_path / "store-2", recipe="auto")
    assert Card.read(other.folder).recipe == recipe
    assert recipe.window_hu == Recipe().window_hu


def test_one_tissue_has_one_value_in_all_scans_of_a_fitted_pool(pool):
    """The bent scans of val and test are brought to where those of train lie; per-scan percentiles leave them apart."""
    spread = {}
    for recipe in (Recipe(), Card.read(pool.folder).recipe):
        medians = []
        for case in pool.cases:
            image = Store(pool).image(case)
            x = recipe.apply(image.volume().voxels, "a.u.", image.deciles)
            medians.append(np.median(x[0][body(image.volume().voxels[0], "a.u.")]))
        spread[bool(recipe.landmarks)] = np.ptp(medians)
    assert spread[True] < 0.02 < 0.2 < spread[False]


def test_a_case_is_suggested_from_the_same_input_too(pool, tmp_path):
    network = Network.on(pool, EncoderConfig(channels=(4, 8), strides=(1, 2)), (8, 8, 8))
    assert network.recipe.landmarks
    made = Run.create(tmp_path / "run", Settings(), "pretrain", network=network.model_dump(mode="json"))
    transfer.save({"encoder": network.body()}, made.path / "weights.safetensors")
    made.close()
    bare = replace(pool, cases=tuple(replace(case, label=None) for case in pool.cases))
    assert [one.rank for one in suggested(made, bare, 2)] == [1, 2]


def test_training_and_prediction_see_the_same_input(pool):
    """Crops, whole volumes and scans that come to a network are brought to one scale."""
    recipe = Card.read(pool.folder).recipe
    network = Network(
        encoder={"channels": (4, 8), "strides": (1, 2)}, in_channels=1, recipe=recipe, spacing_mm=(1.0, 1.0, 1.0),
        crop=(8, 8, 8),
    )  # fmt: skip
    case = pool.by("test").cases[0]
    seen = network.prepare(read_source(case, pool)).voxels
    one = replace(pool, cases=(case,))
    whole = next(iter(wholes(one, recipe)))
    assert np.array_equal(whole.x[0, 0, 0].numpy(), seen.reshape(SHAPE))
    item = CropDataset(one, recipe, (8, 8, 8))[0]
    i, j, k = (int(v) for v in item.corner[0])
    assert np.array_equal(item.x[0, 0].numpy(), seen.reshape(SHAPE)[i : i + 8, j : j + 8, k : k + 8])


@settings(max_examples=25, deadline=None)
@given(st.floats(0.25, 4.0), st.floats(1e-2, 1e4))
def test_deciles_lie_at_the_landmarks_whatever_the_scanner_did(bent, scale):
    recipe = Recipe(landmarks=(LEVELS,))
    image = brain(3, bent, scale)
    there = recipe.input(image, None).voxels[body(recipe.prepare(image, None).voxels, "a.u.")]
    assert np.percentile(there, DECILES) == pytest.approx(LEVELS, abs=0.02)
    assert there.min() >= 0 and there.max() <= 1


def test_brighter_stays_brighter():
    recipe = Recipe(landmarks=(tuple(v**2 for v in LEVELS),))
    image = brain(0)
    order = np.argsort(image.voxels, axis=None, kind="stable")
    assert (np.diff(recipe.input(image, None).voxels.ravel()[order]) >= 0).all()


@pytest.mark.parametrize("values", [(7.0, 7.0), (0.0, 1.0)])
def test_scans_of_one_or_two_values_give_finite_input(values):
    voxels = np.resize(np.array(values, np.float32), SHAPE)
    x = Recipe(landmarks=(LEVELS,)).input(Volume(voxels, np.eye(4), "a.u."), None).voxels
    assert np.isfinite(x).all() and x.min() >= 0 and x.max() <= 1


def test_ct_among_mixed_channels_has_no_landmarks(tmp_path):
    for n in range(3):
        ct = np.full(SHAPE, -1000, np.float32)
        ct[6:18, 6:22, 4:12] = 500 * n - 500
        nifti.write(Volume(ct, np.eye(4), "HU"), tmp_path / f"scans/imagesTr/c{n}_0000.nii.gz")
        nifti.write(brain(n), tmp_path / f"scans/imagesTr/c{n}_0001.nii.gz")
    (tmp_path / "scans/dataset.json").write_text('{"channel_names": {"0": "CT", "1": "MRI"}, "labels": {}}')
    manifest = run(tmp_path / "scans", tmp_path / "store", recipe="auto", shares={"train": 1.0})
    recipe = Card.read(tmp_path / "store").recipe
    assert recipe.hu_channels == (0,) and [len(row) for row in recipe.landmarks] == [0, 9]
    image = Store(manifest).image(manifest.cases[0])
    x = recipe.apply(image.volume().voxels, "a.u.", image.deciles)
    assert np.array_equal(x[0], image.volume().voxels[0].astype(np.float32)) and not np.array_equal(x[1], x[0])


def test_another_store_and_a_run_lend_their_recipe(pool, tmp_path):
    recipe = Card.read(pool.folder).recipe
    scans_of(tmp_path / "few", train=(2, 2.0))
    assert Card.read(run(tmp_path / "few", tmp_path / "a", recipe=pool.folder).folder).recipe == recipe
    weights = Run.create(tmp_path / "run", Options(), "pretrain", network={"recipe": recipe.model_dump(mode="json")})
    assert Card.read(run(tmp_path / "few", tmp_path / "b", recipe=weights.path).folder).recipe == recipe
    with pytest.raises(BadInput, match="recipe"):
        run(tmp_path / "few", tmp_path / "a", recipe=weights.path.parent / "c")
    run(tmp_path / "few", tmp_path / "c")
    with pytest.raises(BadInput, match="its recipe is"):
        run(tmp_path / "few", tmp_path / "c", recipe=pool.folder)
    recipe.require(Card.read(tmp_path / "a").recipe)
    with pytest.raises(BadInput, match="--recipe"):
        recipe.require(Card.read(tmp_path / "c").recipe)


def test_a_recipe_once_fitted_stays(pool, tmp_path):
    before = Card.read(pool.folder)
    scans_of(tmp_path / "more", train=(2, 3.0))
    (tmp_path / "more/dataset.json").unlink()
    grown = run(tmp_path / "more/images", pool.folder, recipe="auto", modality="MR")
    assert len(grown.cases) == len(pool.cases) + 2 and Card.read(pool.folder).recipe == before.recipe


def test_landmarks_leave_stored_voxels_alone(pool, tmp_path):
    plain = run(tmp_path / "pool", tmp_path / "plain")
    assert [c.sha256 for c in plain.cases] == [c.sha256 for c in pool.cases]
    assert Recipe().stored() == Card.read(pool.folder).recipe.stored()


def test_a_file_from_before_the_landmarks_loads_without_and_is_refused_with_them(pool):
    image = Store(pool).image(pool.cases[0])
    voxels = image.volume().voxels
    assert np.array_equal(Recipe().apply(voxels, "a.u."), Recipe().apply(voxels, "a.u.", image.deciles))
    with pytest.raises(BadInput, match="ingest it again"):
        Card.read(pool.folder).recipe.apply(voxels, "a.u.", None)


def test_rotten_deciles_are_found(pool):
    import blosc2

    path = pool.path(pool.cases[0])
    assert fault(path, pool.cases[0].sha256) == ""
    array = blosc2.open(str(path), mode="a")
    array.schunk.vlmeta["deciles"] = [0.5] * 9
    assert "deciles" in fault(path, pool.cases[0].sha256)


def test_the_deciles_of_a_scan_are_those_of_its_body():
    image = replace(brain(1), voxels=brain(1).voxels.astype(np.float16))
    inside = image.voxels[body(image.voxels, "a.u.")]
    assert deciles(image)[0] == pytest.approx(np.percentile(inside.astype(float), DECILES), rel=2e-3)


@pytest.mark.parametrize("wrong", [((0.1, 0.2),), (LEVELS[::-1],)])
def test_landmarks_are_nine_and_rise(wrong):
    with pytest.raises(ValidationError, match="landmarks"):
        Recipe(landmarks=wrong)


def test_a_window_and_a_recipe_are_not_asked_for_at_once(tmp_path, capsys):
    words = [str(tmp_path), "--out", str(tmp_path / "s"), "--recipe", "auto", "--window-hu", "auto"]
    assert cli.run("ingest", words) == 2 and "one of recipe and window_hu" in capsys.readouterr().err
