"""Chooses the settings of a training for a store and a budget."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod

from medssl.nn.encoder import EncoderConfig
from medssl.planning import evidence, settings_check
from medssl.planning.dataset_fingerprint import DatasetFingerprint, format_triple
from medssl.planning.network_cost import NetworkCost, estimate_cost
from medssl.planning.network_geometry import (
    THICK_SLICE_RATIO,
    NetworkGeometry,
    choose_cube,
    choose_geometry,
    choose_spacing,
    padding_fraction,
)
from medssl.planning.training_plan import Choice, ConfigPlan, Purpose

WIDTHS = (32, 24, 16, 8)
DEFAULT_VOXELS, DEFAULT_WIDTH = 64**3, 16  # as in a config that chooses neither
MAX_VOXELS = 256**3  # of a crop, as in nnU-Net's planner
SMALL_VOXELS = 48**3  # of a crop, or the median scan if that is smaller: below it, channels are given up instead
SMALL_SLACK = 0.5  # of SMALL_VOXELS: a width that does not fit even such a crop is not tried
MIN_BATCH, MAX_BATCH = 2, 8
MAX_BATCH_FRACTION = 0.05  # of all voxels of the data set, as in nnU-Net's planner
MIN_STEPS, ENOUGH_STEPS, MAX_STEPS, STEPS_PER_EPOCH = 1000, 4000, 20_000, 50
USED_FRACTION = 0.85  # of the time; the rest is for validation, previews and checkpoints
LR_TIMES_WIDTH = 0.032  # 4e-3 at 8 channels, which docs/few-labels-trials.md found, and 1e-3 at 32
LONG_STEPS = 5000  # from which the learning rate is halved


@dataclass(frozen=True)
class Budget:
    """What a training may use.

    Attributes:
        hours: Hours of training; None: the size of the network is that of the defaults.
        memory_gb: GB of memory of the process, or of the GPU.
        flops_per_s: Arithmetic of the machine, from `measure_speed` or from timed steps.
        memory_scale: Measured memory, relative to the estimated one.
    """

    hours: float | None
    memory_gb: float
    flops_per_s: float
    memory_scale: float = 1.0

    def max_step_seconds(self, steps: int) -> float:
        """Returns the seconds of a step with which a number of steps fits into the time."""
        return float("inf") if self.hours is None else USED_FRACTION * 3600 * self.hours / steps


def plan_training(fingerprint: DatasetFingerprint, purpose: Purpose, budget: Budget) -> ConfigPlan:
    """Returns the settings of a training for a store.

    Crop, strides and kernels follow nnU-Net's planner, Isensee et al. (2021),
    https://doi.org/10.1038/s41592-020-01008-z. It differs in the budget: besides memory, enough steps have to
    fit into the time, and channels are given up before crops become smaller than SMALL_VOXELS.

    Args:
        fingerprint: What the store holds.
        purpose: Whether a pretraining or a finetuning is planned.
        budget: Time, memory and speed of the machine.
    """
    in_channels = fingerprint.train.cases[0].channels
    count = fingerprint.num_labelled if purpose == "finetune" else len(fingerprint.train.cases)
    needed_steps = _count_needed_steps(count)
    max_step_s = budget.max_step_seconds(needed_steps)
    geometry, width = _choose_network(fingerprint, in_channels, budget, max_step_s)
    cost = estimate_cost(_encoder_config(geometry, width), in_channels, geometry.patch_size)
    batch_size, batch_reason = _choose_batch(fingerprint, geometry, cost, budget, max_step_s)
    steps, steps_reason = _choose_steps(budget.hours, cost.step_seconds(batch_size, budget.flops_per_s))
    advice = evidence.advise(evidence.read_table(), next(iter(fingerprint.modalities)), fingerprint.num_labelled)
    start = _choose_objective(advice, purpose)
    thick = max(fingerprint.spacing_mm) >= THICK_SLICE_RATIO * min(fingerprint.spacing_mm)
    choices = [
        *start,
        Choice("patch_size", list(geometry.patch_size), _explain_patch(fingerprint, geometry, thick)),
        Choice("encoder.channels", list(geometry.channels(width)), _explain_width(width, cost, batch_size, budget)),
        Choice("encoder.strides", _as_lists(geometry.strides), "halve the axes with the shortest voxels first"),
        Choice("encoder.kernels", _as_lists(geometry.kernels), _explain_kernels(geometry)),
        *(_choose_augmentation(fingerprint, thick) if purpose == "finetune" else ()),
        Choice("train.batch_size", batch_size, batch_reason),
        Choice("train.epochs", steps // STEPS_PER_EPOCH, steps_reason),
        Choice("train.steps_per_epoch", STEPS_PER_EPOCH, "an epoch is only the interval between reports"),
        _choose_lr(width, steps),
    ]  # fmt: skip
    if purpose == "finetune":
        choices.append(Choice("train.ema_decay", 0.99, "averaged weights vary less from step to step"))
        choices.append(Choice("few_label_preset", True, "stronger augmentation, only with 16 labels or fewer"))
    warnings = [
        *settings_check.describe_mixed_grids(fingerprint.shapes, fingerprint.spacing_mm),
        *_describe_spacing(fingerprint),
    ]
    return ConfigPlan(
        purpose, tuple(fingerprint.describe()), tuple(choices), tuple(warnings), cost, batch_size, steps, needed_steps
    )


def fit_steps(plan: ConfigPlan, hours: float, step_seconds: float) -> ConfigPlan:
    """Returns a plan with as many steps as fit into the time at a measured duration of a step."""
    steps, reason = _choose_steps(hours, step_seconds)
    width = plan.settings()["encoder"]["channels"][0]
    epochs = Choice("train.epochs", steps // STEPS_PER_EPOCH, reason)
    length = {choice.key: choice for choice in (epochs, _choose_lr(width, steps))}
    return replace(plan, choices=tuple(length.get(choice.key, choice) for choice in plan.choices), steps=steps)


def correct_budget(budget: Budget, plan: ConfigPlan, step_seconds: float, memory_gb: float) -> Budget:
    """Returns the budget with the speed and the memory that timed steps of a plan showed.

    Args:
        budget: The budget of the plan.
        plan: The plan of which steps were timed.
        step_seconds: Measured seconds of a step.
        memory_gb: Measured peak memory in GB.
    """
    estimated = plan.cost.step_seconds(plan.batch_size, budget.flops_per_s)
    scale = memory_gb / plan.cost.memory_gb(plan.batch_size)
    return replace(budget, flops_per_s=budget.flops_per_s * estimated / step_seconds, memory_scale=scale)


def _count_needed_steps(num_volumes: int) -> int:
    """Returns the steps that show each volume often enough, within limits."""
    steps = settings_check.MIN_CROPS_PER_VOLUME * num_volumes // MIN_BATCH
    return min(ENOUGH_STEPS, max(MIN_STEPS, steps))


def _choose_network(
    fingerprint: DatasetFingerprint, in_channels: int, budget: Budget, max_step_s: float
) -> tuple[NetworkGeometry, int]:
    """Returns the widest network with crops that are not small; the narrowest with small ones, if none fits."""
    if budget.hours is None:
        return choose_cube(fingerprint.spacing_mm, fingerprint.median_shape, DEFAULT_VOXELS), DEFAULT_WIDTH
    small = min(prod(fingerprint.median_shape), SMALL_VOXELS)

    smallest = choose_cube(fingerprint.spacing_mm, fingerprint.median_shape, SMALL_SLACK * small)

    def fits(geometry: NetworkGeometry, width: int) -> bool:
        cost = estimate_cost(_encoder_config(geometry, width), in_channels, geometry.patch_size)
        is_small = budget.memory_scale * cost.memory_gb(MIN_BATCH) <= budget.memory_gb
        return is_small and cost.step_seconds(MIN_BATCH, budget.flops_per_s) <= max_step_s

    for width in filter(lambda width: fits(smallest, width), WIDTHS):
        geometry = choose_geometry(
            fingerprint.spacing_mm, fingerprint.median_shape, MAX_VOXELS, partial(fits, width=width)
        )
        if geometry is not None and prod(geometry.patch_size) >= small:
            return geometry, width
    return choose_cube(fingerprint.spacing_mm, fingerprint.median_shape, small), WIDTHS[-1]


def _encoder_config(geometry: NetworkGeometry, width: int) -> EncoderConfig:
    return EncoderConfig(channels=geometry.channels(width), strides=geometry.strides, kernels=geometry.kernels)


def _choose_batch(
    fingerprint: DatasetFingerprint, geometry: NetworkGeometry, cost: NetworkCost, budget: Budget, max_step_s: float
) -> tuple[int, str]:
    voxels = fingerprint.shapes.prod(1).sum()
    limits = {
        f"{MAX_BATCH_FRACTION:.0%} of all voxels": int(MAX_BATCH_FRACTION * voxels / prod(geometry.patch_size)),
        "the number of volumes": len(fingerprint.train.cases),
        "the largest that a plan takes": MAX_BATCH,
    }
    batch = MIN_BATCH
    while (
        batch < min(limits.values())
        and budget.memory_scale * cost.memory_gb(batch + 1) <= budget.memory_gb
        and cost.step_seconds(batch + 1, budget.flops_per_s) <= max_step_s
    ):
        batch += 1
    reason = next((name for name, limit in limits.items() if batch == limit), "the memory or the time of the budget")
    return batch, f"limited by {reason}"


def _choose_steps(hours: float | None, step_seconds: float) -> tuple[int, str]:
    """Returns the steps that fit into the time, in whole epochs, and why."""
    if hours is None:
        return MIN_STEPS, "the shortest training that a plan takes"
    fitting = int(USED_FRACTION * 3600 * hours / step_seconds / STEPS_PER_EPOCH) * STEPS_PER_EPOCH
    steps = min(MAX_STEPS, max(STEPS_PER_EPOCH, fitting))
    if steps == MAX_STEPS:
        return steps, f"{MAX_STEPS} steps, fewer than fit into {hours:g} h at {step_seconds:.3g} s a step"
    return steps, f"{steps} steps: {USED_FRACTION:.0%} of {hours:g} h at {step_seconds:.3g} s a step"


def _choose_lr(width: int, steps: int) -> Choice:
    lr = float(f"{LR_TIMES_WIDTH / width / (2 if steps > LONG_STEPS else 1):.2g}")
    halved = ", halved for a long training" if steps > LONG_STEPS else ""
    return Choice("train.lr", lr, f"{LR_TIMES_WIDTH:g} / {width} channels of the finest level{halved}")


def _choose_objective(advice: evidence.Advice, purpose: Purpose) -> list[Choice]:
    """Returns what to start from, with the rows of the project's tables that decide it."""
    rows = "; ".join(row.describe() for row in advice.reasons)
    longer = next((row for row in advice.reasons if row.arm == evidence.LONGER), None)
    is_longer_better = longer is not None and longer.difference >= advice.reasons[0].difference
    instead = "more steps from scratch are better here" if is_longer_better else "its gain is not shown here"
    if purpose == "pretrain":
        none = "" if advice.objective else f"spark comes next, but none is advised: {instead}. "
        return [Choice("objective", advice.objective or "spark", f"{none}docs/benchmarks.md: {rows}")]
    if advice.objective:
        reason = f"docs/benchmarks.md: {rows}; pretrain with `medssl plan --for pretrain` first and give pretrained=RUN"
    else:
        reason = f"none: {instead}. docs/benchmarks.md: {rows}"
    if advice.propagate:
        reason += f". If all scans show one region: `medssl atlas`, {advice.propagate.describe()}"
    return [Choice("pretrained", None, reason)]


def _choose_augmentation(fingerprint: DatasetFingerprint, thick: bool) -> list[Choice]:
    """Returns mirrors and turns that leave the anatomy plausible."""
    if fingerprint.classes and all(size.kind == "lesion" for size in fingerprint.classes):
        flip, reason = [True, True, True], "lesions look alike when mirrored"
    elif fingerprint.has_left_right_pairs:
        flip, reason = [True, False, False], "left and right classes are exchanged; no body is upside down"
    else:
        flip, reason = [False, False, False], "organs have a side, and all scans of a store are oriented alike"
    turn = "degrees about the axis across thick slices only" if thick else "degrees about each axis"
    return [
        Choice("augment.flip", flip, reason),
        Choice("augment.rotate_deg", 15.0, f"{turn}; rotation, scale and deformation act in mm"),
    ]


def _explain_patch(fingerprint: DatasetFingerprint, geometry: NetworkGeometry, thick: bool) -> str:
    sides = [round(n * mm) for n, mm in zip(geometry.patch_size, fingerprint.spacing_mm, strict=True)]
    padding = padding_fraction(geometry.patch_size, fingerprint.shapes)
    slices = "; slices are thick, so the crop is short across them" if thick else ""
    return (
        f"{format_triple(sides)} mm at {format_triple(fingerprint.spacing_mm)} mm; the median scan has"
        f" {format_triple(fingerprint.median_shape)} voxels; {padding:.0%} of a crop is padding{slices}"
    )


def _explain_width(width: int, cost: NetworkCost, batch_size: int, budget: Budget) -> str:
    memory = budget.memory_scale * cost.memory_gb(batch_size)
    wider = "the widest that a plan takes" if width == WIDTHS[0] else "a wider network would need smaller crops"
    size = f"{cost.parameters / 1e6:.1f} M parameters, {memory:.1f} of {budget.memory_gb:g} GB"
    return f"{width} at the finest level: {wider}; {size}"


def _explain_kernels(geometry: NetworkGeometry) -> str:
    flat = [kernel for kernel in geometry.kernels if 1 in kernel]
    return f"{format_triple(flat[0])} where slices are thick" if flat else "voxels are about as long along all axes"


def _describe_spacing(fingerprint: DatasetFingerprint) -> list[str]:
    """Returns a warning if nnU-Net would resample the scans to a clearly different spacing."""
    advised = choose_spacing(fingerprint.scan_spacings_mm, fingerprint.scan_shapes)
    ratio = [a / b for a, b in zip(advised, fingerprint.spacing_mm, strict=True)]
    if all(0.8 < r < 1.25 for r in ratio):
        return []
    rounded = ",".join(f"{value:.3g}" for value in advised)
    return [f"nnU-Net's rule would resample these scans to {rounded} mm; ingest with --spacing {rounded} to follow it"]


def _as_lists(triples: Sequence[Sequence[int]]) -> list[list[int]]:
    return [list(triple) for triple in triples]
