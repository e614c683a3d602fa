"""Methods by which a finetuning learns from unlabelled volumes, behind one interface."""

import logging
from dataclasses import dataclass

from medssl.data.classes import Classes
from medssl.data.manifest import Manifest
from medssl.errors import BadInput
from medssl.run import Run
from medssl.tasks.base import Task
from medssl.tasks.segment import SegmentTask
from medssl.training.config import TrainConfig
from medssl.training.label_subset import LabelSubset
from medssl.training.semi_supervised.config import SemiSupervisedConfig
from medssl.training.semi_supervised.label_propagation import MIN_SIMILARITY, LabelPropagation
from medssl.training.semi_supervised.mean_teacher import MeanTeacher

log = logging.getLogger(__name__)
MIN_AGREEMENT = 0.5  # Dice of propagated and annotated labels below which a warning is logged


@dataclass(frozen=True)
class ExtraVolumes:
    """Volumes to train on in addition to the labelled ones.

    Attributes:
        manifest: The volumes.
        classes: Classes of their propagated labels; None if the volumes are used without labels.
    """

    manifest: Manifest
    classes: Classes | None = None


class SupervisedMethod:
    """Learns from the labelled volumes only; the contract of the semi-supervised methods.

    Attributes:
        learner: Task to train.
        train_config: Settings to train it with.
    """

    def __init__(self, task: Task, config: TrainConfig) -> None:
        self.learner, self.train_config = task, config

    def extra_volumes(self, run: Run) -> ExtraVolumes | None:
        """Returns the volumes to train on in addition to the labelled ones; may write files into the run."""
        return None


class TeacherMethod(SupervisedMethod):
    """Learns from unlabelled volumes through a mean teacher, which replaces the average of `train.ema_decay`."""

    def __init__(
        self, task: SegmentTask, config: TrainConfig, semi_supervised: SemiSupervisedConfig, unlabelled: Manifest
    ) -> None:
        super().__init__(MeanTeacher(task, semi_supervised, config), config.model_copy(update={"ema_decay": 0.0}))
        self.unlabelled = unlabelled

    def extra_volumes(self, run: Run) -> ExtraVolumes:
        """Returns the unlabelled volumes."""
        return ExtraVolumes(self.unlabelled)


class PropagationMethod(SupervisedMethod):
    """Learns from unlabelled volumes with labels that an atlas transfers from the labelled volumes."""

    def __init__(self, task: Task, config: TrainConfig, propagation: LabelPropagation) -> None:
        super().__init__(task, config)
        self.propagation = propagation

    def extra_volumes(self, run: Run) -> ExtraVolumes:
        """Writes the propagated labels and previews of them into the run, and warns if they agree badly."""
        propagated = self.propagation.write(run.path / "propagated")
        propagated.write_previews(run.path / "previews")
        count, agreement, folder = len(propagated.manifest.cases), propagated.agreement, propagated.manifest.folder
        similarity = self.propagation.measure_similarity()
        run.update_metadata(
            propagated={
                "cases": count,
                "agreement": None if agreement is None else round(agreement, 4),
                "similarity": round(similarity, 4),
            }
        )
        log.info("propagated labels to %d scans; check them in %s", count, folder)
        if agreement is not None and agreement < MIN_AGREEMENT:
            log.warning(
                "%s: labels that are propagated between the labelled volumes agree with the annotation by a Dice of"
                " only %.2f; check the previews, and that all scans show the same region",
                folder, agreement,
            )  # fmt: skip
        if agreement is None and similarity < MIN_SIMILARITY:
            log.warning(
                "%s: around its structures, the labelled volume correlates with the scans that it is warped onto by"
                " only %.2f; check the previews, and that all scans show the same region",
                folder, similarity,
            )  # fmt: skip
        return ExtraVolumes(propagated.manifest, propagated.classes)


def prepare(
    semi_supervised: SemiSupervisedConfig, subset: LabelSubset, task: Task, config: TrainConfig
) -> SupervisedMethod:
    """Returns the configured method for a task.

    Args:
        semi_supervised: Method and its settings.
        subset: Labelled and unlabelled volumes.
        task: Task to train; it must be a segmentation for every method but `none`.
        config: Settings of the training.

    Raises:
        BadInput: The task is no segmentation, there are no unlabelled volumes, or the atlas does not fit them.
    """
    method = semi_supervised.method
    if method == "none":
        return SupervisedMethod(task, config)
    if not isinstance(task, SegmentTask):
        raise BadInput(f"semi_supervised={method}: only available for task=segment; give semi_supervised=none")
    if not subset.unlabelled.cases:
        raise BadInput(
            f"{subset.unlabelled.folder}: split train has no cases besides the labelled ones; ingest unlabelled scans,"
            f" lower num_labelled, or give semi_supervised=none instead of {method}"
        )
    if semi_supervised.atlas:
        propagation = LabelPropagation(semi_supervised.atlas, subset.labelled, subset.unlabelled)
        return PropagationMethod(task, config, propagation)
    return TeacherMethod(task, config, semi_supervised, subset.unlabelled)
