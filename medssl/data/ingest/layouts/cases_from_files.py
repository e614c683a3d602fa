"""Makes cases of files whose roles are known: channels of images, labels of several qualities, and structures."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medssl.data.ingest.file_ledger import LedgerRow, rejected_rows
from medssl.data.ingest.layouts.dataset_layout import DatasetLayout, FileTree
from medssl.data.ingest.layouts.evidence import image_stem
from medssl.data.ingest.layouts.modality import parse_modality
from medssl.data.ingest.source import LabelPart, Source
from medssl.errors import Message
from medssl.io.slicer_segmentation import read_segments

ORPHAN_LABEL = Message("a label without an image of its name")


@dataclass
class CaseFiles:
    """The files of one case.

    Attributes:
        name: The case.
        patient: The patient.
        patient_from: What identifies the patient, for the terminal.
        channels: Name of each channel to its file; a single unnamed channel has an empty name.
        labels: Label files, with 0 for the preferred kind.
        structures: Name of a structure to the file that holds it alone.
        split: The split that the data set declares.
    """

    name: str
    patient: str
    patient_from: str
    channels: dict[str, Path] = field(default_factory=dict)
    labels: list[tuple[int, Path]] = field(default_factory=list)
    structures: dict[str, Path] = field(default_factory=dict)
    split: str = ""


def build_cases(
    cases: Iterable[CaseFiles],
    tree: FileTree,
    channels: Sequence[str],
    modalities: Mapping[str, str],
    are_volumes_channels: bool = False,
) -> DatasetLayout:
    """Makes a source of each case that is complete and unambiguous, and refuses the files of the others.

    Args:
        cases: The files of each case.
        tree: The folder.
        channels: The channels that every case must have, in order; empty for a single unnamed one.
        modalities: Channel to modality; the name of a channel or of the file decides otherwise.
        are_volumes_channels: Whether the volumes of a file with a fourth axis are channels; else it is refused.
    """
    layout = DatasetLayout()
    for case in cases:
        missing = [name for name in channels if name not in case.channels]
        if not case.channels:
            layout.rows.extend(rejected_rows(_label_files(case), ORPHAN_LABEL))
            continue
        if missing:
            reason = Message(
                "its case lacks the channel {missing} that others have; add the file, or name the channels that all "
                "cases have with --image",
                missing=", ".join(missing),
            )
            layout.rows.extend(rejected_rows([*case.channels.values(), *_label_files(case)], reason))
            continue
        names = tuple(channels) or tuple(sorted(case.channels))
        files = tuple(case.channels[name] for name in names)
        header = tree.header(files[0]) if len(files) == 1 and are_volumes_channels else None
        per_channel = tuple(
            modalities.get(n) or parse_modality(n) or parse_modality(image_stem(f))
            for n, f in zip(names, files, strict=True)
        ) * (header.num_volumes if header else 1)
        label, parts, rows = _choose_label(case)
        layout.rows.extend(rows)
        layout.sources.append(
            Source(
                case.name, case.patient, files, per_channel, label, label_parts=parts,
                split=case.split if label else "", patient_from=case.patient_from,
                channel_names=names if any(names) else (),
            )
        )  # fmt: skip
    return layout


def _choose_label(case: CaseFiles) -> tuple[Path | None, tuple[LabelPart, ...], list[LedgerRow]]:
    """Returns the label of a case, its structures, and rows for the label files that are not used."""
    ranks = sorted({rank for rank, _ in case.labels})
    preferred = [path for rank, path in case.labels if ranks and rank == ranks[0]]
    others = [path for rank, path in case.labels if ranks and rank != ranks[0]]
    if len(preferred) > 1 or (preferred and case.structures):
        reason = Message(
            "one of {count} labels of its image, and nothing says which counts; choose with --image and --label",
            count=len(preferred) + len(case.structures),
        )
        return None, (), rejected_rows(_label_files(case), reason)
    rows = rejected_rows(others, Message("another label of its image is used"))
    if case.structures:
        parts = tuple(LabelPart(path, name) for name, path in sorted(case.structures.items()))
        return parts[0].path, parts, rows
    if not preferred:
        return None, (), rows
    segments = read_segments(preferred[0])
    parts = tuple(LabelPart(preferred[0], s.name, s.value, s.layer) for s in segments)
    return preferred[0], parts, rows


def _label_files(case: CaseFiles) -> list[Path]:
    return [*(path for _, path in case.labels), *case.structures.values()]
