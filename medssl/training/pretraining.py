"""Pretraining: from unlabelled volumes and an objective to a closed run."""

from pathlib import Path

import torch
from pydantic import Field

from medssl import config
from medssl.data import leaks
from medssl.data.crops import CropDataset
from medssl.data.manifest import Manifest
from medssl.nn.encoder import EncoderConfig, Named
from medssl.run import Run
from medssl.settings import Settings
from medssl.training import feed
from medssl.training.fit import fit
from medssl.training.network import Network
from medssl.training.plan import Plan
from medssl.training.probe import Probe


class Pretrain(Settings):
    """What a pretraining is made of."""

    run: Path
    manifest: Path
    objective: config.named("medssl.objectives")  # type: ignore[valid-type]
    split: str = "train"
    encoder: Named = EncoderConfig()
    crop: tuple[int, int, int] = (64, 64, 64)
    overlap: float | None = None
    plan: Plan = Plan()
    probe: int = Field(0, ge=0, description="labelled volumes that the frozen features are tried on; 0 leaves it out")
    resume: bool = False


def pretrain(settings: Pretrain) -> Run:
    """A closed run, which a finetuning starts from."""
    manifest = Manifest.read(settings.manifest)
    pool = manifest.by(settings.split)
    network = Network.on(pool, settings.encoder, settings.crop)
    probe = Probe.of(manifest, network, settings.probe, settings.plan.seed) if settings.probe else None
    torch.manual_seed(settings.plan.seed)
    objective = config.maker(settings.objective)(settings.objective, network.body())
    dataset = CropDataset(
        pool, network.recipe, settings.crop, views=objective.views, overlap=settings.overlap, seed=settings.plan.seed
    )
    begin = Run.resume if settings.resume else Run.create
    run = begin(settings.run, settings, "pretrain", manifest=pool.digest(), network=network.model_dump(mode="json"))
    leaks.remember(run.path, leaks.traces(pool))
    crops = feed.crops(dataset, settings.plan)
    fit(objective, settings.plan, run, crops, cases=[c.id for c in pool.cases], probe=probe)
    run.close()
    return run
