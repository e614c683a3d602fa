"""Ingestion: a folder of scans becomes a store, a manifest, and a ledger that accounts for every file."""

import os
import shutil
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from medssl.data import normalization_fit as fitted
from medssl.data import worker_pool as pool
from medssl.data.ingest import dataset_layouts as layouts
from medssl.data.ingest import prepare_case as prepare
from medssl.data.ingest.dataset_layouts import Layout
from medssl.data.ingest.deidentification import Open, Veil, private, real_rows, real_sources
from medssl.data.ingest.file_ledger import Row
from medssl.data.ingest.prepare_case import Job, Outcome, dead, work
from medssl.data.ingest.read_source import read_image, source_text, within
from medssl.data.ingest.source import Source, pseudonym
from medssl.data.manifest import Case, Manifest
from medssl.data.normalization import Recipe
from medssl.data.splits import joined
from medssl.data.store import Card
from medssl.errors import BadInput
from medssl.files import alone, seal
from medssl.settings import Settings
from medssl.volume import Spacing

SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}
PROBES = 32  # cases whose spacing is looked at for the median
Watch = Callable[[int, int], None]  # told how many cases are done, of how many


class Options(Settings):
    """How to ingest."""

    spacing_mm: Literal["auto", "native"] | Spacing = "auto"
    modality: Literal["", "CT", "MR"] = ""
    window_hu: Literal["auto"] | tuple[float, float] | None = None
    recipe: Literal["auto"] | Path | None = None
    workers: int = Field(2, ge=0)
    shares: dict[str, Annotated[float, Field(ge=0)]] | None = Field(None, min_length=1)
    seed: int | None = None
    resplit: bool = False
    patients: Path | None = None
    allow_gaps: bool = False
    scheduler: str | None = None
    deidentify: bool = True
    hide_names: bool = False
    key: Path | None = None

    @model_validator(mode="after")
    def _some(self) -> "Options":
        if self.shares is not None and not sum(self.shares.values()):
            raise ValueError("shares: all are 0; give one of them more")
        if self.recipe is not None and self.window_hu is not None:
            raise ValueError("recipe: holds a window too; give one of recipe and window_hu")
        return self


@dataclass(frozen=True)
class Summary:
    """What an ingestion did."""

    manifest: Manifest
    rows: tuple[Row, ...]
    prepared: int

    def line(self) -> str:
        """One sentence for the person who waited."""
        used = sum(row.status == "used" for row in self.rows)
        splits = Counter(case.split for case in self.manifest.cases)
        parts = ", ".join(f"{name} {splits[name]}" for name in sorted(splits))
        did = f"{self.prepared} cases prepared" if self.prepared else "nothing to do"
        holds = f"the store holds {len(self.manifest.cases)} ({parts})"
        return f"{did}; {holds}; files: {used} used, {len(self.rows) - used} refused"

    def reasons(self) -> list[tuple[str, int]]:
        """Why files were refused, the most frequent reasons first."""
        return Counter(row.reason for row in self.rows if row.status == "refused").most_common(8)


def ingest(scans: Path, out: Path, options: Options, watch: Watch) -> Summary:
    """Prepares every case under `scans` into the store `out`; what an earlier run did is kept."""
    scans, out = Path(os.path.normpath(scans.absolute())), out.absolute()  # no `..`, as in what a dataset.json lists
    if scans == out or scans in out.parents:
        raise BadInput(f"{out}: lies inside the scans; choose a folder outside {scans}")
    found = layouts.find(scans, options.modality, options.patients, options.allow_gaps)
    veil = _veil(out, options)
    _check_found(scans, found, veil)
    fresh = not (out / "store.json").exists()
    if fresh and out.exists() and any(not p.name.startswith(".") for p in out.iterdir()):
        raise BadInput(f"{out}: exists and is no store; choose an empty folder or a new name")
    known = private(out).exists()
    out.mkdir(parents=True, exist_ok=True)
    with alone(out, "another ingestion is writing here; wait for its end or use another --out"):
        for part in out.rglob(".part-*"):  # a killed run left it half-written
            part.unlink()
        try:
            veil.begin(fresh, "" if fresh else Card.read(out).key)
            return _fill(scans, found, veil, options, watch)
        except BadInput:
            if fresh:
                shutil.rmtree(out)
            if fresh and not known:
                shutil.rmtree(private(out), ignore_errors=True)
            raise


def _veil(out: Path, options: Options) -> Open:
    if not options.deidentify:
        return Open(out)
    key = options.key.absolute() if options.key else private(out) / "key"
    return Veil(out, key, options.hide_names, options.patients is not None)


def _check_found(scans: Path, found: Layout, veil: Open) -> None:
    if not found.sources:
        reasons = Counter(r.reason for r in found.rows if r.status == "refused").most_common(1)
        why = f" ({reasons[0][1]} files: {veil.said(reasons[0][0])})" if reasons else ""
        raise BadInput(f"{scans}: holds no scan{why}; give a folder with DICOM, NIfTI, NRRD or MHA files")


def _fill(scans: Path, read: Layout, veil: Open, options: Options, watch: Watch) -> Summary:
    """The store with the cases of one folder added, or brought up to date."""
    out, found = veil.store, veil.over(read)
    _check_found(scans, found, veil)
    card = _card(found, veil, options)
    places = real_sources(_earlier(out), out)
    kept = [c for c in _earlier(out) if not within(places[c.id], scans)]
    sources = _renamed(found.sources, kept, veil)
    places |= {s.id: source_text(s) for s in sources}
    jobs = [Job(s, out, card.recipe, card.spacing_mm, veil.where(places[s.id]), veil) for s in sources]
    outcomes, prepared = _outcomes(jobs, pool.runner(options.workers, options.scheduler), watch)
    cases = [replace(o.case, doubts=veil.said(o.case.doubts)) for o in outcomes if o.case]
    if not cases:
        why = veil.said(outcomes[0].rows[0].reason)
        raise BadInput(f"{scans}: none of its {len(jobs)} cases can be used; the first: {why}")
    manifest = Manifest(tuple(sorted(_split(kept, cases, _earlier(out), card, options), key=lambda c: c.id)), out)
    if not (out / "manifest.csv").exists():
        card = card.model_copy(update={"recipe": _fitted(manifest, card.recipe, options)})
    card.write(out)
    rows = [r for r in real_rows(out) if not Path(r.path).is_relative_to(scans)]
    rows += [row for outcome in outcomes for row in outcome.rows] + found.rows
    told = veil.write(rows, {c.id: places[c.id] for c in manifest.cases})
    manifest.write(out / "manifest.csv")
    seal(out, ("store.json", "ledger.csv", "manifest.csv"))
    return Summary(manifest, told, prepared)


def _card(found: Layout, veil: Open, options: Options) -> Card:
    """What holds for the store: an existing card rules, and what contradicts it is refused."""
    out, hu = veil.store, _hu_channels(found.sources, options)
    if not (out / "store.json").exists():
        recipe = _recipe(options, Recipe(hu_channels=hu))
        spacing, shares = _spacing(found.sources, options.spacing_mm), options.shares or {}
        Card(recipe=recipe, spacing_mm=spacing, shares=shares, seed=options.seed or 0, key=veil.mark).write(out)
    card = Card.read(out)
    shares = card.shares if options.shares is None else options.shares
    seed = card.seed if options.seed is None else options.seed
    if (shares, seed) != (card.shares, card.seed) and not options.resplit:
        was = f"shares {card.shares or SHARES}, seed {card.seed}"
        raise BadInput(f"{out}: was split with {was}; --resplit draws the split anew, another --out keeps both")
    recipe = _recipe(options, card.recipe)
    asked = {"auto": card.spacing_mm, "native": None}.get(str(options.spacing_mm), options.spacing_mm)
    for name, here, told in (
        ("spacing in mm", card.spacing_mm, asked),
        ("window in HU", card.recipe.window_hu, recipe.window_hu),
        ("recipe", card.recipe, recipe),
        ("list of CT channels", card.recipe.hu_channels, hu or card.recipe.hu_channels),
        ("classes", card.labels | found.labels, found.labels | card.labels),
        ("regions", card.regions | found.regions, found.regions | card.regions),
    ):
        if here != told:
            raise BadInput(f"{out}: its {name} is {here}, asked is {told}; use another --out")
    classes = {"labels": card.labels | found.labels, "present_labels": card.present_labels | found.present}
    classes["regions"] = card.regions | found.regions
    return card.model_copy(update=classes | {"shares": shares, "seed": seed})


def _recipe(options: Options, otherwise: Recipe) -> Recipe:
    """The recipe asked for; one that is fitted to its scans comes once they are prepared."""
    if isinstance(options.recipe, Path):
        return fitted.taken(options.recipe)
    window = {"window_hu": options.window_hu} if isinstance(options.window_hu, tuple) else {}
    return otherwise.model_copy(update=window)


def _fitted(manifest: Manifest, recipe: Recipe, options: Options) -> Recipe:
    """The recipe of a new store, fitted to its scans where that was asked for."""
    if options.recipe == "auto":
        return fitted.fitted(manifest, recipe)
    return fitted.windowed(manifest, recipe) if options.window_hu == "auto" else recipe


def _hu_channels(sources: Sequence[Source], options: Options) -> tuple[int, ...]:
    """Which channels are CT where channels are mixed; all cases with channels must agree on it."""
    kinds = {s.modalities for s in sources if len(set(s.modalities)) > 1}
    if len(kinds) > 1:
        raise BadInput(f"cases with channels {sorted(kinds)}; ingest each kind into a store of its own")
    found = tuple(i for kind in kinds for i, modality in enumerate(kind) if modality == "CT")
    if options.window_hu == "auto" and found:
        raise BadInput("--window-hu auto: CT among other channels is windowed when it is prepared; give LOW,HIGH")
    return found


def _spacing(sources: Sequence[Source], asked: str | Spacing) -> Spacing | None:
    """The spacing of a new store; `auto` is the median along each axis of some of its cases."""
    if not isinstance(asked, str):
        return asked
    if asked == "native":
        return None
    seen: list[Spacing] = []
    for source in sources[:: -(-len(sources) // PROBES)]:
        with suppress(Exception), warnings.catch_warnings(action="ignore"):  # its own turn comes, with reason and doubt
            seen.append(read_image(source)[0].oriented("RAS").spacing_mm())
    if not seen:
        return None
    i, j, k = (round(float(v), 3) for v in np.median(seen, axis=0))
    return i, j, k


def _outcomes(jobs: list[Job], runner: pool.Runner, watch: Watch) -> tuple[list[Outcome], int]:
    """What became of each case, in the order of the jobs, and how many were done now."""
    done = {job.source.id: past for job in jobs if (past := prepare.recorded(job))}
    todo = [job for job in jobs if job.source.id not in done]
    for job in todo[:1]:
        for part in (job.out / "images", job.out / "labels", job.record.parent):
            part.mkdir(parents=True, exist_ok=True)
    watch(len(done), len(jobs))
    for job, outcome in runner(todo, work, dead):
        done[job.source.id] = outcome
        watch(len(done), len(jobs))
    return [done[job.source.id] for job in jobs], len(todo)


def _earlier(out: Path) -> tuple[Case, ...]:
    return Manifest.read(out / "manifest.csv").cases if (out / "manifest.csv").exists() else ()


def _renamed(sources: Sequence[Source], kept: Sequence[Case], veil: Open) -> list[Source]:
    """Sources whose names are not those of cases from other folders."""
    taken = {case.id for case in kept}
    return [replace(s, id=f"{s.id}-{pseudonym(veil.where(str(s.images[0])))}") if s.id in taken else s for s in sources]


def _split(
    kept: Sequence[Case], cases: Sequence[Case], earlier: Sequence[Case], card: Card, options: Options
) -> list[Case]:
    """All cases with their split: what the patient has already, then what the data set declares, then the shares."""
    known = {c.patient: c.split for c in cases if c.split and not options.shares}
    known |= {c.patient: c.split for c in earlier}
    if options.resplit:
        known, earlier = {}, ()
    everyone = [*kept, *cases]
    drawn = tuple(c for c in everyone if c.patient not in known)
    shares = card.shares or SHARES
    if earlier:
        split = known | joined(earlier, drawn, shares, card.seed)
    else:
        split = known | {c.patient: c.split for c in Manifest(drawn, Path()).split(shares, card.seed).cases}
    return [replace(c, split=split[c.patient]) for c in everyone]
