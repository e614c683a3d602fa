"""Weights go out and in, and the ledger tells the fate of each."""

import json
import pickle

import pytest
import torch

from medssl.errors import BadInput
from medssl.nn.decoder import UNetDecoder
from medssl.nn.interop import weight_transfer as transfer
from tests.helpers.small_networks import masked_volumes, shaken


@pytest.fixture
def written(tmp_path):
    net = shaken("batch")
    path = tmp_path / "weights.safetensors"
    transfer.save({"encoder": net, "decoder": UNetDecoder(net.channels, net.strides)}, path)
    return net, path


def test_what_was_saved_is_what_is_loaded(written):
    net, path = written
    other = shaken("batch", seed=1)
    ledger = transfer.load(path, {"encoder": other})
    assert ledger.count("loaded") == len(net.state_dict())
    x, keep = masked_volumes(net)
    for a, b in zip(net.eval()(x, keep), other.eval()(x, keep), strict=True):
        assert torch.equal(a, b)


def test_every_tensor_of_the_file_and_of_the_network_has_a_fate(written):
    _, path = written
    other = shaken("instance", in_channels=2, blocks=(1, 3, 1))
    ledger = transfer.load(path, {"encoder": other})
    told = {e.key for e in ledger.entries}
    assert told == set(transfer.read(path)) | {f"encoder.{k}" for k in other.state_dict()}
    assert len(ledger.entries) == len(told)
    reasons = {e.key: e.reason for e in ledger.entries}
    assert reasons["decoder.ups.0.bias"] == "this part is not wanted"
    assert reasons["encoder.stem.norm.running_mean"] == "no such tensor in the network"
    assert reasons["encoder.levels.1.2.first.conv.weight"].startswith("not in the file")


def test_a_first_convolution_for_more_channels_answers_copies_of_one_alike(written):
    net, path = written
    wide = shaken("batch", in_channels=3, seed=1)
    ledger = transfer.load(path, {"encoder": wide})
    assert [e.key for e in ledger.entries if e.fate == "adapted"] == ["encoder.stem.conv.weight"]
    x, _ = masked_volumes(net)
    for a, b in zip(net.eval()(x), wide.eval()(x.expand(-1, 3, -1, -1, -1)), strict=True):
        assert torch.allclose(a, b, atol=1e-4)


def test_the_ledger_prints_one_line_a_tensor_and_serialises(written):
    net, path = written
    ledger = transfer.load(path, {"encoder": net})
    assert len(str(ledger).splitlines()) == len(ledger.entries) + 1
    assert str(ledger).endswith(f"{len(net.state_dict())} loaded, 0 adapted, {ledger.count('skipped')} skipped")
    assert json.loads(json.dumps(ledger.json()))[0].keys() == {"key", "fate", "shape", "reason"}


def test_a_tensor_with_nan_is_left_out_and_told(written):
    net, path = written
    tensors = transfer.read(path)
    tensors["encoder.stem.conv.weight"][0] = float("nan")
    ledger = transfer.fill(tensors, {"encoder": net}, "here")
    assert [e.key for e in ledger.entries if "NaN" in e.reason] == ["encoder.stem.conv.weight"]
    assert all(torch.isfinite(v).all() for v in net.state_dict().values())


def test_a_file_that_fills_nothing_is_refused(written):
    net, path = written
    with pytest.raises(BadInput, match=r"none of its .* fits.*backbone\.levels"):
        transfer.load(path, {"backbone": net})


def test_no_file_and_no_safetensors_are_refused_and_pickles_never_run(tmp_path):
    with pytest.raises(BadInput, match="no weights here"):
        transfer.read(tmp_path / "absent.safetensors")
    ran = tmp_path / "ran"

    class Bomb:
        def __reduce__(self):
            return (ran.touch, ())

    (tmp_path / "evil.pt").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(BadInput, match="not a safetensors file"):
        transfer.read(tmp_path / "evil.pt")
    assert not ran.exists()
