"""Ingestion: turns a folder of scans into a store with a manifest, and a ledger that lists every file."""

import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medssl.data import worker_pool
from medssl.data.class_kinds import choose_kinds
from medssl.data.ingest import picture_page
from medssl.data.ingest.config import IngestConfig
from medssl.data.ingest.dataset_layouts import discover_dataset
from medssl.data.ingest.deidentification import (
    NoPseudonyms,
    Pseudonymizer,
    private_dir,
    read_real_rows,
    read_real_sources,
)
from medssl.data.ingest.file_ledger import LedgerRow
from medssl.data.ingest.layouts.dataset_layout import DatasetLayout
from medssl.data.ingest.prepare_case import (
    PrepareJob,
    PrepareResult,
    load_previous_result,
    prepare_case,
    record_killed_process,
)
from medssl.data.ingest.read_source import is_inside
from medssl.data.ingest.store_settings import fit_normalization, name_classes, update_metadata
from medssl.data.ingest.structures.attach import renumber_structures
from medssl.data.manifest import Case, Manifest
from medssl.data.selection.splits import DEFAULT_SPLIT_FRACTIONS, assign_new_patients, assign_splits, content_order
from medssl.data.store_metadata import StoreMetadata
from medssl.errors import BadInput
from medssl.files import exclusive_lock, sweep_parts, write_checksums
from medssl.io.dicom.header_memory.memory import HeaderMemory

HEADERS = "headers.json"  # beside the records of cases, and as private
NO_REASON = "its reason holds private values alone"
ProgressCallback = Callable[[int, int], None]  # called with the number of finished cases and of all cases


@dataclass(frozen=True)
class IngestSummary:
    """The result of an ingestion.

    Attributes:
        manifest: All cases of the store.
        rows: The file ledger.
        prepared: Number of cases that were prepared now.
        refused: Number of cases that were refused now.
        notes: What the terminal shows about the files, without private values in a de-identified store.
        num_labelled: Number of cases with a label among the scans.
        lost_labels: Why each case among them was refused, without private values in a de-identified store.
    """

    manifest: Manifest
    rows: tuple[LedgerRow, ...]
    prepared: int
    refused: int = 0
    notes: tuple[str, ...] = ()
    num_labelled: int = 0
    lost_labels: tuple[str, ...] = ()

    def describe(self) -> str:
        """Returns one line with the number of cases and files."""
        num_used = sum(row.status == "used" for row in self.rows)
        splits = Counter(case.split for case in self.manifest.cases)
        sizes = ", ".join(f"{name} {splits[name]}" for name in sorted(splits))
        work = f"{self.prepared} cases prepared" if self.prepared or self.refused else "nothing to do"
        work += f", {self.refused} refused" if self.refused else ""
        total = f"the store holds {len(self.manifest.cases)} ({sizes})"
        labelled = Counter(case.split for case in self.manifest.cases if case.label)
        if 0 < labelled.total() < len(self.manifest.cases):
            by_split = ", ".join(f"{name} {labelled[name]}" for name in sorted(splits))
            total += f", of which {labelled.total()} are labelled ({by_split})"
        return f"{work}; {total}; files: {num_used} used, {len(self.rows) - num_used} refused"

    def count_rejections(self) -> list[tuple[str, int]]:
        """Returns the most frequent reasons for refused files, with the number of files; numbers make no difference."""
        return _group([row.reason for row in self.rows if row.status == "refused"])

    def describe_lost_labels(self) -> str:
        """Returns how many labelled cases were refused, with the reasons by number of cases; "" if none was."""
        if not self.lost_labels:
            return ""
        reasons = "; ".join(f"{count} because: {reason}" for reason, count in _group(self.lost_labels))
        return f"{len(self.lost_labels)} of {self.num_labelled} labelled cases were refused: {reasons}"

    def count_warnings(self) -> list[tuple[str, int]]:
        """Returns the most frequent warnings, with the number of cases; those that differ by numbers count as one."""
        return _group([case.warnings for case in self.manifest.cases if case.warnings])


def _group(texts: Sequence[str]) -> list[tuple[str, int]]:
    """Returns the most frequent texts with their number; those that differ by numbers count as one."""
    kinds = [re.sub(r"-?\d[\d.e+-]*", "#", text) for text in texts]
    examples = dict(zip(reversed(kinds), reversed(texts), strict=True))
    return [(examples[kind], count) for kind, count in Counter(kinds).most_common(8)]


def ingest(scans: Path, out: Path, config: IngestConfig, on_progress: ProgressCallback) -> IngestSummary:
    """Prepares every case under a folder for a store; cases that an earlier run has prepared are kept.

    Args:
        scans: The folder of scans.
        out: The folder of the store; new, empty, or a store that the cases are added to.
        config: The options.
        on_progress: Called with the number of finished cases and of all cases.
    """
    scans, out = Path(os.path.normpath(scans.absolute())), out.absolute()  # as in dataset.json, without `..`
    if scans == out or scans in out.parents:
        raise BadInput(f"{out}: lies inside the scans; choose a folder outside {scans}")
    pseudonymizer = _make_pseudonymizer(out, config)
    memory_file = pseudonymizer.records.with_name(HEADERS)
    memory = HeaderMemory.read(memory_file)
    layout = discover_dataset(scans, config, memory)
    is_new = is_new_store(out)
    had_private_dir = private_dir(out).exists()
    out.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(out, "another ingestion is writing here; wait until it ends or use another --out"):
        sweep_parts(out)
        try:
            pseudonymizer.open_store(is_new, "" if is_new else StoreMetadata.read(out).key_fingerprint)
            memory.write(memory_file, scans)
            return _update_store(scans, layout, memory, pseudonymizer, config, on_progress)
        except BadInput:
            if is_new:
                shutil.rmtree(out)
            if is_new and not had_private_dir:
                shutil.rmtree(private_dir(out), ignore_errors=True)
            raise


def is_new_store(out: Path) -> bool:
    """Returns whether a folder of a store has yet to be created.

    Raises:
        BadInput: The folder holds something else.
    """
    is_new = not (out / "store.json").exists()
    if is_new and out.exists() and any(not p.name.startswith(".") for p in out.iterdir()):
        raise BadInput(f"{out}: exists and is not a store; choose an empty folder or a new name")
    return is_new


def _make_pseudonymizer(out: Path, config: IngestConfig) -> NoPseudonyms:
    if not config.deidentify:
        return NoPseudonyms(out)
    key_file = config.pseudonym_key.absolute() if config.pseudonym_key else private_dir(out) / "key"
    return Pseudonymizer(out, key_file, config.hide_names, config.patients is not None)


def _update_store(
    scans: Path, real_layout: DatasetLayout, memory: HeaderMemory, pseudonymizer: NoPseudonyms,
    config: IngestConfig, on_progress: ProgressCallback,
) -> IngestSummary:  # fmt: skip
    """Adds the cases of one folder to the store, or updates them."""
    out = pseudonymizer.store
    earlier = _read_cases(out)
    locations = read_real_sources(earlier, out)
    others = [case for case in earlier if not is_inside(locations[case.id], scans)]
    stored_labels = StoreMetadata.read(out).labels if (out / "store.json").exists() else {}
    layout = renumber_structures(pseudonymizer.rename(real_layout, {case.id for case in others}), stored_labels)
    _require_cases(scans, layout)
    metadata = update_metadata(out, layout, pseudonymizer.key_fingerprint, config)
    records, key_file = pseudonymizer.records, pseudonymizer.key_file
    jobs = [
        PrepareJob(
            source, out, metadata.normalization, metadata.spacing_mm, records, key_file, memory.select(source.images)
        )
        for source in layout.sources
    ]
    results, new_results = _prepare_all(jobs, config, on_progress)
    cases = [result.case for result in results if result.case]
    if not cases:
        reason = results[0].rows[0].public_reason
        raise BadInput(f"{scans}: none of its {len(jobs)} cases can be used; the first: {reason}")
    assigned = _assign_splits(others, cases, earlier, metadata, config)
    manifest = Manifest(tuple(sorted(assigned, key=content_order)), out)
    if not (out / "manifest.csv").exists():
        normalization = fit_normalization(manifest, metadata.normalization, config)
        metadata = metadata.model_copy(update={"normalization": normalization})
    metadata = name_classes(metadata, layout.sources, cases, out)
    metadata = metadata.model_copy(update={"kinds": choose_kinds(metadata, manifest, config.kinds)})
    descriptions = _read_descriptions(out)
    metadata.write(out)
    rows = read_real_rows(out, scans) + [row for result in results for row in result.rows] + layout.rows
    locations |= {source.id: source.real_location for source in layout.sources}
    public_rows = pseudonymizer.write_ledger(rows, {case.id: locations[case.id] for case in manifest.cases})
    manifest.write(out / "manifest.csv")
    write_checksums(out, ("store.json", "ledger.csv", "manifest.csv"))
    if new_results or descriptions != _read_descriptions(out) or not (out / picture_page.NAME).exists():
        picture_page.write(manifest, metadata)
    notes = tuple(str(note.public if config.deidentify else note) for note in layout.notes)
    labelled = [r for job, r in zip(jobs, results, strict=True) if job.source.has_label]
    lost = [row for r in labelled if not (r.case and r.case.label) for row in r.rows[:1]]
    reasons = tuple((row.public_reason if config.deidentify else row.reason) or NO_REASON for row in lost)
    num_prepared = sum(result.case is not None for result in new_results)
    num_refused = len(new_results) - num_prepared
    return IngestSummary(manifest, public_rows, num_prepared, num_refused, notes, len(labelled), reasons)


def _read_cases(out: Path) -> Sequence[Case]:
    return Manifest.read(out / "manifest.csv").cases if (out / "manifest.csv").exists() else ()


def _read_descriptions(out: Path) -> list[bytes]:
    """Returns the files that the picture page of a store follows from, as far as they exist."""
    paths = (out / "store.json", out / "manifest.csv")
    return [path.read_bytes() for path in paths if path.exists()]


def _require_cases(scans: Path, layout: DatasetLayout) -> None:
    if not layout.sources:
        counts = Counter(row.public_reason for row in layout.rows if row.status == "refused").most_common(1)
        reason = f" ({counts[0][1]} files: {counts[0][0]})" if counts else ""
        raise BadInput(f"{scans}: holds no scan{reason}; give a folder with DICOM, NIfTI, NRRD or MHA files")


def _prepare_all(
    jobs: list[PrepareJob], config: IngestConfig, on_progress: ProgressCallback
) -> tuple[list[PrepareResult], list[PrepareResult]]:
    """Returns the result of each job, in order, and those of the jobs that had no earlier result."""
    results = {job.source.id: result for job in jobs if (result := load_previous_result(job))}
    todo = [job for job in jobs if job.source.id not in results]
    for job in todo[:1]:
        for folder in (job.out / "images", job.out / "labels", job.records):
            folder.mkdir(parents=True, exist_ok=True)
    on_progress(len(results), len(jobs))
    run_jobs = worker_pool.make_job_runner(config.num_workers, config.scheduler)
    for job, result in run_jobs(todo, prepare_case, record_killed_process):
        results[job.source.id] = result
        on_progress(len(results), len(jobs))
    return [results[job.source.id] for job in jobs], [results[job.source.id] for job in todo]


def _assign_splits(
    others: Sequence[Case],
    cases: Sequence[Case],
    earlier: Sequence[Case],
    metadata: StoreMetadata,
    config: IngestConfig,
) -> list[Case]:
    """Returns all cases with their split.

    A patient keeps the split that the store has, or else gets the one that the data set declares (test, if several).
    All others are assigned by the fractions, but not to split test if the data set declares one.
    """
    declared = [c for c in cases if c.split and not config.split_fractions]
    split_of = {c.patient: c.split for c in sorted(declared, key=lambda c: c.split == "test")}
    split_of |= {c.patient: c.split for c in earlier}
    if config.resplit:
        split_of, earlier = {}, ()
    everyone = [*others, *cases]
    unassigned = tuple(c for c in everyone if c.patient not in split_of)
    fractions = metadata.split_fractions or DEFAULT_SPLIT_FRACTIONS
    if "test" in split_of.values() and not config.resplit and not metadata.split_fractions and declared:
        fractions = {name: fraction for name, fraction in fractions.items() if name != "test"}
    if earlier:
        split_of |= assign_new_patients(earlier, unassigned, fractions, metadata.seed)
    else:
        assigned = assign_splits(Manifest(unassigned, Path()), fractions, metadata.seed).cases
        split_of |= {c.patient: c.split for c in assigned}
    return [replace(c, split=split_of[c.patient]) for c in everyone]
