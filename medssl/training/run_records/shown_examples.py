"""Shows other examples to the network of an in-context segmentation, which then segments their classes untrained."""

from pathlib import Path
from typing import Any

from pydantic import Field, PositiveInt

from medssl.data.checks import leakage
from medssl.data.crops import collate
from medssl.data.manifest import Manifest
from medssl.data.pools.crop_dataset import CropDataset
from medssl.errors import BadInput
from medssl.models.provenance import list_weight_licences
from medssl.models.trained_model import TrainedModel
from medssl.nn.interop import weight_transfer
from medssl.run import Run
from medssl.settings import Settings
from medssl.tasks.in_context import InContextTask
from medssl.training.label_subset import LabelSubset


class ShowConfig(Settings):
    """Settings of `medssl show-examples`."""

    source: Path = Field(description="a finished run of task=in_context")
    manifest: Path = Field(description="manifest.csv of the store with the examples, in split train")
    run: Path = Field(description="the run to write: a folder that does not exist yet")
    num_labelled: PositiveInt | None = Field(None, description="number of labelled volumes to use; null uses all")
    seed: int = Field(0, description="seed of the selection of volumes and of the places of the crops")


def show_examples(settings: ShowConfig) -> Run:
    """Writes a finished run with the network of another one and with crops of labelled volumes as its examples.

    Crops are placed around voxels of a class; their number is that of `task.num_examples` of the source.

    Raises:
        BadInput: The source is no in-context segmentation, or the store does not fit it or has no labels.
    """
    source = Run.open(settings.source)
    trained = TrainedModel.from_run(source)
    if trained.task.name != "in_context":
        raise BadInput(f"{source.path}: task={trained.task.name} follows no examples; give a run of task=in_context")
    manifest = Manifest.read(settings.manifest)
    subset = LabelSubset.select(manifest, settings.num_labelled, settings.seed)
    subset.check_classes(allow_missing_classes=False)
    spec = _describe_model(trained, source, subset)
    task = spec.build_task()
    assert isinstance(task, InContextTask)
    parts = task.transferable()
    weight_transfer.load_parts(source.weights, {name: part for name, part in parts.items() if name != "examples"})
    dataset = CropDataset(
        subset.labelled, spec.normalization, spec.patch_size, labelled=True, foreground_fraction=1.0,
        seed=settings.seed, classes=subset.classes,
    )  # fmt: skip
    task.eval()
    for number in range(task.config.num_examples):
        task.add_examples(collate([dataset[number]]))
    traces = leakage.read_seen_cases(source.path, manifest.in_split("test"))
    run = Run.create(settings.run, settings, "examples", **_describe(spec, source, subset))
    weight_transfer.save_parts(parts, run.path / "weights.safetensors")
    leakage.write_traces(run.path, [*traces, *leakage.trace_cases(subset.labelled)])
    run.close()
    return run


def _describe_model(trained: TrainedModel, source: Run, subset: LabelSubset) -> TrainedModel:
    """Returns the model of the source for the classes of the examples; raises BadInput if the store does not fit."""
    spec = TrainedModel.for_manifest(subset.labelled, trained.encoder, trained.patch_size)
    spec = spec.model_copy(update={"task": trained.task, "labels": dict(subset.classes.names)})
    spec = spec.adopt_normalization(source)
    spec.require_compatible(source)
    if trained.spacing_mm not in (None, spec.spacing_mm):
        spacing = ",".join(f"{mm:g}" for mm in trained.spacing_mm)
        raise BadInput(
            f"{subset.labelled.folder}: its voxels have another spacing than those that {source.path} was trained on;"
            f" ingest the examples again with --spacing {spacing}"
        )
    return spec.model_copy(update={"spacing_mm": trained.spacing_mm})


def _describe(spec: TrainedModel, source: Run, subset: LabelSubset) -> dict[str, Any]:
    """Returns the metadata of the run."""
    metadata = source.metadata
    return {
        "network": spec.model_dump(mode="json"),
        "manifest": subset.labelled.digest(),
        "cases": [case.id for case in subset.labelled.cases],
        "start": metadata["kind"],
        "start_sha256": metadata["weights_sha256"],
        "start_licences": list_weight_licences(source),
    }
