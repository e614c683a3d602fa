"""Data cards: describe a data set with numbers from its store, and with facts that only people know.

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
from pydantic import Field

from medssl import config
from medssl.data.ingest.file_ledger import read_ledger
from medssl.data.manifest import Case, Manifest
from medssl.data.store import Store
from medssl.data.store_metadata import StoreMetadata
from medssl.errors import BadInput
from medssl.files import atomic_file, write_text
from medssl.home import resources_dir
from medssl.settings import Settings
from medssl.volume import Spacing, Volume

NOT_STATED = "not stated"
COLORS = ("#0e7490", "#b45309", "#6d28d9")
AXES = ("right to left", "back to front", "feet to head")


class DataCardFacts(Settings):
    """Facts about a data set that its store does not hold."""

    title: str = Field("A data set", description="title of the card")
    what: str = Field(NOT_STATED, description="what was scanned and labelled")
    source: str = Field(NOT_STATED, description="who published the data set, and where")
    licence: str = Field(NOT_STATED, description="licence of the images and labels")
    cite: tuple[str, ...] = Field((), description="references to cite")
    processing: str = Field(NOT_STATED, description="processing before the ingestion")
    problems: tuple[str, ...] = Field((), description="known problems")
    use: str = Field(NOT_STATED, description="intended use")
    command: str = Field(
        "medssl data-card STORE --facts FACTS.yaml", description="command that reproduces the numbers of the card"
    )

    @classmethod
    def read(cls, path: Path | None) -> "DataCardFacts":
        """Reads the facts from a YAML file; without one nothing is stated."""
        return config.read(path, [], cls) if path else cls()


@dataclass(frozen=True)
class CaseMeasurements:
    """The size of a case on the scanner's grid along the axes R, A and S, and the volume of each class in ml."""

    case: Case
    spacing_mm: Spacing
    shape: tuple[int, int, int]
    volumes_ml: dict[int, float]


@dataclass(frozen=True)
class StoreSummary:
    """The contents of a store from which a card is written."""

    folder: Path
    manifest: Manifest
    metadata: StoreMetadata
    scans: tuple[CaseMeasurements, ...]

    @classmethod
    def from_store(cls, folder: Path) -> "StoreSummary":
        """Reads the manifest, the metadata of every image, and every label."""
        manifest = Manifest.read(folder / "manifest.csv")
        if not manifest.cases:
            raise BadInput(f"{folder}: holds no case; ingest some")
        store = Store(manifest)
        scans = tuple(_measure_case(case, store) for case in manifest.cases)
        return cls(folder, manifest, StoreMetadata.read(folder), scans)


def write_card(store: Path, facts: DataCardFacts, out: Path) -> None:
    """Writes a card, and its figure as a PNG file next to it."""
    summary = StoreSummary.from_store(store)
    _draw_histograms(summary, out.with_suffix(".png"))
    write_text(out, render_card(summary, facts, out.with_suffix(".png").name))


def find_differences(store: Path, facts: DataCardFacts, path: Path) -> list[str]:
    """Returns the lines that differ between a card and its store, in the format of a diff."""
    if not path.is_file():
        raise BadInput(f"{path}: no card; omit --check to write it")
    expected = render_card(StoreSummary.from_store(store), facts, path.with_suffix(".png").name)
    lines = unified_diff(path.read_text(encoding="utf-8").splitlines(), expected.splitlines(), "card", "store", n=0)
    return [line for line in lines if line[0] in "+-" and line[:3] not in ("+++", "---")]


def render_card(summary: StoreSummary, facts: DataCardFacts, figure: str) -> str:
    """Returns the text of a card; `figure` is the name of its image file."""
    template = Template((resources_dir() / "data_cards" / "TEMPLATE.md").read_text(encoding="utf-8"))
    problems = _format_list((*facts.problems, *_list_warnings(summary)))
    values = facts.model_dump() | {"cite": _format_list(facts.cite), "problems": problems}
    return template.substitute(values, table=_format_table(summary), labels=_format_labels(summary), picture=figure)


def _measure_case(case: Case, store: Store) -> CaseMeasurements:
    provenance = store.image(case).provenance()
    i, j, k = provenance["shape"]
    affine = np.array(provenance["affine"], float)
    grid = Volume(np.broadcast_to(np.int8(0), (i, j, k)), affine, "label").reorient("RAS")
    volumes = {}
    if case.label:
        label = store.label(case)
        voxel_ml = abs(float(np.linalg.det(label.affine[:3, :3]))) / 1000
        counts = np.bincount(label.array[:].ravel())
        volumes = {n: float(counts[n]) * voxel_ml for n in range(1, len(counts)) if counts[n]}
    return CaseMeasurements(case, grid.spacing_mm(), grid.shape, volumes)


def _format_table(summary: StoreSummary) -> str:
    cases = summary.manifest.cases
    files = Counter(row.status for row in read_ledger(summary.folder / "ledger.csv"))
    ages = {c.patient: c.age_years for c in cases if c.age_years is not None}
    sexes = {c.patient: "not recorded" for c in cases} | {c.patient: c.sex for c in cases if c.sex}
    spacing = summary.metadata.spacing_mm
    rows = {
        "cases": f"{len(cases)}, {sum(case.label is not None for case in cases)} of them labelled",
        "patients": str(len(sexes)),
        "files": f"{files['used']} used, {files['refused']} refused",
        "splits: patients (cases)": _format_splits(cases),
        "modality": _format_counts(f"{c.modality} in {c.unit}, channels: {c.channels}" for c in cases),
        "scanner or site": _format_counts(c.site or "not recorded" for c in cases),
        "age": _format_ages(list(ages.values()), len(sexes)),
        "sex": _format_counts(sexes.values()),
        "spacing (mm)": _format_axes([scan.spacing_mm for scan in summary.scans]),
        "voxels": _format_axes([scan.shape for scan in summary.scans]),
        "stored at (mm)": " x ".join(f"{v:g}" for v in spacing) if spacing else "its own spacing",
        "split hash": f"`{summary.manifest.split_digest()[:16]}`",
        "manifest digest": f"`{summary.manifest.digest()[:16]}`",
    }
    return "\n".join(f"| {name} | {value} |" for name, value in rows.items())


def _format_splits(cases: Sequence[Case]) -> str:
    splits = {name: [c for c in cases if c.split == name] for name in dict.fromkeys(c.split for c in cases)}
    largest_first = sorted(splits.items(), key=lambda item: -len(item[1]))
    return ", ".join(f"{name} {len({c.patient for c in members})} ({len(members)})" for name, members in largest_first)


def _format_counts(values: Iterable[str]) -> str:
    return ", ".join(f"{value} ({count})" for value, count in sorted(Counter(values).items()))


def _format_ages(years: Sequence[float], num_patients: int) -> str:
    return f"{_format_range(years)} years, of {len(years)} of {num_patients} patients" if years else "not recorded"


def _format_axes(values: Sequence[Sequence[float]]) -> str:
    columns = zip(AXES, zip(*values, strict=True), strict=True)
    return "; ".join(f"{axis} {_format_range(column)}" for axis, column in columns)


def _format_range(values: Sequence[float]) -> str:
    """Returns the median with the lowest and the highest value."""
    low, median, high = (f"{v:.4g}" for v in (min(values), float(np.median(values)), max(values)))
    return low if low == high else f"{median} ({low} to {high})"


def _format_labels(summary: StoreSummary) -> str:
    names = summary.metadata.labels
    numbers = sorted({n for scan in summary.scans for n in scan.volumes_ml} | set(names))
    if not numbers:
        return "None."
    rows = ["| class | name | cases with it | volume (ml): median (lowest to highest) |", "|---|---|---|---|"]
    for number in numbers:
        volumes = [scan.volumes_ml[number] for scan in summary.scans if number in scan.volumes_ml]
        volume = _format_range(volumes) if volumes else "none"
        rows.append(f"| {number} | {names.get(number, NOT_STATED)} | {len(volumes)} | {volume} |")
    if summary.metadata.present_labels:
        rows.append(f"\nFor {len(summary.metadata.present_labels)} cases the data set states which classes were drawn.")
    return "\n".join(rows)


def _list_warnings(summary: StoreSummary) -> list[str]:
    count = sum(bool(case.warnings) for case in summary.manifest.cases)
    return [f"{count} cases were read with a warning, which manifest.csv records."] if count else []


def _format_list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines) or NOT_STATED


def _draw_histograms(summary: StoreSummary, path: Path) -> None:
    """Draws histograms of the scanners' spacing and shape along the patient's axes, and the volume of each class."""
    figure = Figure(figsize=(10, 3), layout="constrained")
    spacing, shape, volume = figure.subplots(1, 3)
    spacing.hist(list(zip(*(scan.spacing_mm for scan in summary.scans), strict=True)), 12, color=COLORS, label=AXES)
    shape.hist(list(zip(*(scan.shape for scan in summary.scans), strict=True)), 12, color=COLORS, label=AXES)
    spacing.legend(fontsize=7, frameon=False)
    labels = summary.metadata.labels
    volumes = {n: [s.volumes_ml[n] for s in summary.scans if n in s.volumes_ml] for n in labels}
    if volumes:
        volume.boxplot(list(volumes.values()), orientation="horizontal", tick_labels=list(labels.values()))
        volume.set_xscale("log")
        volume.invert_yaxis()
    for axes, title in ((spacing, "cases by spacing (mm)"), (shape, "cases by voxels"), (volume, "volume (ml)")):
        axes.set_title(title, fontsize=10)
        axes.tick_params(labelsize=8)
    with atomic_file(path) as part:
        figure.savefig(part, dpi=100, metadata={"Software": None})
