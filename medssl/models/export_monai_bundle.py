"""Bundled: a published run as a MONAI bundle too: its network, how it slides, and how MONAI's command runs it.

The layout is MONAI's bundle specification, https://docs.monai.io/en/stable/mb_specification.html. The network takes
what medssl prepares (RAS, one spacing, values in [0, 1]); MONAI's `run` therefore calls `medssl predict`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from medssl import __version__
from medssl.errors import BadInput
from medssl.files import atomic, seal, write_json, write_text
from medssl.models.trained_model import Network
from medssl.nn.interop import weight_transfer as transfer
from medssl.run import Run
from medssl.tasks.detect import Config as Detect

MONAI = "1.6.1"  # the version whose specification this is
SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"


class Bundled(nn.Module):
    """The network of a published run, as MONAI builds it from a folder: crops in, class probabilities out."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        run = Run.open(folder)
        self.task = Network.of(run).blank()
        transfer.load(run.weights, self.task.transferable())
        self.eval()

    def forward(self, x: Float[Tensor, "b c i j k"]) -> Float[Tensor, "b n i j k"]:
        """Class probabilities, background first."""
        return self.task.probability(x)


def check(run: Run) -> None:
    """Refuses a run that has no class probabilities for a bundle to give."""
    task = Network.of(run).task
    if isinstance(task, Detect) and task.route == "box":
        raise BadInput(f"{run.path}: finds boxes alone, and a bundle gives class probabilities; leave out --monai")


def add(folder: Path) -> None:
    """Adds configs/, models/ and docs/ to a published run, which stays one."""
    network = Network.of(Run.open(folder))
    files = ("configs/metadata.json", "configs/inference.json", "models/model.pt", "docs/README.md")
    write_json(folder / files[0], _metadata(network))
    write_json(folder / files[1], _inference(network))
    with atomic(folder / files[2]) as part:
        torch.save(Bundled(str(folder)).state_dict(), part)
    write_text(folder / files[3], (folder / "README.md").read_text(encoding="utf-8"))
    seal(folder, files)


def _metadata(network: Network) -> Mapping[str, Any]:
    names = {0: "background"} | network.labels
    shared = {"type": "image", "dtype": "float32", "value_range": [0, 1], "is_patch_data": True}
    shared |= {"spatial_shape": list(network.crop)}
    image = {"format": "magnitude", "modality": "n/a", "num_channels": network.in_channels}
    image["channel_def"] = {str(n): f"channel {n}" for n in range(network.in_channels)}
    classes = max(names) + 1
    said = {"format": "segmentation", "num_channels": classes}
    said["channel_def"] = {str(n): names.get(n, "unused") for n in range(classes)}
    return {
        "schema": SCHEMA, "version": "1.0.0", "changelog": {"1.0.0": "published by medssl"}, "monai_version": MONAI,
        "pytorch_version": torch.__version__, "numpy_version": np.__version__,
        "required_packages_version": {"medssl": __version__}, "task": "segmentation",
        "description": "Research use only; see docs/README.md.", "name": ", ".join(network.labels.values()),
        "authors": "see README.md", "copyright": "see README.md",
        "network_data_format": {"inputs": {"image": shared | image}, "outputs": {"pred": shared | said}},
    }  # fmt: skip


def _inference(network: Network) -> Mapping[str, Any]:
    return {
        "imports": ["$import torch", "$from medssl import cli"],
        "bundle_root": ".",
        "scans": "scans",
        "output_dir": "predictions",
        "modality": "",
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "network_def": {"_target_": "medssl.models.export_monai_bundle.Bundled", "folder": "@bundle_root"},
        "network": "$@network_def.to(@device)",
        "inferer": {
            "_target_": "SlidingWindowInferer", "roi_size": list(network.crop), "sw_batch_size": 2, "overlap": 0.5,
            "mode": "gaussian",
        },
        "run": ["$cli.run('predict', [@bundle_root, @scans, '--out', @output_dir, '--modality', @modality])"],
    }  # fmt: skip
