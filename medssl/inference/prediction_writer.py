"""Writes a predictions folder: at every moment it holds whole cases and an index of them."""

import logging
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from medssl import __version__
from medssl.data.ingest.read_source import Scan
from medssl.data.ingest.safe_messages import known
from medssl.errors import BadInput
from medssl.files import PART, ready, seal, write_json
from medssl.inference import patient_scores as patients
from medssl.inference.predictor import Prediction
from medssl.io import nifti
from medssl.predictions_folder import (
    FINDINGS,
    IMAGE,
    INDEX,
    LABELS,
    PROBABILITY,
    UNCERTAINTY,
    Index,
    Label,
    Study,
    read_index,
)
from medssl.render.planes import Colour, colour_of
from medssl.volume import Volume

BEGUN = ("labels", "uncertainty", "temperature", "thresholds", "promise", "calibrated_on")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Writer:
    """Adds cases to a new predictions folder, which comes into being with its first case."""

    index: Index

    @classmethod
    def create(cls, folder: Path | str, names: Mapping[int, str], model: Mapping[str, Any], **more: Any) -> "Writer":
        """A folder that does not exist yet; `model` is what made the predictions: run, weights_sha256.

        `more` are later fields of the index, from uncertainty to options.
        """
        folder = Path(folder)
        ready(folder)
        if (folder / INDEX).is_file() and (missing := read_index(folder).missing):
            raise BadInput(f"{folder}: {len(missing)} cases are missing there; add --resume, or choose another --out")
        if folder.exists():
            raise BadInput(f"{folder}: exists already; choose another --out, or remove it")
        made = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(Index(folder, (), {}, labels(names), {"version": __version__} | dict(model), made, **more))

    @classmethod
    def resume(cls, folder: Path | str, names: Mapping[int, str], model: Mapping[str, Any], **more: Any) -> "Writer":
        """The folder as it was left, which must have been begun the same way; a new one if there is none."""
        if not Path(folder).exists():
            return cls.create(folder, names, model, **more)
        then = read_index(folder)
        now = replace(then, labels=labels(names), model={"version": __version__} | dict(model), **more)
        apart = [name for name in BEGUN if getattr(then, name) != getattr(now, name)]
        apart += ["model"] * (_placeless(then.model) != _placeless(now.model))
        apart += [
            f"--{key}" for key in {**then.options, **now.options} if then.options.get(key) != now.options.get(key)
        ]
        if apart:
            raise BadInput(f"{folder}: was begun with another {', '.join(apart)}; choose another --out")
        removed = [case for case in then.unread if case not in now.asked]
        asked = [case for case in dict.fromkeys([*then.asked, *now.asked]) if case not in removed]
        return cls(replace(then, asked=asked, unread={c: why for c, why in then.unread.items() if c not in removed}))

    def add(self, case: str, image: Volume, prediction: Prediction, study: Study | None = None) -> "Writer":
        """The writer with one case more, and whose it is; a killed program leaves the folder as it was before."""
        if not re.fullmatch(r"[\w][\w.\-]*", case) or case in (*self.index.cases, INDEX):
            raise BadInput(f"{case!r} cannot name a folder of predictions (letters, digits, . _ -; each name once)")
        folder = self.index.folder
        self._require_alone()
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=PART) as part:
            _write_case(Path(part) / case, image, prediction)
            if not folder.exists():
                folder.mkdir()
                _write_index(self.index)
            if (folder / case).exists():  # a program was killed before it could write that it is whole
                shutil.rmtree(folder / case)
            (Path(part) / case).replace(folder / case)
        index = replace(self.index, cases=(*self.index.cases, case), units=self.index.units | {case: image.unit},
                        studies=self.index.studies | {case: study or Study()},
                        unread={name: why for name, why in self.index.unread.items() if name != case})  # fmt: skip
        _write_index(index)
        seal(folder, (INDEX, *sorted(f"{case}/{path.name}" for path in (folder / case).iterdir())))
        return Writer(index)

    def without(self, case: str, why: str) -> "Writer":
        """The writer that knows why a case could not be predicted, as far as readers of the folder may know."""
        told = known(why, "nobody wrote down why, as it may name somebody; predict again with --resume to see")
        index = replace(self.index, unread=self.index.unread | {case: told})
        return self._told(index)

    def _told(self, index: Index) -> "Writer":
        """The writer of this index, which is written down where the folder is there already."""
        if index.cases:
            self._require_alone()
            _write_index(index)
            seal(index.folder, (INDEX,))
        return Writer(index)

    def _require_alone(self) -> None:
        """Refuses to write over what another process has written meanwhile."""
        folder = self.index.folder
        if (folder / INDEX).is_file() and read_index(folder).cases != self.index.cases:
            raise BadInput(f"{folder}: another process writes there; wait for its end, and go on with --resume")

    def fill(self, scans: Sequence[Scan], say: Callable[[Volume, str], Prediction], dated: bool = False) -> "Writer":
        """The writer with all scans that are not there yet, watched on stderr, and patients.csv beside them.

        Of a scan that cannot be read or predicted the index keeps why, and the others go on; BadInput then says so at
        the end. With `dated` the dates of studies are written.
        """
        whose, left = studies(scans, dated), dict[str, str]()
        writer = self._told(replace(self.index, studies=_retold(self.index, whose)))
        todo = [scan for scan in scans if scan.case not in self.index.cases]
        for scan in track(todo, "predicting", console=Console(stderr=True)):
            try:
                image = scan.read()
                said = say(image, scan.case)
            except (BadInput, OSError) as error:
                left[scan.case] = " ".join(str(error).split()).removeprefix(f"{scan.case}: ")
                writer = writer.without(scan.case, left[scan.case])
                if len(todo) > 1:
                    log.warning("%s: left out: %s", scan.case, left[scan.case])
            else:
                writer = writer.add(scan.case, image, said, whose[scan.case])
        if writer.index.cases:
            patients.write(writer.index)
        writer.require_whole(left)
        return writer

    def require_whole(self, left: Mapping[str, str]) -> None:
        """Refuses to call it done where cases are missing; `left` says why some were left out."""
        index = self.index
        if not (missing := index.missing):
            return
        first = f"{missing[0]}: {left.get(missing[0], 'is none of the scans given now')}"
        if len(index.asked) == 1:
            raise BadInput(first)
        also = f"; also {', '.join(missing[1:6])}{' ...' * (len(missing) > 6)}" if len(missing) > 1 else ""
        said = f"{len(missing)} of {len(index.asked)} cases could not be predicted: {first}{also}"
        raise BadInput(f"{said}; mend or remove them, and go on with --resume")


def studies(scans: Iterable[Scan], dated: bool = False) -> dict[str, Study]:
    """Whose scan each case is, how many days after the patient's first one of these and if `dated` when it was made."""
    told = list(scans)
    days = sorted((scan.patient, scan.day) for scan in told if scan.day is not None)
    first = dict(reversed(days))  # of a patient's days the one that comes last stays: the first
    return {scan.case: Study(scan.patient) for scan in told} | {
        scan.case: Study(scan.patient, scan.date.replace("-", "") if dated else "", scan.day - first[scan.patient])
        for scan in told if scan.day is not None
    }  # fmt: skip


def _retold(index: Index, whose: Mapping[str, Study]) -> dict[str, Study]:
    """Whose the cases of a folder are, now that these scans are given.

    Days count from the first of the scans given now; of a patient among them, other cases cannot be placed any more.
    """
    counted = {study.patient for study in whose.values() if study.day is not None}
    return {
        case: whose.get(case) or (replace(study, day=None) if study.patient in counted else study)
        for case, study in index.studies.items()
    }


def _placeless(model: Mapping[str, Any]) -> dict[str, Any]:
    """What made predictions, wherever its runs lie."""
    told = {key: value for key, value in model.items() if key != "run"}
    return told | ({"runs": [_placeless(one) for one in told["runs"]]} if "runs" in told else {})


def labels(names: Mapping[int, str]) -> tuple[Label, ...]:
    """The classes of a network as labels, each with its colour."""
    return tuple(Label(value, name, _hex(colour_of(value))) for value, name in names.items())


def _hex(colour: Colour) -> str:
    return f"#{bytes(colour).hex()}"


def _write_case(folder: Path, image: Volume, prediction: Prediction) -> None:
    """The files of one case; of an image with several channels, the first is what a reader sees."""
    folder.mkdir()
    shown = replace(image, voxels=image.voxels.reshape(-1, *image.shape)[0])
    nifti.write(shown, folder / IMAGE)
    nifti.write(prediction.labels, folder / LABELS)
    nifti.write(_in_bytes(prediction.probability), folder / PROBABILITY)
    if prediction.uncertainty is not None:
        nifti.write(_in_bytes(prediction.uncertainty), folder / UNCERTAINTY)
    write_json(folder / FINDINGS, [asdict(finding) for finding in prediction.findings])


def _in_bytes(volume: Volume) -> Volume:
    """0 to 1 as 0 to 255."""
    return replace(volume, voxels=np.rint(volume.voxels * 255).astype(np.uint8))


def _write_index(index: Index) -> None:
    cases = [{"id": case, "unit": index.units[case], **asdict(index.study(case))} for case in index.cases]
    told = asdict(index) | {"cases": cases}
    write_json(index.folder / INDEX, {key: told[key] for key in told if key not in ("folder", "units", "studies")})
