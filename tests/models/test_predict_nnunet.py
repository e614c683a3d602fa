"""Whole networks imported from nnU-Net predict volumes as the original network in MONAI's sliding window does."""

import numpy as np
import pytest
import torch
from monai.inferers import sliding_window_inference as monai_inference
from scipy import ndimage
from torch import nn

from medssl import cli
from medssl.inference.sliding_window import sliding_window_inference
from medssl.io import nifti
from medssl.models.trained_model import build_predictor
from medssl.volume import Volume
from tests.models.test_import_nnunet import CT, run_import, write_checkpoint

unet = pytest.importorskip(
    "dynamic_network_architectures.architectures.unet", reason="needs dynamic-network-architectures (the `test` extra)"
)
DATASET = {"labels": {"background": 0, "ball": 1, "rod": 2}, "channel_names": {"0": "CT"}}
LAYERS = {
    "conv_op": nn.Conv3d, "kernel_sizes": ((1, 3, 3), (3, 3, 3), (3, 3, 3)),
    "strides": ((1, 1, 1), (1, 2, 2), (2, 2, 2)),
    "num_classes": 3, "conv_bias": True, "norm_op": nn.InstanceNorm3d, "norm_op_kwargs": {"eps": 1e-5, "affine": True},
    "nonlin": nn.LeakyReLU, "nonlin_kwargs": {"inplace": True}, "deep_supervision": True,
}  # fmt: skip


def make_network(name):
    torch.manual_seed(0)
    counts = {
        "PlainConvUNet": {"n_conv_per_stage": 2, "n_conv_per_stage_decoder": 2},
        "ResidualEncoderUNet": {"n_blocks_per_stage": (1, 2, 2), "n_conv_per_stage_decoder": 1},
    }
    net = getattr(unet, name)(1, 3, (4, 8, 8), **counts[name], **LAYERS)
    for p in net.parameters():
        nn.init.normal_(p, mean=float(p.ndim == 1), std=0.2)
    nn.init.zeros_(net.decoder.seg_layers[-1].bias)  # classes of similar size
    net.eval()
    net.decoder.deep_supervision = False
    return net


@pytest.fixture(params=["PlainConvUNet", "ResidualEncoderUNet"])
def imported(request, tmp_path):
    """A network, the run that it was imported as, a scan, and the probabilities by the network in (i, j, k)."""
    net = make_network(request.param)
    run = run_import(write_checkpoint(tmp_path, net, dataset=DATASET), tmp_path / "run")
    hu = ndimage.gaussian_filter(np.random.default_rng(0).normal(0, 1, (37, 30, 21)), 1.5)
    hu = (40 + hu / hu.std() * 150).round().astype(np.int16)
    z_score = ((np.clip(hu, -200, 300) - CT["mean"]) / CT["std"]).astype(np.float32)
    windows = torch.from_numpy(z_score).permute(2, 1, 0)[None, None]
    with torch.no_grad():
        expected = monai_inference(windows, (8, 16, 16), 2, lambda x: net(x).softmax(1), 0.5, "gaussian")[0]
    return run, Volume(hu, np.diag([1.2, 1.0, 2.5, 1.0]), "HU"), expected.permute(0, 3, 2, 1).numpy()


def test_probabilities_and_labels_are_those_of_the_original_network(imported):
    run, scan, expected = imported
    predictor = build_predictor(run)
    prepared = predictor.prepare(scan).voxels[None]
    result = sliding_window_inference(prepared, predictor.network, predictor.crop, predictor.overlap)
    assert np.abs(result - expected).max() <= 1e-5
    best, second = np.sort(expected, axis=0)[[-1, -2]]
    is_clear = best - second > 1e-5
    assert is_clear.mean() > 0.999
    labels = predictor(scan, "a").labels.voxels
    assert np.array_equal(labels[is_clear], expected.argmax(0)[is_clear]) and len(np.unique(labels)) > 1


def test_predictions_are_written_on_the_grid_of_any_scan(imported, tmp_path):
    run, scan, expected = imported
    nifti.write(scan.reorient("LPI"), tmp_path / "scans" / "a.nii.gz")
    words = [run.path, tmp_path / "scans", "--modality", "CT", "--out", tmp_path / "out"]
    assert cli.run("predict", [str(word) for word in words]) == 0
    written = nifti.read(tmp_path / "out" / "a" / "labels.nii.gz", label=True).reorient("RAS").voxels
    assert (written == expected.argmax(0)).mean() > 0.9999
