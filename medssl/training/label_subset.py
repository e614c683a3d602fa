"""Shown: the volumes a finetuning learns from, with labels and without, and what is wrong with them."""

from dataclasses import dataclass, replace

from medssl.data.classes import Classes
from medssl.data.manifest import Manifest
from medssl.data.store import Card, Store
from medssl.errors import BadInput


@dataclass(frozen=True)
class Shown:
    """Labelled volumes of the split train, the rest of that split as if unlabelled, and what the labels mean."""

    few: Manifest
    rest: Manifest
    classes: Classes

    @classmethod
    def of(cls, manifest: Manifest, labels: int | None, seed: int) -> "Shown":
        """So many labelled volumes, drawn by the seed; None takes all."""
        train = manifest.by("train")
        labelled = train.labelled()
        few = labelled.few(labels or len(labelled.cases), seed)
        classes = Classes.of(Card.read(manifest.folder))
        if not few.cases or not classes.names:
            where = manifest.folder / "manifest.csv"
            raise BadInput(f"{where}: no labelled case in split 'train'; ingest a folder with labelsTr/")
        rest = (c for c in train.cases if c not in few.cases and c.channels == few.cases[0].channels)
        return cls(few, replace(train, cases=tuple(rest)), classes)

    def check(self, allow_absent: bool) -> None:
        """Refuses labels with values that the store does not declare, or, unless allowed, without some class."""
        store = Store(self.few)
        held = {case.id: {int(value) for value in store.label(case).points} for case in self.few.cases}
        known = {*self.classes.names, self.classes.unlabelled}
        for case, values in held.items():
            if values - known:
                said = f"holds classes {sorted(values - known)}, the store declares {sorted(self.classes.names)}"
                raise BadInput(f"label of {case}: {said}; correct the label, or dataset.json, and ingest anew")
        absent = [name for n, name in self.classes.names.items() if not any(n in values for values in held.values())]
        if absent and not allow_absent:
            said = f"{len(held)} labelled volumes hold no {', no '.join(absent)}"
            raise BadInput(f"{said}; give more labels, another seed, or allow_absent=true")

    def apart_from(self, test: Manifest) -> None:
        """Refuses patients who are tested on as well."""
        tested = {case.patient: case.id for case in test.cases}
        both = [(c.id, tested[c.patient]) for c in (*self.few.cases, *self.rest.cases) if c.patient in tested]
        if both:
            said = f"{both[0][0]} of train and {both[0][1]} of test are one patient ({len(both)} such cases)"
            raise BadInput(f"{test.folder}: {said}; ingest with --resplit, or go on with allow_overlap=true")
