"""Exports the network of a run as an ONNX file, or as a program of torch."""

import io
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medssl.errors import BadInput
from medssl.files import atomic_file, write_checksums
from medssl.inference.calibration import Calibration
from medssl.models.model_pool import list_mirror_axes
from medssl.models.portable.portable_model import INPUT, METADATA_KEY, PortableModel
from medssl.models.trained_model import TrainedModel
from medssl.nn.interop import weight_transfer
from medssl.run import Run
from medssl.tasks.base import Task
from medssl.tasks.classify import Config as ClassifyConfig
from medssl.tasks.detect import Config as DetectConfig
from medssl.tasks.detect import DetectTask
from medssl.version import __version__

ONNX_FILE, PROGRAM_FILE = "model.onnx", "model.pt2"
MAX_BATCH = 4096
EXAMPLE_BATCH = 2  # a batch of one would be taken for constant


class ExportedNetwork(nn.Module):
    """The outputs of a task for windows of one size.

    Args:
        task: The task.
        head: The head of `PortableModel`.
    """

    def __init__(self, task: Task, head: str) -> None:
        super().__init__()
        self.task, self.head = task, head

    def forward(self, image: Float[Tensor, "b c i j k"]) -> tuple[Tensor, ...]:
        """Returns class probabilities, scores and corners of boxes, or all of them, as the head has them."""
        outputs: tuple[Tensor, ...] = () if self.head == "box" else (self.task.probability(image),)
        if isinstance(self.task, DetectTask) and self.head in ("box", "both"):
            outputs += self.task.boxes(image)
        return outputs


def describe_model(run: Run) -> PortableModel:
    """Returns the metadata of a finished finetuning."""
    model = TrainedModel.from_run(run)
    if not model.labels:
        raise BadInput(f"{run.path}: a pretraining run predicts no classes; give a run of `medssl finetune`")
    is_detector, is_classifier = (isinstance(model.task, kind) for kind in (DetectConfig, ClassifyConfig))
    interface = {name: getattr(model, name) for name in PortableModel.model_fields if hasattr(model, name)}
    return PortableModel(
        **interface,
        head=model.task.head if is_detector else "voxel" if is_classifier else "segment",
        min_score=getattr(model.task, "min_score", PortableModel.model_fields["min_score"].default),
        mirror_axes=tuple(list_mirror_axes([run])),
        calibration=Calibration.load([run]).model_copy(update={"cases": ()}),
        weights_sha256=str(run.metadata["weights_sha256"]),
        version=__version__,
    )


def export_program(run: Run) -> "torch.export.ExportedProgram":
    """Returns the network of a run as a program of torch, for batches of any size.

    Raises:
        BadInput: If torch cannot export the network.
    """
    model, portable = TrainedModel.from_run(run), describe_model(run)
    task = model.build_task()
    weight_transfer.load_parts(run.weights, task.transferable())
    network = ExportedNetwork(task, portable.head).eval().requires_grad_(False)
    example = torch.zeros(EXAMPLE_BATCH, model.in_channels, *model.patch_size)
    shapes = {"image": {0: torch.export.Dim("batch", min=1, max=MAX_BATCH)}}
    try:
        with torch.no_grad(), warnings.catch_warnings(action="ignore"):
            program = torch.export.export(network, (example,), dynamic_shapes=shapes, strict=False)
    except (RuntimeError, ValueError, torch._dynamo.exc.TorchDynamoException) as error:
        raise _explain_failure(run, "torch.export", error) from None
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # holds the paths of this machine
    return program


def add_onnx_file(folder: Path, run: Run) -> None:
    """Adds the network of a run to a folder as model.onnx."""
    portable, program = describe_model(run), export_program(run)
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            exported = torch.onnx.export(
                program, input_names=[INPUT], output_names=list(portable.outputs), dynamo=True, verbose=False,
                external_data=False,
            )  # fmt: skip
    except (RuntimeError, ValueError, torch.onnx.OnnxExporterError) as error:
        raise _explain_failure(run, "ONNX", error) from None
    finally:
        logger.setLevel(level)
    if exported is None:
        raise BadInput(f"{run.path}: torch wrote no ONNX model; leave out --onnx")
    proto: Any = exported.model_proto
    for part in (*proto.graph.node, *proto.graph.value_info, *proto.functions):
        part.ClearField("metadata_props")
    proto.metadata_props.add(key=METADATA_KEY, value=portable.model_dump_json())
    _write(folder, ONNX_FILE, proto.SerializeToString())


def add_program_file(folder: Path, run: Run) -> None:
    """Adds the network of a run to a folder as model.pt2, which `torch.export.load` reads."""
    buffer = io.BytesIO()
    metadata = {METADATA_KEY: describe_model(run).model_dump_json()}
    with warnings.catch_warnings(action="ignore"):
        torch.export.save(export_program(run), buffer, extra_files=metadata)
    _write(folder, PROGRAM_FILE, buffer.getvalue())


def _write(folder: Path, name: str, content: bytes) -> None:
    with atomic_file(folder / name) as part:
        part.write_bytes(content)
    write_checksums(folder, (name,))


def _explain_failure(run: Run, what: str, error: Exception) -> BadInput:
    """Returns that a network cannot be exported, with the first line of the reason."""
    reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
    encoder = TrainedModel.from_run(run).encoder.name
    return BadInput(f"{run.path}: the encoder {encoder} cannot be exported to {what}: {reason}; leave this format out")
