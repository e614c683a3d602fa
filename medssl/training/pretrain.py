"""Pretraining: from unlabelled volumes and an objective to a closed run."""

from pathlib import Path

import torch
from pydantic import Field, model_validator
from torch import Tensor

from medssl import config
from medssl.data.checks import leakage as leaks
from medssl.data.crops import CropDataset
from medssl.data.manifest import Manifest
from medssl.data.transforms.augmentation import Augment
from medssl.errors import BadInput
from medssl.models.provenance import contract, data_of
from medssl.models.trained_model import Network
from medssl.nn.encoder import EncoderConfig, Named
from medssl.nn.interop import weight_transfer as transfer
from medssl.nn.interop.weight_transfer import Ledger
from medssl.objectives.base import Objective
from medssl.run import Run
from medssl.settings import Settings
from medssl.training import data_loaders as feed
from medssl.training.callbacks import plateau_checkpoint as plateau
from medssl.training.callbacks.dense_probe import Probe
from medssl.training.config import Plan
from medssl.training.trainer import fit

FREE = ("site", "modality", "sex")  # labels that a manifest may hold without anybody having labelled


class Pretrain(Settings):
    """What a pretraining is made of."""

    run: Path
    manifest: Path
    objective: config.named("medssl.objectives") = Field(  # type: ignore[valid-type]
        description="a module of medssl/objectives, whose Config tells its keys, as objective.name=spark"
    )
    split: str = "train"
    fold: int = Field(0, ge=0, description="with folds: which part of the labelled patients is not looked at")
    folds: int | None = Field(None, ge=2, description="as those of the finetunings that this pretraining is for")
    seed: int = Field(0, description="deals the folds")
    encoder: Named = EncoderConfig()
    crop: tuple[int, int, int] = (64, 64, 64)
    overlap: float | None = None
    augment: Augment | None = Field(None, description="crops are turned, bent and varied before an objective sees them")
    start_from: Path | None = Field(None, description="a finished run whose encoder this one begins with")
    continue_from: Path | None = Field(None, description="a run of plan.schedule=infinite, to go on from its plateau")
    plan: Plan = Plan()
    probe: int = Field(0, ge=0, description="labelled volumes that the frozen features are tried on; 0 leaves it out")
    resume: bool = False

    @model_validator(mode="after")
    def _one_beginning(self) -> "Pretrain":
        if self.start_from and self.continue_from:
            raise ValueError("start_from takes an encoder, continue_from a whole training: give one of them")
        if self.continue_from and self.plan.schedule != "infinite":
            raise ValueError("continue_from goes on from a plateau: give plan.schedule=infinite as well")
        return self


def pretrain(settings: Pretrain) -> Run:
    """A closed run, which a finetuning starts from."""
    manifest = Manifest.read(settings.manifest)
    if settings.folds:
        manifest = manifest.fold(settings.fold, settings.folds, settings.seed)
    pool = manifest.by(settings.split)
    network = Network.on(pool, settings.encoder, settings.crop)
    probe = Probe.of(manifest, network, settings.probe, settings.plan.seed) if settings.probe else None
    torch.manual_seed(settings.plan.seed)
    objective, before, ledger = _begun(settings, network)
    if settings.augment and not objective.turns:
        raise BadInput(f"objective {settings.objective.name} compares places, which augment would move; leave it out")
    objective.fits(torch.empty(1, network.in_channels, *settings.crop, device="meta"))
    if len(pool.cases) < settings.plan.batch:
        held = f"{settings.manifest}: split {settings.split!r} holds {len(pool.cases)} cases"
        raise BadInput(f"{held}, a batch takes {settings.plan.batch} different ones; lower plan.batch, or ingest more")
    dataset = CropDataset(
        pool, network.recipe, settings.crop, views=objective.views, overlap=settings.overlap, seed=settings.plan.seed,
        augment=settings.augment,
    )  # fmt: skip
    seen = leaks.seen_by(settings.start_from or settings.continue_from, None)
    begin = Run.resume if settings.resume else Run.create
    facts = {"manifest": pool.digest(), "network": network.model_dump(mode="json")}
    facts |= contract(objective.encoder, settings.objective.name, data_of(manifest.folder))
    run = begin(settings.run, settings, "pretrain", **facts, transfer=ledger.json() if ledger else None)
    leaks.remember(run.path, [*seen, *leaks.traces(pool)])
    crops = feed.crops(dataset, settings.plan)
    known = {name: [getattr(case, name) for case in pool.cases] for name in FREE}
    ids = [case.id for case in pool.cases]
    fit(objective, settings.plan, run, crops, cases=ids, probe=probe, before=before, known=known)
    run.close()
    return run


def _begun(settings: Pretrain, network: Network) -> tuple[Objective, dict[str, Tensor] | None, Ledger | None]:
    """The objective as it begins: fresh, on a finished encoder with a ledger, or as it stood on a plateau."""
    body, make = network.body(), config.class_for_config(settings.objective)
    path = settings.continue_from or settings.start_from
    if path is None:
        objective: Objective = make(settings.objective, body)
        if settings.plan.freeze == 1 or not any(weight.requires_grad for weight in body.parameters()):
            raise BadInput("this pretraining never moves its encoder, which is untrained; give start_from=RUN")
        return objective, None, None
    run = Run.open(path)
    network.follows(run)
    if settings.start_from:
        # Before the objective is made, which may copy its encoder.
        ledger = transfer.load(run.weights, {"encoder": body})
        return make(settings.objective, body), None, ledger
    objective, before = make(settings.objective, body), plateau.read(run)
    plateau.restore(objective, before)
    return objective, before, None
