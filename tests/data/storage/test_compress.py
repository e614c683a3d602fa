"""A compressed store is read as its words say, is smaller by the bytes of its words, and trains like the original."""

from dataclasses import replace

import numpy as np
import pytest

from medssl import cli
from medssl.data import store
from medssl.data.manifest import Manifest
from medssl.data.storage.codebook import Codebook, TokenArray
from medssl.data.storage.compress import compress_store, measure_psnr
from medssl.data.storage.upload import upload_store
from medssl.data.store import Store
from medssl.data.store_metadata import StoreMetadata
from medssl.errors import BadInput
from medssl.volume import Volume
from tests.helpers.toy_training import write_store


def make_codebook(cell=2, words=8, stages=2, seed=0):
    cubes = np.random.default_rng(seed).normal(size=(500, cell**3)).astype(np.float32)
    return Codebook.fit(cubes, words, stages)


def quantize(codebook, cube):
    """The sum of the nearest words of all stages, one after the other."""
    decoded = np.zeros_like(cube)
    for words in codebook.words:
        decoded = decoded + words[np.square(words - (cube - decoded)).sum(1).argmin()]
    return decoded


def test_each_cube_becomes_the_sum_of_its_nearest_words():
    codebook = make_codebook()
    voxels = np.random.default_rng(1).normal(size=(2, 6, 4, 8)).astype(np.float32)
    numbers = codebook.encode(voxels)
    assert numbers.shape == (2, 2, 3, 2, 4) and numbers.dtype == np.uint8
    decoded = codebook.decode(numbers)
    for c, i, j, k in [(0, 0, 0, 0), (1, 4, 2, 6), (1, 2, 0, 4)]:
        cube = voxels[c, i : i + 2, j : j + 2, k : k + 2].ravel()
        np.testing.assert_allclose(
            decoded[c, i : i + 2, j : j + 2, k : k + 2].ravel(), quantize(codebook, cube), atol=1e-5
        )


def test_each_stage_leaves_a_smaller_error_and_as_many_words_as_cubes_leave_none():
    cubes = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
    voxels = cubes.reshape(40, 2, 2, 2).transpose(1, 0, 2, 3).reshape(1, 2, 80, 2)
    voxels = np.concatenate([cube.reshape(1, 2, 2, 2) for cube in cubes], 1)
    errors = [
        np.square(book.decode(book.encode(voxels)) - voxels).mean()
        for book in (Codebook.fit(cubes, 8, stages) for stages in (1, 2, 4))
    ]
    assert errors[0] > errors[1] > errors[2]
    exact = Codebook.fit(cubes, 40, 1)
    np.testing.assert_allclose(exact.decode(exact.encode(voxels)), voxels, atol=1e-5)


@pytest.mark.parametrize("shape", [(7, 5, 9), (2, 7, 5, 9)])
@pytest.mark.parametrize("dtype", [np.float16, np.int16])
def test_any_slice_is_that_of_the_whole(shape, dtype):
    codebook = Codebook(make_codebook(cell=4).words * 300)
    voxels = np.random.default_rng(1).normal(0, 400, shape).astype(dtype)
    array = TokenArray(codebook.encode(voxels.reshape(-1, *shape[-3:])), codebook, shape, np.dtype(dtype))
    whole = array[:]
    assert whole.shape == shape and whole.dtype == dtype
    for i, j, k in [
        ((0, 7), (0, 5), (0, 9)),
        ((3, 4), (1, 5), (8, 9)),
        ((4, 7), (0, 1), (3, 8)),
        ((2, 2), (0, 5), (0, 9)),
    ]:
        part = array[..., slice(*i), slice(*j), slice(*k)]
        np.testing.assert_array_equal(part, whole[..., slice(*i), slice(*j), slice(*k)])
    np.testing.assert_array_equal(array[..., 4:5], whole[..., 4:5])


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("stores") / "store", 5, side=40)


@pytest.fixture(scope="module")
def compressed(manifest, tmp_path_factory):
    out = tmp_path_factory.mktemp("compressed") / "small"
    return compress_store(Manifest.read(manifest), out), Manifest.read(out / "manifest.csv")


def test_the_voxels_are_near_the_original_and_labels_are_copied(manifest, compressed):
    done, small = compressed
    original = Manifest.read(manifest)
    ratios = []
    for first, second in zip(original.cases, small.cases, strict=True):
        assert replace(second, image=first.image, label=first.label, sha256=first.sha256) == first
        true, read = Store(original).image(first), Store(small).image(second)
        assert read.shape == true.shape and np.array_equal(read.affine, true.affine)
        ratios.append(measure_psnr(true.array[:], read.array[:]))
        np.testing.assert_array_equal(Store(small).label(second).array[:], Store(original).label(first).array[:])
    assert done.psnr_db == pytest.approx(np.median(ratios)) and min(ratios) > 15
    assert StoreMetadata.read(small.folder) == StoreMetadata.read(original.folder)


def test_an_image_takes_two_bytes_for_a_cube_of_64_voxels(compressed, tmp_path):
    voxels = np.random.default_rng(0).normal(0.5, 0.2, (1, 128, 128, 128)).astype(np.float16)
    codebook = compressed[1].folder / "images" / "codebook-au.npz"
    path = tmp_path / "codebook-au.npz"
    path.write_bytes(codebook.read_bytes())
    store.write(tmp_path / "large.b2nd", Volume(voxels, np.eye(4), "a.u."), {}, path)
    assert voxels.nbytes / (tmp_path / "large.b2nd").stat().st_size > 40


def test_a_compressed_store_is_verified_and_trains(compressed, tmp_path, capsys):
    folder = compressed[1].folder
    assert cli.run("verify", [str(folder)]) == 0
    words = [f"manifest={folder / 'manifest.csv'}", f"run={tmp_path / 'run'}", "patch_size=16", "train.epochs=1"]
    words += ["encoder.channels=[4,8]", "encoder.strides=[1,2]", "encoder.blocks=[1,1]", "train.steps_per_epoch=2"]
    assert cli.run("pretrain", ["configs/pretrain/mae.yaml", *words]) == 0
    image = compressed[1].cases[0].image
    original = (folder / image).read_bytes()
    damaged = bytearray(original)
    damaged[len(damaged) // 20] ^= 255
    (folder / image).write_bytes(bytes(damaged))
    assert cli.run("verify", [str(folder)]) == 2
    (folder / image).write_bytes(original)


def test_lost_words_are_named(compressed, tmp_path):
    case = compressed[1].cases[0]
    image = compressed[1].path(case)
    (tmp_path / image.name).write_bytes(image.read_bytes())
    with pytest.raises(BadInput, match=r"codebook-au.npz: the words of a compressed store are missing or damaged"):
        store.read(tmp_path / image.name)
    (tmp_path / "codebook-au.npz").write_bytes(b"PK")
    with pytest.raises(BadInput, match=r"the words of a compressed store are missing or damaged; compress it again"):
        store.read(tmp_path / image.name)


def test_wrong_settings_and_places_are_refused(manifest, compressed, tmp_path, capsys):
    for options in (["--cell", "1"], ["--words", "300"], ["--stages", "0"]):
        assert cli.run("compress", [str(manifest), "--out", str(tmp_path / "out"), *options]) == 2
        error = capsys.readouterr().err
        assert "give a cell of 2 to 16 voxels, 2 to 256 words and 1 to 8 stages" in " ".join(error.split())
        assert not (tmp_path / "out").exists()
    with pytest.raises(BadInput, match="lists no case"):
        compress_store(replace(Manifest.read(manifest), cases=()), tmp_path / "out")
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_text("mine")
    with pytest.raises(BadInput):
        compress_store(Manifest.read(manifest), tmp_path / "there")
    assert (tmp_path / "there" / "file").read_text() == "mine"
    with pytest.raises(BadInput, match="is a compressed store, which is read from a local folder"):
        upload_store(compressed[1], f"file://{tmp_path}/remote", tmp_path / "uploaded")
