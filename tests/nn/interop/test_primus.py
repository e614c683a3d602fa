"""The transformer of a Primus computes what dynamic-network-architectures computes, along the axes of a store."""

import pytest
import torch

from medssl import cli
from medssl.errors import BadInput
from medssl.nn.interop.primus import import_primus, is_primus
from medssl.run import Run
from tests.helpers.toy_training import write_store

WIDTH, HIDDEN, PATCH = 24, 64, (8, 8, 8)
SHAPE = (8, 16, 24)  # of a crop, along z, y, x
BLOCK = {
    **dict.fromkeys(("gamma_1", "gamma_2", "norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"), (WIDTH,)),
    **{f"attn.{name}": (WIDTH,) for name in ("norm.weight", "norm.bias", "q_proj.bias", "v_proj.bias", "proj.bias")},
    **{f"attn.{name}_proj.weight": (WIDTH, WIDTH) for name in "qkv"},
    "attn.proj.weight": (WIDTH, WIDTH),
    **{f"mlp.fc1_{name}.weight": (HIDDEN, WIDTH) for name in "gx"},
    **{f"mlp.{name}": (HIDDEN,) for name in ("fc1_g.bias", "fc1_x.bias", "norm.weight", "norm.bias")},
    "mlp.fc2.weight": (WIDTH, HIDDEN),
    "mlp.fc2.bias": (WIDTH,),
}
SHAPES = {
    "down_projection.proj.weight": (WIDTH, 1, *PATCH),
    "down_projection.proj.bias": (WIDTH,),
    "eva.pos_embed": (1, 6, WIDTH),
    **{f"eva.blocks.{n}.{name}": shape for n in range(2) for name, shape in BLOCK.items()},
    "eva.norm.weight": (WIDTH,),
    "eva.norm.bias": (WIDTH,),
}
# Every sixth feature of the six tokens of `crop`, as computed by Primus of dynamic-network-architectures 0.4.4 with
# timm 1.0.15 and the weights of `make_tensors`.
EXPECTED = [
    [0.000000, -0.210068, -0.394823, -0.114499],
    [0.000000, -0.165977, -0.457506, -0.114225],
    [0.000000, -0.174127, -0.495492, -0.113725],
    [0.000000, -0.404996, -0.354686, -0.112997],
    [0.000000, -0.401307, -0.309951, -0.113352],
    [0.000000, -0.356625, -0.310959, -0.113802],
]


def make_tensors():
    return {
        name: 0.3
        * torch.sin((1 + n) * 0.37 * torch.arange(torch.Size(SHAPES[name]).numel()).double()).float().view(SHAPES[name])
        for n, name in enumerate(sorted(SHAPES))
    }


def crop():
    return torch.sin(0.7 * torch.arange(8 * 16 * 24).double()).float().view(1, 1, *SHAPE)


def test_tokens_are_those_of_the_original():
    imported = import_primus(make_tensors(), "file", 2, SHAPE[::-1])
    tokens = imported.encoder.eval()(crop().permute(0, 1, 4, 3, 2))[-1].permute(0, 1, 4, 3, 2).flatten(2).mT
    torch.testing.assert_close(tokens[0, :, ::6], torch.tensor(EXPECTED), rtol=0, atol=1e-5)
    assert {e.key for e in imported.report.entries if e.status == "skipped"} == {
        f"encoder.{key}" for key in imported.encoder.state_dict() if key.startswith("expansions.")
    }


@pytest.mark.parametrize(
    ("change", "num_heads", "words"),
    [
        ({}, None, "--num-heads"),
        ({"register_tokens": torch.zeros(1, 4, WIDTH)}, 2, "register tokens"),
        ({"down_projection.proj.weight": torch.zeros(WIDTH, 1, 8, 8, 6)}, 2, "powers of two"),
        ({"eva.pos_embed": torch.zeros(1, 7, WIDTH)}, 2, "7 learned positions are no grid of 3 x 2 x 1 patches"),
        ({"eva.norm.bias": torch.zeros(5)}, 2, "missing or have another shape"),
    ],
)
def test_another_architecture_is_refused(change, num_heads, words):
    tensors = make_tensors() | change
    assert is_primus(tensors)
    with pytest.raises(BadInput, match=words):
        import_primus(tensors, "file", num_heads, SHAPE[::-1])


def test_an_imported_primus_is_finetuned(tmp_path, capsys):
    plan = {"recommended_downstream_patchsize": list(SHAPE)}
    torch.save({"network_weights": make_tensors(), "nnssl_adaptation_plan": plan}, tmp_path / "primus.pth")
    arguments = [str(tmp_path / "primus.pth"), "--out", str(tmp_path / "run"), "--licence", "CC-BY-4.0"]
    assert cli.run("import-weights", arguments) == 2
    assert "--num-heads" in capsys.readouterr().err
    assert cli.run("import-weights", [*arguments, "--num-heads", "2"]) == 0
    command = next(line for line in capsys.readouterr().out.splitlines() if "medssl finetune" in line)
    words = [word for word in command.partition("finetune ")[2].split() if not word.startswith(("manifest=", "patch"))]
    manifest = write_store(tmp_path / "store")
    short = ["train.epochs=1", "train.steps_per_epoch=1", "patch_size=[16,16,16]"]
    options = [f"manifest={manifest}", f"run={tmp_path / 'fine'}", "allow_normalization_mismatch=true", *short]
    assert cli.run("finetune", [*words, *options]) == 0
    statuses = {entry["key"]: entry["status"] for entry in Run.open(tmp_path / "fine").metadata["transfer"]}
    assert statuses["encoder.blocks.1.attn.q_proj.weight"] == "loaded"
