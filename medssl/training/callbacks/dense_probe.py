"""Dense probe of a pretraining: Dice of a linear head on frozen features, compared with an untrained encoder."""

from dataclasses import dataclass, replace

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from medssl.data.crops import Crops, collate
from medssl.data.manifest import Manifest
from medssl.data.pools.crop_dataset import CropDataset
from medssl.data.selection.splits import select_labelled
from medssl.errors import BadInput
from medssl.models.trained_model import TrainedModel
from medssl.nn.encoder import Encoder
from medssl.training.probes.linear import dense_probe_dice

MAX_TEST_CROPS = 8  # each from another volume


@dataclass(frozen=True)
class DenseProbe:
    """Data of a dense probe.

    Attributes:
        train: Labelled crops to fit the head on.
        test: Labelled crops of other volumes to score it on.
        untrained_encoder: Encoder with fresh weights, for a baseline score.
    """

    train: Crops
    test: Crops
    untrained_encoder: Encoder

    @classmethod
    def from_manifest(cls, manifest: Manifest, model: TrainedModel, num_volumes: int, seed: int) -> "DenseProbe":
        """Cuts the probe's crops from labelled volumes and builds the untrained encoder.

        Args:
            manifest: Cases of a store. The head is fitted on cases of train, and scored on cases of val, or on further
                cases of train if val has no labels.
            model: Encoder, normalization and patch size of the pretraining.
            num_volumes: Number of labelled volumes to fit on.
            seed: Seed of the selection, the crops and the untrained encoder.

        Raises:
            BadInput: There are too few labelled cases.
        """
        candidates = manifest.in_split("train").with_labels()
        if len(candidates.cases) < num_volumes:
            raise BadInput(
                f"{manifest.folder}: split train has {len(candidates.cases)} labelled cases, the probe needs"
                f" {num_volumes}; lower num_probe_volumes, or set it to 0"
            )
        train = select_labelled(candidates, num_volumes, seed)
        remaining = replace(candidates, cases=tuple(case for case in candidates.cases if case not in train.cases))
        test = next((m for m in (manifest.in_split("val").with_labels(), remaining) if m.cases), None)
        if test is None:
            raise BadInput(
                f"{manifest.folder}: no labelled case remains to score the probe on; lower num_probe_volumes"
            )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            untrained_encoder = model.build_encoder()
        return cls(
            _cut_crops(train, model, seed), _cut_crops(test.head(MAX_TEST_CROPS), model, seed), untrained_encoder
        )

    def score(self, encoder: Encoder) -> dict[str, float]:
        """Returns the mean Dice on features of an encoder, and on features of the untrained encoder."""
        device = next(encoder.parameters()).device
        train, test = self.train.to(device), self.test.to(device)
        encoders = {"probe_dice": encoder, "probe_dice_random": self.untrained_encoder.to(device)}
        return {name: dense_probe_dice(encoder, train, test) for name, encoder in encoders.items()}


class DenseProbeCallback(Callback):
    """Logs the probe scores in the middle of a training; `train` adds those of the final weights."""

    def __init__(self, probe: DenseProbe) -> None:
        self.probe = probe

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs the scores once, after half of the epochs."""
        if trainer.is_global_zero and trainer.current_epoch + 1 == (trainer.max_epochs or 1) // 2:
            pl_module.log_dict(self.probe.score(pl_module.learner.encoder), on_epoch=True)


def _cut_crops(manifest: Manifest, model: TrainedModel, seed: int) -> Crops:
    """Cuts one crop of every volume, around a voxel of a class."""
    dataset = CropDataset(
        manifest, model.normalization, model.patch_size, labelled=True, foreground_fraction=1.0, seed=seed
    )
    return collate([dataset[n] for n in range(len(dataset))])
