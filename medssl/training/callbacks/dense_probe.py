"""A frozen dense probe of a pretraining: what a few labels get out of its features, and out of untrained ones."""

from dataclasses import dataclass, replace

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from medssl.data.crops import CropDataset, Crops, collate
from medssl.data.manifest import Manifest
from medssl.errors import BadInput
from medssl.models.trained_model import Network
from medssl.nn.encoder import Encoder
from medssl.training.representation_metrics import dense_probe

HELD = 8  # crops to score on, each of another volume


@dataclass(frozen=True)
class Probe:
    """Labelled crops to fit a head on, others to score it on, and an untrained encoder to compare with."""

    shown: Crops
    held: Crops
    random: Encoder

    @classmethod
    def of(cls, manifest: Manifest, network: Network, volumes: int, seed: int) -> "Probe":
        """Fits on labelled volumes of the split train; scores on those of val, or of train where val has none."""
        pool = manifest.by("train").labelled()
        if len(pool.cases) < volumes:
            raise BadInput(
                f"{manifest.folder}: {len(pool.cases)} labelled cases in train; lower probe to that, or to 0"
            )
        shown = pool.few(volumes, seed)
        left = replace(pool, cases=tuple(case for case in pool.cases if case not in shown.cases))
        held = next((m for m in (manifest.by("val").labelled(), left) if m.cases), None)
        if held is None:
            raise BadInput(f"{manifest.folder}: no labelled case is left to score the probe on; lower probe")
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            random = network.body()
        return cls(_crops(shown, network, seed), _crops(held.first(HELD), network, seed), random)

    def scores(self, encoder: Encoder) -> dict[str, float]:
        """The mean Dice on features of this encoder, and on those of the untrained one."""
        device = next(encoder.parameters()).device
        shown, held = self.shown.to(device), self.held.to(device)
        networks = {"probe_dice": encoder, "probe_dice_random": self.random.to(device)}
        return {name: dense_probe(network, shown, held) for name, network in networks.items()}


class Halfway(Callback):
    """Logs the probe in the middle of a training; at its end `fit` probes the weights that are kept."""

    def __init__(self, probe: Probe) -> None:
        self.probe = probe

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Looks once."""
        if trainer.current_epoch + 1 == (trainer.max_epochs or 1) // 2:
            pl_module.log_dict(self.probe.scores(pl_module.learner.encoder), on_epoch=True)


def _crops(manifest: Manifest, network: Network, seed: int) -> Crops:
    """A crop of every volume, each about a voxel of a class."""
    drawn = CropDataset(manifest, network.recipe, network.crop, labelled=True, foreground=1.0, seed=seed)
    return collate([drawn[n] for n in range(len(drawn))])
