"""Faster options of `medssl predict` against a plain prediction of real CT: CPU time, windows, labels and Dice.

usage: python -m benchmarks.shortcuts [WORK]; what lies in WORK already is not made again.
"""

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean, median

import numpy as np
import torch

from benchmarks._commands import make
from medssl.data.ingest.read_source import list_scans
from medssl.data.manifest import Manifest
from medssl.inference.networks.torch_network import TorchNetwork
from medssl.inference.predictor import Predictor
from medssl.inference.streaming.case_stream import collect_prediction
from medssl.io import nifti
from medssl.metrics.overlap import dice
from medssl.models.prediction.open_models import open_models
from medssl.models.prediction.prepared import PredictionOptions
from medssl.volume import Volume

WORK, MAX_CASES = "runs/shortcuts", 6
HEADS, CHEST = Path("../shared/data/headneck_ct"), Path("../shared/data/dicom/chest_ct_4DLung-P113/CT")
PLAIN = "none"
OPTIONS = {
    PLAIN: PredictionOptions(device="cpu"),
    "--precision bf16": PredictionOptions(device="cpu", precision="bf16"),
    "--crop-body 0": PredictionOptions(device="cpu", crop_body_mm=0.0),
    "--crop-body 20": PredictionOptions(device="cpu", crop_body_mm=20.0),
}
SETTINGS = (
    "allow_missing_classes=true task.class_balance=0.5 encoder.channels=[8,16,32,64] patch_size=[48,48,32] "
    "train.epochs=4 train.steps_per_epoch=80 train.lr=4.0e-3 train.ema_decay=0.98 max_val_cases=0"
)
Model = tuple[Predictor, list[int]]
Outcome = tuple[np.ndarray, float, int]  # labels, CPU seconds, windows


@dataclass(frozen=True, eq=False)
class CountedNetwork(TorchNetwork):
    """A network that lists the sizes of its batches."""

    sizes: list[int] = field(default_factory=list)

    def __call__(self, windows: np.ndarray) -> torch.Tensor:
        """Applies the network."""
        self.sizes.append(len(windows))
        outputs: torch.Tensor = super().__call__(windows)
        return outputs


def main(work: str = WORK) -> None:
    """Trains a network on head-and-neck CT, and prints one table for each set of scans."""
    torch.set_num_threads(1)
    store, run = Path(work, "store"), Path(work, "run")
    ingest = f"ingest {HEADS} --out {store} --spacing 4,4,4 --split-fractions train=0.7,val=0.1,test=0.2"
    finetune = f"finetune configs/finetune/segment.yaml manifest={store}/manifest.csv run={run} {SETTINGS}"
    make(store / "manifest.csv", ingest)
    make(run / "weights.safetensors", finetune)
    print(f"```sh\nmedssl {ingest}\nmedssl {finetune}\n```\n")
    print("CPU time is that from a scan in memory to its labels, one thread; the ratio is the median over the cases.")
    print("Dice is the mean over labels and cases: against the labels without an option, and against drawn organs.")
    models = {name: load(run, options) for name, options in OPTIONS.items()}
    cases = list(Manifest.read(store / "manifest.csv").in_split("test").with_labels().cases)[:MAX_CASES]
    images, drawn = (
        [nifti.read(HEADS / folder / f"{case.id}.nii.gz", folder == "labelsTr") for case in cases]
        for folder in ("imagesTr", "labelsTr")
    )
    scans = [replace(image, unit="HU") for image in images]
    print_table(f"head and neck, {len(scans)} test cases", models, scans, [label.voxels for label in drawn])
    if CHEST.exists():
        chest = [scan.read() for scan in list_scans(CHEST, "", "CT")]
        print_table(f"chest, {len(chest)} CT, with the same network", models, chest, [])


def load(run: Path, options: PredictionOptions) -> Model:
    """Returns the predictor of a run, and the list that its network adds its windows to."""
    (predictor,) = open_models([run]).prepare(options).predictors
    if not isinstance(predictor, Predictor) or not isinstance(predictor.network, TorchNetwork):
        sys.exit(f"{run}: is not one segmentation")
    network = predictor.network
    counted = CountedNetwork(network.function, network.device, network.precision)
    return replace(predictor, network=counted), counted.sizes


def print_table(title: str, models: Mapping[str, Model], scans: Sequence[Volume], drawn: Sequence[np.ndarray]) -> None:
    """Prints a row for each option.

    Args:
        title: What the scans are.
        models: The predictor with each option, and its list of windows.
        scans: The scans.
        drawn: The label map of each scan, if there are any.
    """
    predict(models[PLAIN], scans[0])  # the first prediction of a process costs more
    outcomes: dict[str, list[Outcome]] = {name: [] for name in models}
    for scan in scans:
        for name, model in models.items():
            outcomes[name].append(predict(model, scan))
    print(f"\n### {title}\n\n| option | windows skipped | CPU | labels equal | Dice to none | Dice to drawn |")
    print("|---|---|---|---|---|---|")
    for name, rows in outcomes.items():
        pairs = list(zip(rows, outcomes[PLAIN], strict=True))
        skipped = 1 - sum(row[2] for row in rows) / sum(plain[2] for _, plain in pairs)
        ratio = median(row[1] / plain[1] for row, plain in pairs)
        equal = mean(float((row[0] == plain[0]).mean()) for row, plain in pairs)
        to_plain = compute_mean_dice([row[0] for row in rows], [plain[0] for _, plain in pairs])
        to_drawn = f"{compute_mean_dice([row[0] for row in rows], drawn):.4f}" if drawn else "-"
        print(f"| {name} | {skipped:.0%} | {ratio:.2f}x | {equal:.4%} | {to_plain:.4f} | {to_drawn} |", flush=True)


def predict(model: Model, scan: Volume) -> Outcome:
    """Predicts a scan."""
    predictor, sizes = model
    sizes.clear()
    start = time.process_time()
    labels = collect_prediction(predictor.stream(scan, "a"), scan).labels.voxels
    return labels, time.process_time() - start, sum(sizes)


def compute_mean_dice(labels: Sequence[np.ndarray], references: Sequence[np.ndarray]) -> float:
    """Returns the mean over all labels that a reference has in a case."""
    scores = [
        dice(ours == value, reference == value)
        for ours, reference in zip(labels, references, strict=True)
        for value in np.unique(reference[reference > 0])
    ]
    return mean(scores) if scores else float("nan")


if __name__ == "__main__":
    main(*sys.argv[1:])
