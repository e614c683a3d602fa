"""Plans an ingestion without reading voxels: what would become a case, of whom, and what is refused and why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medssl.data.ingest.config import IngestConfig
from medssl.data.ingest.dataset_layouts import discover_dataset
from medssl.data.ingest.source import Source
from medssl.io.image_headers import ImageHeader, read_header

MAX_NAMED_FILES = 3  # of those that are refused for one reason
COLUMNS = ("case", "patient", "channels", "label", "split", "expected problem")


@dataclass(frozen=True)
class IngestPlan:
    """What an ingestion would do.

    Attributes:
        cases: A row for each case, see `COLUMNS`.
        rejections: Reason to the files that are refused for it.
        notes: What the terminal shows about the files.
        num_files: Number of all files.
    """

    cases: tuple[tuple[str, ...], ...]
    rejections: dict[str, list[str]]
    notes: tuple[str, ...]
    num_files: int

    def render(self) -> str:
        """Returns the plan as a table and lines of text."""
        lines = _format_table(COLUMNS, self.cases) if self.cases else []
        num_problems = sum(bool(row[-1]) for row in self.cases)
        problems = f", {num_problems} of them probably refused" if num_problems else ""
        num_rejected = sum(map(len, self.rejections.values()))
        lines += ["", f"{len(self.cases)} cases{problems}; files: {self.num_files}, {num_rejected} refused"]
        lines += [f"  {note}" for note in self.notes]
        for reason, files in sorted(self.rejections.items(), key=lambda item: -len(item[1])):
            more = f" and {len(files) - MAX_NAMED_FILES} more" if len(files) > MAX_NAMED_FILES else ""
            lines.append(f"  refused {len(files)}: {reason}: {', '.join(files[:MAX_NAMED_FILES])}{more}")
        return "\n".join(lines).encode("utf-8", "backslashreplace").decode()


def plan_ingestion(scans: Path, config: IngestConfig) -> IngestPlan:
    """Returns what an ingestion of a folder would do, from names and headers alone.

    Args:
        scans: The folder of scans.
        config: The options of the ingestion.
    """
    layout = discover_dataset(scans, config)
    rejections: dict[str, list[str]] = {}
    for row in layout.rows:
        if row.status == "refused":
            name = Path(row.path)
            place = str(name.relative_to(scans)) if name.is_relative_to(scans) else row.path
            rejections.setdefault(row.reason, []).append(place)
    num_files = len(layout.files)
    cases = tuple(_describe(source, layout.labels) for source in layout.sources)
    return IngestPlan(cases, rejections, tuple(map(str, layout.notes)), num_files)


def _describe(source: Source, labels: Mapping[int, str]) -> tuple[str, ...]:
    """Returns the row of a case."""
    modalities = source.modalities
    if source.channel_names and len(source.channel_names) == len(modalities):
        names = [f"{c} ({m or '?'})" for c, m in zip(source.channel_names, modalities, strict=True)]
    else:
        names = [modality or "?" for modality in modalities]
    parts = ", ".join(dict.fromkeys(part.name for part in source.label_parts))
    label = f"{source.label.name}: {parts}" if source.label and parts else source.label.name if source.label else ""
    if source.whole_class is not None:
        label = labels.get(source.whole_class, "none of the classes")
    return source.id, source.patient, ", ".join(names), label, source.split, _expect_problem(source)


def _expect_problem(source: Source) -> str:
    """Returns why reading the case will fail, as far as the headers of its image files show it."""
    if source.series is not None:
        return ""
    headers = {path: read_header(path) for path in source.files if path not in source.parts}
    if damaged := [path.name for path, header in headers.items() if header is None]:
        return f"{damaged[0]}: the header cannot be used"
    first = headers[source.images[0]]
    assert first is not None
    num_volumes = len(source.modalities) if len(source.images) == 1 else 1
    if first.num_volumes != num_volumes:
        return f"{source.images[0].name}: holds {first.num_volumes} volumes"
    others = [path.name for path, header in headers.items() if not _shares_grid(header, first)]
    return f"{others[0]}: not on the grid of its image" if others else ""


def _shares_grid(header: ImageHeader | None, first: ImageHeader) -> bool:
    return header is not None and first.has_same_grid(header)


def _format_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns the rows as lines with aligned columns; columns that are empty everywhere are left out."""
    used = [n for n in range(len(columns)) if any(row[n] for row in rows)]
    table = [[columns[n] for n in used], *([row[n] for n in used] for row in rows)]
    widths = [max(len(row[n]) for row in table) for n in range(len(used))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
