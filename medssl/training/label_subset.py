"""Selects the labelled subset for few-label training and checks it for missing classes and patient overlap."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from medssl.data.classes import Classes
from medssl.data.manifest import Manifest
from medssl.data.selection.case_groups import LabelDomain
from medssl.data.selection.splits import select_labelled
from medssl.data.store import Store
from medssl.data.store_metadata import StoreMetadata
from medssl.errors import BadInput


@dataclass(frozen=True)
class LabelSubset:
    """The training split of a store, divided into labelled volumes and volumes that are used without their labels.

    Attributes:
        labelled: The selected labelled volumes.
        unlabelled: All other volumes of the training split with as many channels as the labelled ones.
        classes: Class names and label conventions of the store.
    """

    labelled: Manifest
    unlabelled: Manifest
    classes: Classes

    @classmethod
    def select(
        cls,
        manifest: Manifest,
        num_labelled: int | None,
        seed: int,
        class_names: Sequence[str] = (),
        domain: LabelDomain | None = None,
    ) -> "LabelSubset":
        """Selects labelled volumes of the training split; for one seed, smaller subsets are parts of larger ones.

        Args:
            manifest: Cases of a store, of all splits.
            num_labelled: Number of labelled volumes; None takes all.
            seed: Seed of the selection.
            class_names: Classes to learn, of which the others become background; () is all.
            domain: Part of the store whose labels may be selected; None is all of it.

        Raises:
            BadInput: The training split has no labelled case, or fewer than `num_labelled`, or a class is unknown.
        """
        train = manifest.in_split("train")
        candidates = (domain or LabelDomain()).select(train.with_labels())
        labelled = select_labelled(candidates, num_labelled or len(candidates.cases), seed)
        classes = Classes.from_metadata(StoreMetadata.read(manifest.folder))
        if not labelled.cases or not classes.names:
            path = manifest.folder / "manifest.csv"
            raise BadInput(f"{path}: no labelled case in split 'train'; ingest a folder with labelsTr/")
        channels = labelled.cases[0].channels
        unlabelled = (case for case in train.cases if case not in labelled.cases and case.channels == channels)
        selected = classes.select(class_names) if class_names else classes
        return cls(labelled, replace(train, cases=tuple(unlabelled)), selected)

    def check_classes(self, allow_missing_classes: bool) -> None:
        """Raises BadInput if a label has an undeclared value or, unless allowed, if no label contains some class."""
        store = Store(self.labelled)
        values_by_case = {
            case.id: {int(value) for value in store.label(case).sample_points} for case in self.labelled.cases
        }
        declared = {*self.classes.names, *self.classes.background_values, self.classes.ignore_label}
        for case_id, values in values_by_case.items():
            if values - declared:
                raise BadInput(
                    f"label of {case_id}: has classes {sorted(values - declared)}, the store declares"
                    f" {sorted(self.classes.names)}; correct the label or dataset.json, and run ingest again"
                )
        present = set().union(*values_by_case.values())
        missing = [name for n, name in self.classes.names.items() if n not in present]
        if missing and not allow_missing_classes:
            raise BadInput(
                f"none of the {len(values_by_case)} labelled volumes contains {', '.join(missing)};"
                " use more labelled volumes or another seed, or set allow_missing_classes=true"
            )

    def require_disjoint_patients(self, test: Manifest) -> None:
        """Raises BadInput if a patient of the training split is also in the test split."""
        test_case_of_patient = {case.patient: case.id for case in test.cases}
        train_cases = (*self.labelled.cases, *self.unlabelled.cases)
        shared = [(c.id, test_case_of_patient[c.patient]) for c in train_cases if c.patient in test_case_of_patient]
        if shared:
            raise BadInput(
                f"{test.folder}: {shared[0][0]} of train and {shared[0][1]} of test belong to one patient"
                f" ({len(shared)} such cases); ingest with --resplit, or set allow_overlap=true to continue"
            )
