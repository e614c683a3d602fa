"""Propagated labels lie where the contents of a scan lie; what cannot be propagated is refused in one line."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from medssl import cli
from medssl.data import store
from medssl.data.classes import UNKNOWN
from medssl.data.crops import CropDataset
from medssl.data.manifest import Manifest
from medssl.data.normalization import Recipe
from medssl.data.registration import atlas, parcels
from medssl.data.registration.atlas import Atlas, spread
from medssl.data.store import Card, Store
from medssl.errors import BadInput
from medssl.metrics.overlap import dice
from medssl.run import Run
from medssl.training import data_loaders as feed
from medssl.training.config import Plan
from medssl.training.semi_supervised import label_propagation as propagated
from medssl.training.semi_supervised.label_propagation import Votes
from medssl.volume import Volume
from tests.helpers.registered_scenes import MOVES, SIDES, classes, scans

FINE = np.diag((0.5, 0.5, 0.5, 1.0))
NETWORK = ["encoder.channels=[4,8]", "encoder.strides=[1,2]", "crop=[16,16,16]", "validate_on=0"]
SHORT = [*NETWORK, "plan={epochs: 2, steps: 2, batch: 2, lr: 1e-2}", "labels=2", "augment.flip=[false,false,false]"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A labelled store, and beside it its atlas."""
    folder = tmp_path_factory.mktemp("place")
    manifest = scans(folder / "store", labelled=True)
    parcels.make(manifest, folder / "atlas", parcels.Options(parcels=8), lambda *told: None)
    return manifest


def shared(place, few=("c0",)):
    """The labelled cases of a store, and the others."""
    whole = Manifest.read(place)
    sides = ([case for case in whole.cases if (case.id in few) == here] for here in (True, False))
    return [replace(whole, cases=tuple(side)) for side in sides]


def relabelled(place, name, change):
    """Writes a case's label anew."""
    manifest = Manifest.read(place)
    path = manifest.label_path(next(case for case in manifest.cases if case.id == name))
    volume = store.read(path).volume()
    path.unlink()
    store.write(path, replace(volume, voxels=change(volume.voxels)), {})


def copied(place, folder):
    """The store anew, to be spoilt; its atlas is that of the first."""
    manifest = scans(folder / "store", labelled=True)
    return manifest, place.parent.parent / "atlas"


def score(told) -> float:
    """The mean Dice of propagated labels and the contents of each scan."""
    shelf, numbers = Store(told.manifest), {f"c{n}": moved for n, moved in enumerate(MOVES)}
    found = [(shelf.label(case).volume().voxels, classes(numbers[case.id])) for case in told.manifest.cases]
    return float(np.mean([dice(a == n, b == n) for a, b in found for n in (1, 2)]))


def test_labels_follow_what_scans_show_and_not_where_it_lies(place, tmp_path):
    told = Votes(place.parent.parent / "atlas", *shared(place)).write(tmp_path / "out")
    assert [case.id for case in told.manifest.cases] == ["c1", "c2", "c3", "c4"]
    still = np.mean([dice(classes() == n, classes(moved) == n) for moved in MOVES[1:] for n in (1, 2)])
    assert score(told) > 0.85 and score(told) > still + 0.1
    assert told.classes.names == {1: "rod", 2: "ball"} and told.agreement is None
    again = Manifest.read(tmp_path / "out" / "manifest.csv")
    assert all(again.path(case).is_file() and again.label_path(case).is_file() for case in again.cases)


def test_places_that_are_told_in_another_order_are_noticed(place, tmp_path, monkeypatch):
    """The fault that this test plants is the order of the axes of a displacement."""
    right = Atlas.places
    still = np.indices(SIDES, np.float32)
    monkeypatch.setattr(Atlas, "places", lambda self, case: still + (right(self, case) - still)[::-1])
    told = Votes(place.parent.parent / "atlas", *shared(place)).write(tmp_path / "out")
    assert score(told) < 0.85


def test_volumes_vote_and_their_agreement_is_that_of_each_with_the_others(place, tmp_path):
    votes = Votes(place.parent.parent / "atlas", *shared(place, ("c0", "c1", "c2")))
    assert 0.85 < votes.agreement() <= 1
    (case, *_), total = votes.few.cases, votes.total
    alone = Votes(place.parent.parent / "atlas", *shared(place, ("c1", "c2")))
    of_two = alone.label(case, propagated.shared(alone.total))
    mine = np.mean([dice(of_two == n, classes() == n) for n in (1, 2)])
    assert np.mean(votes._agreement(case)) == pytest.approx(mine)
    assert np.allclose(total, sum(votes._of(one) for one in votes.few.cases))


def test_a_volume_whose_label_is_wrong_is_outvoted_and_lowers_the_agreement(place, tmp_path):
    spoilt, folder = copied(place, tmp_path)
    relabelled(spoilt, "c1", lambda label: np.roll(label, 9, 1))
    good, bad = (Votes(folder, *shared(one, ("c0", "c1", "c2"))) for one in (place, spoilt))
    assert bad.agreement() < good.agreement() - 0.15
    assert score(bad.write(tmp_path / "out")) > 0.8


def test_where_no_labelled_volume_says_anything_nothing_is_known(place, tmp_path):
    """The upper half of the one label is not drawn: above, all scans have the class to be ignored."""
    half, folder = copied(place, tmp_path)
    Card(labels={1: "rod", 2: "ball", 7: "ignore"}).write(half.parent)
    relabelled(half, "c0", lambda label: np.where(np.indices(SIDES)[1] > 14, 7, label).astype(np.uint8))
    told = Votes(folder, *shared(half)).write(tmp_path / "out")
    shelf = Store(told.manifest)
    for case in told.manifest.cases:
        known = told.classes.target(shelf.label(case).volume().voxels) != UNKNOWN
        assert known[:, :11].mean() > 0.99 and known[:, 19:].mean() < 0.01


def test_only_volumes_in_which_a_class_was_drawn_vote_on_it(place, tmp_path):
    """The ball was not drawn in two of three volumes: the third alone says where it is, and none if it did not."""
    partly, folder = copied(place, tmp_path)
    few = shared(partly, ("c0", "c1", "c2"))
    for name in ("c1", "c2"):
        relabelled(partly, name, lambda label: np.where(label == 2, 0, label))
    outvoted = score(Votes(folder, *few).write(tmp_path / "outvoted"))
    Card(labels={1: "rod", 2: "ball"}, present_labels={"c1": [1], "c2": [1]}).write(partly.parent)
    told = Votes(folder, *few).write(tmp_path / "out")
    assert score(told) > 0.85 > outvoted + 0.2
    assert all(told.classes.drawn(case.id).all() for case in told.manifest.cases)
    alone = Votes(folder, *shared(partly, ("c1", "c2"))).write(tmp_path / "alone")
    assert all(alone.classes.drawn(case.id).tolist() == [True, True, False] for case in alone.manifest.cases)


def test_a_finer_scan_than_the_atlas_keeps_its_own_grid(place, tmp_path):
    """Every second voxel of a label on twice as many voxels is the label."""
    few, rest = shared(place)
    fine = tmp_path / "fine"
    cases = []
    shape = tuple(2 * n for n in SIDES)
    for case in few.cases:
        voxels = Store(few).image(case).volume().voxels.repeat(2, 1).repeat(2, 2).repeat(2, 3)
        store.write(fine / case.image, Volume(voxels, FINE, "a.u."), {})
        label = classes().repeat(2, 0).repeat(2, 1).repeat(2, 2)
        store.write(fine / case.label, Volume(label, FINE, "label"), {})
        cases.append(replace(case, shape=shape))
    Card(labels={1: "rod", 2: "ball"}).write(fine)
    votes = Votes(place.parent.parent / "atlas", replace(few, cases=tuple(cases), folder=fine), rest)
    found = votes.label(cases[0], propagated.shared(votes.total))
    assert found.shape == shape
    assert min(dice(found == n, label == n) for n in (1, 2)) > 0.9


def test_what_is_gathered_is_all_that_lies_in_the_atlas_and_a_grid_is_its_own(place):
    x = np.random.default_rng(0).random((2, *SIDES))
    assert np.allclose(atlas.gathered(x, np.indices(SIDES, np.float32)), x)
    away = np.indices(SIDES, np.float32) + np.array([3.0, 0, 0], np.float32)[:, None, None, None]
    assert np.allclose(atlas.gathered(x, away)[:, 3:], x[:, :-3]) and not atlas.gathered(x, away)[:, :3].any()
    assert np.allclose(atlas.sampled(x[0].astype(np.float32), spread(SIDES, SIDES)), x[0], atol=1e-6)


def test_every_second_crop_is_one_with_propagated_labels(place, tmp_path):
    few, rest = shared(place)
    told = Votes(place.parent.parent / "atlas", few, rest).write(tmp_path / "out")
    drawn, others = (
        CropDataset(one, Recipe(), (16, 16, 16), labelled=True, foreground=1.0, classes=told.classes)
        for one in (few, told.manifest)
    )
    plan = Plan(epochs=1, steps=4, batch=2)
    batches = list(feed.crops(drawn, plan, others))
    assert len(batches) == 4
    for crops in batches:
        assert crops.volume[0] == 0 and crops.volume[1] > 0 and (crops.labels() > 0).flatten(1).any(1).all()


def test_a_finetuning_learns_from_them_and_leaves_them_to_be_looked_at(place, tmp_path, capsys):
    run = tmp_path / "run"
    words = [f"manifest={place}", f"run={run}", f"unlabelled={{name: propagated, atlas: {place.parent.parent}/atlas}}"]
    config = tmp_path / "finetune.yaml"
    config.write_text("task: segment\n")
    assert cli.run("finetune", [str(config), *SHORT, *words]) == 0
    told = Run.open(run).card["propagated"]
    assert told["cases"] == 3 and told["agreement"] > 0.85
    assert len(Manifest.read(run / "propagated" / "manifest.csv").cases) == 3
    assert cli.run("verify", [str(run / "propagated")]) == 0


def refused(capsys, tmp_path, *words) -> str:
    """The one line of a refused finetuning, which has left no run."""
    config = tmp_path / "finetune.yaml"
    config.write_text("task: segment\n")
    assert cli.run("finetune", [str(config), *SHORT, f"run={tmp_path}/run", *words]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert not (tmp_path / "run").exists()
    return line


def test_what_cannot_be_propagated_is_one_line(place, tmp_path, capsys):
    manifest, folder = copied(place, tmp_path)
    ask = f"unlabelled={{name: propagated, atlas: {folder}}}"
    assert "go together" in refused(capsys, tmp_path, f"manifest={manifest}", "unlabelled=propagated")
    none = f"unlabelled={{name: propagated, atlas: {tmp_path}}}"
    assert "no atlas (displacements/ is missing)" in refused(capsys, tmp_path, f"manifest={manifest}", none)
    said = refused(capsys, tmp_path, f"manifest={manifest}", ask, "task=detect")
    assert "is there for task=segment only" in said
    whole = Manifest.read(manifest)
    replace(whole, cases=(*whole.cases[:4], replace(whole.cases[4], split="test"))).write(manifest)
    assert "overlaps between" in refused(capsys, tmp_path, f"manifest={manifest}", ask)
    replace(whole, cases=tuple(replace(case, sha256="other") for case in whole.cases)).write(manifest)
    assert "is labelled and does not lie in this atlas" in refused(capsys, tmp_path, f"manifest={manifest}", ask)
    few, rest = shared(place)
    with pytest.raises(BadInput, match=r"no unlabelled case of .* lies in this atlas"):
        Votes(folder, few, replace(rest, cases=tuple(replace(case, sha256="other") for case in rest.cases)))


@pytest.mark.parametrize("spoil", [lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:200])])
def test_a_damaged_atlas_is_told_by_the_file(place, tmp_path, spoil):
    folder = tmp_path / "atlas"
    shutil.copytree(place.parent.parent / "atlas", folder)
    few, rest = shared(place)
    whole = Manifest.read(folder / "manifest.csv")
    assert all(Atlas(folder).places(case).shape == (3, *SIDES) for case in whole.cases)
    spoil(folder / "displacements" / "c0.npy")
    with pytest.raises(BadInput, match=r"c0\.npy: is gone or damaged .*run `medssl atlas` again"):
        Votes(folder, few, rest)


def test_labels_that_hardly_agree_are_doubted(place, tmp_path, capsys, caplog):
    manifest, folder = copied(place, tmp_path)
    for n in range(5):
        relabelled(manifest, f"c{n}", lambda label, n=n: np.roll(label, 5 * n, 0))
    config = tmp_path / "finetune.yaml"
    config.write_text("task: segment\n")
    words = [f"manifest={manifest}", f"run={tmp_path}/run", f"unlabelled={{name: propagated, atlas: {folder}}}"]
    assert cli.run("finetune", [str(config), *SHORT, *words]) == 0
    assert f"{tmp_path}/run/propagated: carried from one labelled volume to another" in caplog.text
