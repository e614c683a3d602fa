"""Cards: what a data set is, filled from its store and from a few facts that only people know.

After Gebru et al., Datasheets for Datasets, 2021, https://doi.org/10.1145/3458723.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import unified_diff
from pathlib import Path
from string import Template

import numpy as np
from matplotlib.figure import Figure

from medssl import config
from medssl.data.ingest import file_ledger as ledger
from medssl.data.manifest import Case, Manifest
from medssl.data.store import Card, Store
from medssl.errors import BadInput
from medssl.files import atomic, write_text
from medssl.home import home
from medssl.settings import Settings
from medssl.volume import Spacing, Volume

UNTOLD = "not told"
TINTS = ("#0e7490", "#b45309", "#6d28d9")
AXES = ("right to left", "back to front", "feet to head")


class Facts(Settings):
    """What a store cannot tell of a data set."""

    title: str = "A data set"
    what: str = UNTOLD
    source: str = UNTOLD
    licence: str = UNTOLD
    cite: tuple[str, ...] = ()
    processing: str = UNTOLD
    problems: tuple[str, ...] = ()
    use: str = UNTOLD
    command: str = "medssl data-card STORE --facts FACTS.yaml"

    @classmethod
    def read(cls, path: Path | None) -> "Facts":
        """From a YAML file; without one nothing is told."""
        return config.read(path, [], cls) if path else cls()


@dataclass(frozen=True)
class Scan:
    """A case as the scanner saw it, along the patient's axes, and how much of each class its label holds."""

    case: Case
    spacing_mm: Spacing
    shape: tuple[int, int, int]
    volumes_ml: dict[int, float]


@dataclass(frozen=True)
class Facets:
    """All that is counted of a store."""

    folder: Path
    manifest: Manifest
    card: Card
    scans: tuple[Scan, ...]

    @classmethod
    def of(cls, folder: Path) -> "Facets":
        """Reads the manifest, the head of every image, and every label."""
        manifest = Manifest.read(folder / "manifest.csv")
        if not manifest.cases:
            raise BadInput(f"{folder}: holds no case; ingest some")
        store = Store(manifest)
        return cls(folder, manifest, Card.read(folder), tuple(_scan(case, store) for case in manifest.cases))


def write(store: Path, facts: Facts, out: Path) -> None:
    """Writes a card, and its picture beside it."""
    facets = Facets.of(store)
    _draw(facets, out.with_suffix(".png"))
    write_text(out, text(facets, facts, out.with_suffix(".png").name))


def faults(store: Path, facts: Facts, path: Path) -> list[str]:
    """The lines in which a card differs from its store; none where it is right."""
    if not path.is_file():
        raise BadInput(f"{path}: no card; leave out --check to write it")
    right = text(Facets.of(store), facts, path.with_suffix(".png").name)
    lines = unified_diff(path.read_text(encoding="utf-8").splitlines(), right.splitlines(), "card", "store", n=0)
    return [line for line in lines if line[0] in "+-" and line[:3] not in ("+++", "---")]


def text(facets: Facets, facts: Facts, picture: str) -> str:
    """The template, filled."""
    template = Template((home() / "data_cards" / "TEMPLATE.md").read_text(encoding="utf-8"))
    told = facts.model_dump() | {"cite": _listed(facts.cite), "problems": _listed((*facts.problems, *_doubts(facets)))}
    return template.substitute(told, table=_table(facets), labels=_labels(facets), picture=picture)


def _scan(case: Case, store: Store) -> Scan:
    about = store.image(case).about()
    i, j, k = about["shape"]
    empty = Volume(np.broadcast_to(np.int8(0), (i, j, k)), np.array(about["affine"], float), "label").oriented("RAS")
    volumes = {}
    if case.label:
        label = store.label(case)
        voxel_ml = abs(float(np.linalg.det(label.affine[:3, :3]))) / 1000
        counts = np.bincount(label.array[:].ravel())
        volumes = {n: float(counts[n]) * voxel_ml for n in range(1, len(counts)) if counts[n]}
    return Scan(case, empty.spacing_mm(), empty.shape, volumes)


def _table(facets: Facets) -> str:
    cases = facets.manifest.cases
    files = Counter(row.status for row in ledger.read(facets.folder / "ledger.csv"))
    ages = {c.patient: c.age_years for c in cases if c.age_years is not None}
    sexes = {c.patient: "not recorded" for c in cases} | {c.patient: c.sex for c in cases if c.sex}
    stored = facets.card.spacing_mm
    rows = {
        "cases": f"{len(cases)}, {sum(case.label is not None for case in cases)} of them labelled",
        "patients": str(len(sexes)),
        "files": f"{files['used']} used, {files['refused']} refused",
        "splits: patients (cases)": _splits(cases),
        "modality": _counted(f"{c.modality} in {c.unit}, channels: {c.channels}" for c in cases),
        "scanner or site": _counted(c.site or "not recorded" for c in cases),
        "age": _ages(list(ages.values()), len(sexes)),
        "sex": _counted(sexes.values()),
        "spacing (mm)": _axes([scan.spacing_mm for scan in facets.scans]),
        "voxels": _axes([scan.shape for scan in facets.scans]),
        "stored at (mm)": " x ".join(f"{v:g}" for v in stored) if stored else "its own spacing",
        "split hash": f"`{facets.manifest.split_digest()[:16]}`",
        "manifest digest": f"`{facets.manifest.digest()[:16]}`",
    }
    return "\n".join(f"| {name} | {value} |" for name, value in rows.items())


def _splits(cases: Sequence[Case]) -> str:
    of = {name: [c for c in cases if c.split == name] for name in dict.fromkeys(c.split for c in cases)}
    order = sorted(of, key=lambda name: -len(of[name]))
    return ", ".join(f"{name} {len({c.patient for c in of[name]})} ({len(of[name])})" for name in order)


def _counted(values: Iterable[str]) -> str:
    return ", ".join(f"{value} ({count})" for value, count in sorted(Counter(values).items()))


def _ages(years: Sequence[float], patients: int) -> str:
    return f"{_spread(years)} years, of {len(years)} of {patients} patients" if years else "not recorded"


def _axes(values: Sequence[Sequence[float]]) -> str:
    columns = zip(AXES, zip(*values, strict=True), strict=True)
    return "; ".join(f"{axis} {_spread(column)}" for axis, column in columns)


def _spread(values: Sequence[float]) -> str:
    low, middle, high = (f"{v:.4g}" for v in (min(values), float(np.median(values)), max(values)))
    return low if low == high else f"{middle} ({low} to {high})"


def _labels(facets: Facets) -> str:
    seen = {n for scan in facets.scans for n in scan.volumes_ml}
    if not seen | set(facets.card.labels):
        return "None."
    rows = ["| class | name | cases with it | volume (ml): median (lowest to highest) |", "|---|---|---|---|"]
    for number in sorted(seen | set(facets.card.labels)):
        volumes = [scan.volumes_ml[number] for scan in facets.scans if number in scan.volumes_ml]
        name = facets.card.labels.get(number, UNTOLD)
        rows.append(f"| {number} | {name} | {len(volumes)} | {_spread(volumes) if volumes else 'none'} |")
    if facets.card.present_labels:
        rows.append(f"\nOf {len(facets.card.present_labels)} cases it is told which classes were drawn at all.")
    return "\n".join(rows)


def _doubts(facets: Facets) -> list[str]:
    doubted = sum(bool(case.doubts) for case in facets.manifest.cases)
    return [f"{doubted} cases were read with a doubt, which manifest.csv tells."] if doubted else []


def _listed(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines) or UNTOLD


def _draw(facets: Facets, path: Path) -> None:
    """Histograms of the scanners' spacing and shape along the patient's axes, and the volume of each class."""
    figure = Figure(figsize=(10, 3), layout="constrained")
    spacing, shape, volume = figure.subplots(1, 3)
    spacing.hist(list(zip(*(scan.spacing_mm for scan in facets.scans), strict=True)), 12, color=TINTS, label=AXES)
    shape.hist(list(zip(*(scan.shape for scan in facets.scans), strict=True)), 12, color=TINTS, label=AXES)
    spacing.legend(fontsize=7, frameon=False)
    classes = {n: [s.volumes_ml[n] for s in facets.scans if n in s.volumes_ml] for n in facets.card.labels}
    if classes:
        volume.boxplot(list(classes.values()), orientation="horizontal", tick_labels=list(facets.card.labels.values()))
        volume.set_xscale("log")
        volume.invert_yaxis()
    for axes, title in ((spacing, "cases by spacing (mm)"), (shape, "cases by voxels"), (volume, "volume (ml)")):
        axes.set_title(title, fontsize=10)
        axes.tick_params(labelsize=8)
    with atomic(path) as part:
        figure.savefig(part, dpi=100, metadata={"Software": None})
