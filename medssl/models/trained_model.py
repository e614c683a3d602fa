"""Description of a trained network: its architecture, the input it expects and the classes it predicts."""

import logging
from collections.abc import Callable
from dataclasses import replace

import torch
from pydantic import Field

from medssl import config
from medssl.data.manifest import Manifest
from medssl.data.store_metadata import StoreMetadata
from medssl.errors import BadInput
from medssl.inference.predictor import Predictor
from medssl.inference.streaming.case_stream import Prediction
from medssl.models.bundles.bundle_model import BundleModel, is_bundle
from medssl.models.prediction.interface import ModelInterface
from medssl.nn.encoder import BaseEncoderConfig, Encoder, EncoderChoice, as_command_line, build_encoder, count_patches
from medssl.nn.interop import weight_transfer
from medssl.nn.kernel_norms import compute_kernel_norms, rescale_kernels
from medssl.run import Run
from medssl.tasks.base import Task
from medssl.tasks.segment import Config as SegmentConfig
from medssl.volume import Unit, Volume

log = logging.getLogger(__name__)


class TrainedModel(ModelInterface):
    """Everything needed to rebuild a network and to prepare its input as in training; stored in run.json."""

    encoder: EncoderChoice = Field(description="architecture of the encoder")
    task: config.module_choice("medssl.tasks") = Field(  # type: ignore[valid-type]
        SegmentConfig(), description="the task network on top of the encoder; meaningless before finetuning"
    )

    @classmethod
    def for_manifest(
        cls, manifest: Manifest, encoder: BaseEncoderConfig, patch_size: tuple[int, int, int]
    ) -> "TrainedModel":
        """Returns the model to train on the cases of a store.

        Args:
            manifest: Cases with the same number of channels.
            encoder: The architecture of the encoder.
            patch_size: The size of the training crops in voxels.
        """
        metadata = StoreMetadata.read(manifest.folder)
        channels = {case.channels for case in manifest.cases}
        if len(channels) != 1:
            raise BadInput(
                f"{manifest.folder}: its cases have {sorted(channels)} channels; train on cases with the same number"
            )
        return cls(
            encoder=encoder,
            in_channels=channels.pop(),
            normalization=metadata.normalization,
            spacing_mm=metadata.spacing_mm,
            patch_size=patch_size,
            kinds=metadata.kinds,
            units=list_units(manifest),
        )

    @classmethod
    def from_run(cls, run: Run) -> "TrainedModel":
        """Reads the model of a finished run."""
        if not run.is_closed:
            raise BadInput(f"{run.path}: this run has not finished; continue it with resume=true")
        network = run.metadata.get("network")
        if network is None:
            raise BadInput(
                f"{run.path}: holds the network of a MONAI bundle, which only predicts: its encoder has no equal"
            )
        if network.get("task", {}).get("name") == "segment":
            network["task"] = {"preactivation_head": False} | network["task"]  # of runs without this key
        return config.check(network, cls, str(run.path / "run.json"))

    def build_encoder(self) -> Encoder:
        """Builds the encoder with fresh weights."""
        return build_encoder(self.encoder, self.in_channels)

    def find_input_layers(self) -> tuple[str, ...]:
        """Returns the keys of the tensors that read the input channels: those whose shape depends on their number."""
        with torch.random.fork_rng():
            first, second = (build_encoder(self.encoder, self.in_channels + n).state_dict() for n in (0, 1))
        return tuple(f"encoder.{key}" for key in first if key in second and first[key].shape != second[key].shape)

    def build_task(self) -> Task:
        """Builds the task network with fresh weights; raises BadInput if its strides do not divide the patch size."""
        encoder = self.build_encoder()
        count_patches(torch.empty(1, self.in_channels, *self.patch_size, device="meta"), encoder.patch)
        task: Task = config.class_for_config(self.task)(self.task, encoder, max(self.labels) + 1, self.patch_size)
        return task

    def warm_start(
        self,
        pretrained: Run,
        allow_normalization_mismatch: bool = False,
        channels: tuple[int, ...] = (),
        rescale_kernel_norms: bool = False,
    ) -> tuple[Task, weight_transfer.TransferReport]:
        """Builds the task network and loads all matching weights of a finished run.

        Args:
            pretrained: The run to load weights from.
            allow_normalization_mismatch: Accept weights that were trained with another intensity normalization.
            channels: The input channels of `pretrained` that the new model has, in its own order; () for all.
            rescale_kernel_norms: Rescale kernels in front of a norm to the length they have in a fresh network.

        Returns:
            The task network, and the status of every tensor.
        """
        self.require_compatible(pretrained, allow_normalization_mismatch, channels)
        task = self.build_task()
        fresh_norms = compute_kernel_norms(task.encoder) if rescale_kernel_norms else None
        layers = self.find_input_layers() if list(channels) != sorted(channels) else ()
        report = weight_transfer.load_parts(pretrained.weights, task.transferable(), channels, layers)
        if fresh_norms is not None:
            rescale_kernels(task.encoder, fresh_norms)
        return task, report

    def adopt_normalization(self, run: Run, channels: tuple[int, ...] = ()) -> "TrainedModel":
        """Returns the model with the intensity normalization of a run, if the stored voxels do not depend on it.

        A CT window and the landmarks of MR apply when voxels are read, so that scans that were ingested with others
        need no second ingestion.
        """
        stored, normalization = self.normalization, TrainedModel.from_run(run).select_channels(channels).normalization
        if normalization == stored or normalization.storage_parameters() != stored.storage_parameters():
            return self
        log.info("the intensity normalization is that of %s, not that of the store", run.path)
        return self.model_copy(update={"normalization": normalization})

    def require_compatible(
        self, run: Run, allow_normalization_mismatch: bool = False, channels: tuple[int, ...] = ()
    ) -> None:
        """Raises BadInput if a run has another encoder, input channels or intensity normalization."""
        pretrained = TrainedModel.from_run(run).select_channels(channels)
        if channels and pretrained.in_channels != self.in_channels:
            raise BadInput(
                f"channels={list(channels)}: these scans have {self.in_channels} channels; name one channel for each"
            )
        if not allow_normalization_mismatch:
            pretrained.normalization.require_same(self.normalization)
        if pretrained.encoder != self.encoder:
            raise BadInput(
                f"{run.path}: its encoder differs from the one to train; give {as_command_line(pretrained.encoder)}"
            )

    def select_channels(self, channels: tuple[int, ...]) -> "TrainedModel":
        """Returns the model for scans that have only these of its channels, in this order; () for all."""
        if not channels:
            return self
        if len(set(channels)) < len(channels) or not set(channels) <= set(range(self.in_channels)):
            last = self.in_channels - 1
            raise BadInput(f"channels={list(channels)}: the network has channels 0 to {last}; give each at most once")
        landmarks, ct_channels = self.normalization.landmarks, self.normalization.hu_channels
        normalization = self.normalization.model_copy(
            update={
                "landmarks": tuple(landmarks[c] for c in channels) if landmarks else (),
                "hu_channels": tuple(n for n, c in enumerate(channels) if c in ct_channels and len(channels) > 1),
            }
        )
        units = self.units
        if units and ct_channels:
            units = ("HU",) if set(channels) <= set(ct_channels) else ("a.u.",)
        return self.model_copy(update={"in_channels": len(channels), "normalization": normalization, "units": units})


def list_units(manifest: Manifest) -> tuple[Unit, ...]:
    """Returns the voxel units that occur in a manifest."""
    units: set[Unit] = {"HU" if case.unit == "HU" else "a.u." for case in manifest.cases}
    return tuple(sorted(units))


def default_device() -> str:
    """Returns `cuda` if a GPU is available, else `cpu`."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def require_device(name: str) -> str:
    """Returns a torch device; raises BadInput if this machine does not have it."""
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdigit()):
        raise BadInput(f"--device {name}: is not cpu, cuda or cuda:NUMBER")
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind == "cuda" and int(number or 0) >= available:
        raise BadInput(f"--device {name}: this machine has {available} usable GPUs; use --device cpu")
    return name


def build_predictor(
    run: Run, device: str = "cpu", channels: tuple[int, ...] = ()
) -> Callable[[Volume, str], Prediction]:
    """Returns a function that maps a volume and a case id to the prediction of a finished finetuning run.

    Args:
        run: A finished finetuning run.
        device: The torch device that predicts.
        channels: The network channels that the scans have, in the order of the scans; () for all.
    """
    if is_bundle(run):
        if channels:
            raise BadInput(f"{run.path}: the network of a MONAI bundle needs all its channels; leave out --channels")
        return BundleModel.from_run(run).build_predictor(run, device)
    model = TrainedModel.from_run(run).select_channels(channels)
    if not model.labels:
        raise BadInput(f"{run.path}: a pretraining run predicts no classes; give a run of `medssl finetune`")
    task = model.build_task()
    weight_transfer.load_parts(run.weights, task.transferable(), channels)
    predictor = task.eval().to(device).predictor(model.prepare, model.labels, device)
    if not isinstance(predictor, Predictor):
        return predictor
    return replace(predictor, organs=model.list_organs())


def read_interface(run: Run) -> ModelInterface:
    """Returns the inputs and the classes of a finished run, or of the imported network of a MONAI bundle."""
    return BundleModel.from_run(run) if is_bundle(run) else TrainedModel.from_run(run)


def load_trained_encoder(run: Run, device: str = "cpu") -> Encoder:
    """Returns the encoder of a finished run with its weights, in inference mode on a torch device."""
    encoder = TrainedModel.from_run(run).build_encoder()
    weight_transfer.load_parts(run.weights, {"encoder": encoder})
    return encoder.eval().to(device)
