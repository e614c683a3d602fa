"""The encoding of a case covers its findings, fits a limit, and is the same features in all cases."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from medssl import cli
from medssl.errors import BadInput
from medssl.export import encode_cases
from medssl.export.encode_cases import FeatureProjection, encode_predictions
from medssl.io import nifti
from medssl.predictions_folder import IMAGE, read_index
from medssl.review.assist.encodings import PROJECTION, locate_encodings, read_encoding
from tests.helpers.finished_runs import make_finished_run


def encode(image):
    """Returns two levels: the image and its mean around each voxel, then every second voxel of them."""
    voxels = image.voxels.astype(np.float32)
    fine = np.stack([voxels, ndimage.uniform_filter(voxels, 3)])
    coarse = image.affine @ np.diag([2.0, 2.0, 2.0, 1.0])
    return [replace(image, voxels=fine), replace(image, voxels=fine[:, ::2, ::2, ::2], affine=coarse)]


def test_components_have_unit_variance_and_no_correlation():
    rng = np.random.default_rng(0)
    samples = (rng.normal(size=(4000, 12)) @ rng.normal(size=(12, 12)) + 5).astype(np.float32)
    projection = FeatureProjection.fit(samples)
    components = (samples - projection.mean) @ projection.components
    np.testing.assert_allclose(np.cov(components, rowvar=False), np.eye(encode_cases.MAX_CHANNELS), atol=0.02)


def test_each_case_gets_an_encoding_on_its_own_grid(predictions):
    folder = encode_predictions(read_index(predictions), encode)
    assert folder == locate_encodings(predictions)
    assert {path.name for path in folder.iterdir()} == {PROJECTION, "case-a.npz", "case-b.npz", "case-c.npz"}
    image = nifti.read(predictions / "case-a" / IMAGE).reorient("RAS")
    encoding = read_encoding(folder / "case-a.npz")
    on_image = encoding.resample_to(image, order=1).voxels
    inside = on_image.any(0)
    correlation = [abs(np.corrcoef(channel[inside], image.voxels[inside])[0, 1]) for channel in on_image]
    assert max(correlation) > 0.5 and inside.mean() > 0.1
    assert (folder / "case-a.npz").stat().st_mode & 0o777 == 0o600


def test_a_coarser_level_is_taken_where_the_finest_is_too_large(predictions, monkeypatch):
    spacing = read_encoding(encode_predictions(read_index(predictions), encode) / "case-b.npz").spacing_mm()
    monkeypatch.setattr(encode_cases, "MAX_BYTES", 100)
    coarse = read_encoding(encode_predictions(read_index(predictions), encode) / "case-b.npz").spacing_mm()
    assert coarse == pytest.approx([2 * mm for mm in spacing])


@pytest.mark.parametrize("content", [None, b"", b"no archive", b"PK\x03\x04"])
def test_a_missing_or_damaged_encoding_names_the_remedy(tmp_path, content):
    path = tmp_path / "case.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadInput, match="medssl encode RUN PREDICTIONS"):
        read_encoding(path)


def test_the_command_encodes_with_the_encoder_of_a_run(predictions, tmp_path, capsys):
    run = make_finished_run(tmp_path / "run")
    assert cli.run("encode", [str(run.path), str(predictions)]) == 0
    folder = locate_encodings(predictions)
    assert str(folder) in capsys.readouterr().out
    encoding = read_encoding(folder / "case-a.npz")
    assert np.isfinite(encoding.voxels).all() and encoding.voxels.std() > 0.1
