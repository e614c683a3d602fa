"""Tests that weights are saved and loaded, and that the report has the status of each tensor."""

import json
import pickle

import pytest
import torch

from medssl.errors import BadInput
from medssl.nn.decoder import UNetDecoder
from medssl.nn.interop import weight_transfer as transfer
from tests.helpers.small_networks import make_encoder, masked_volumes


@pytest.fixture
def saved_encoder(tmp_path):
    net = make_encoder("batch")
    path = tmp_path / "weights.safetensors"
    transfer.save_parts({"encoder": net, "decoder": UNetDecoder(net.channels, net.strides)}, path)
    return net, path


def test_what_was_saved_is_what_is_loaded(saved_encoder):
    net, path = saved_encoder
    other = make_encoder("batch", seed=1)
    report = transfer.load_parts(path, {"encoder": other})
    assert report.count("loaded") == len(net.state_dict())
    x, visible = masked_volumes(net)
    for a, b in zip(net.eval()(x, visible), other.eval()(x, visible), strict=True):
        assert torch.equal(a, b)


def test_every_tensor_of_the_file_and_of_the_network_has_a_status(saved_encoder):
    _, path = saved_encoder
    other = make_encoder("instance", in_channels=2, blocks=(1, 3, 1))
    report = transfer.load_parts(path, {"encoder": other})
    keys = {e.key for e in report.entries}
    assert keys == set(transfer.read_tensors(path)) | {f"encoder.{k}" for k in other.state_dict()}
    assert len(report.entries) == len(keys)
    reasons = {e.key: e.reason for e in report.entries}
    assert reasons["decoder.ups.0.bias"] == "this part is not loaded"
    assert reasons["encoder.stem.norm.running_mean"] == "no such tensor in the network"
    assert reasons["encoder.levels.1.2.first.conv.weight"].startswith("not in the file")


def test_a_first_convolution_for_more_channels_gives_the_same_output_for_copies_of_one_channel(saved_encoder):
    net, path = saved_encoder
    wide = make_encoder("batch", in_channels=3, seed=1)
    report = transfer.load_parts(path, {"encoder": wide})
    assert [e.key for e in report.entries if e.status == "adapted"] == ["encoder.stem.conv.weight"]
    x, _ = masked_volumes(net)
    for a, b in zip(net.eval()(x), wide.eval()(x.expand(-1, 3, -1, -1, -1)), strict=True):
        assert torch.allclose(a, b, atol=1e-4)


def test_the_report_prints_one_line_for_each_tensor_and_serialises(saved_encoder):
    net, path = saved_encoder
    report = transfer.load_parts(path, {"encoder": net})
    assert len(str(report).splitlines()) == len(report.entries) + 1
    assert str(report).endswith(f"{len(net.state_dict())} loaded, 0 adapted, {report.count('skipped')} skipped")
    assert json.loads(json.dumps(report.to_json()))[0].keys() == {"key", "status", "shape", "reason"}


def test_a_tensor_with_nan_is_skipped_and_reported(saved_encoder):
    net, path = saved_encoder
    tensors = transfer.read_tensors(path)
    tensors["encoder.stem.conv.weight"][0] = float("nan")
    report = transfer.fill_parts(tensors, {"encoder": net}, "here")
    assert [e.key for e in report.entries if "NaN" in e.reason] == ["encoder.stem.conv.weight"]
    assert all(torch.isfinite(v).all() for v in net.state_dict().values())


def test_a_file_without_a_fitting_tensor_is_refused(saved_encoder):
    net, path = saved_encoder
    with pytest.raises(BadInput, match=r"none of its .* fits.*backbone\.levels"):
        transfer.load_parts(path, {"backbone": net})


def test_no_file_and_no_safetensors_are_refused_and_pickles_never_run(tmp_path):
    with pytest.raises(BadInput, match="no such file"):
        transfer.read_tensors(tmp_path / "absent.safetensors")
    marker = tmp_path / "ran"

    class Bomb:
        def __reduce__(self):
            return (marker.touch, ())

    (tmp_path / "evil.pt").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(BadInput, match="not a safetensors file"):
        transfer.read_tensors(tmp_path / "evil.pt")
    assert not marker.exists()
