"""Keeps what each signed case teaches in a file next to the event log: a cache that can always be rebuilt."""

import hashlib
import json
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import reduce
from operator import add
from pathlib import Path
from threading import Lock
from zipfile import BadZipFile

import numpy as np

from medssl.errors import BadInput
from medssl.files import atomic_file
from medssl.io import nifti
from medssl.predictions_folder import LABELS, Index, read_findings
from medssl.review.assist.label_context import LabelContext
from medssl.review.assist.proposal import ENGINE_VERSION, AssistImage, learn_from_mask
from medssl.review.assist.signed_shape import SignedShape
from medssl.review.assist.voxel_classifier import Evidence
from medssl.review.consensus.reading_of_record import select_signed_reading
from medssl.review.corrected_labels import FindingMap, find_label, find_top_label
from medssl.review.event_store import EventStore
from medssl.review.reading import Reading

MAX_FINDINGS = 6  # of a case that are learned from
MAX_LESSONS = 300  # of the newest are kept, about 200 KB each
MAX_STORED_SHAPES = 20  # of the newest of each label are kept, about 140 KB each
Lessons = dict[str, dict[int, LabelContext]]  # by case and reading, then by label

logger = logging.getLogger(__name__)


class ContextBank:
    """The lessons of all signed cases of a review.

    Args:
        path: The file of the lessons, see `locate_bank`; a missing, damaged or older one is written again.
        encoder: Names the features of an encoder that the images have; lessons of others are learned again.
    """

    def __init__(self, path: Path, encoder: str = "") -> None:
        self._path, self._lock = path, Lock()
        self._version = f"{ENGINE_VERSION} {encoder}".strip()
        self._lessons = _read_lessons(path, self._version)

    def find_context(self, case: str, label: int) -> LabelContext | None:
        """Returns what the other signed cases teach about a label; None if there are none."""
        others = [lesson for key, lesson in self._lessons.items() if json.loads(key)[0] != case]
        lessons = [lesson[label] for lesson in others if label in lesson]
        return reduce(add, lessons) if lessons else None

    def refresh(self, index: Index, store: EventStore, load_image: Callable[[str], AssistImage]) -> int:
        """Learns from cases that were signed since, and forgets those that were reopened; returns the number of cases.

        Args:
            index: The predictions that are reviewed.
            store: The event log.
            load_image: Returns the image of a case.
        """
        with self._lock:
            readings = _list_signed(index, store)
            lessons = {key: lesson for key, lesson in self._lessons.items() if key in readings}
            for key in [key for key in readings if key not in lessons][-MAX_LESSONS:]:
                with suppress(BadInput, OSError):  # a damaged case teaches nothing
                    lessons[key] = learn_from_reading(index, readings[key], load_image(readings[key].case))
            if lessons.keys() != self._lessons.keys():
                self._lessons = _drop_old_shapes(dict(list(lessons.items())[-MAX_LESSONS:]))
                _write_lessons(self._path, self._version, self._lessons)
            return len(self._lessons)


def locate_bank(predictions: Path, database: str) -> Path:
    """Returns the file of the lessons, next to the predictions, one for each event log."""
    folder = predictions.absolute()
    name = hashlib.sha256(database.encode()).hexdigest()[:8]
    return folder.with_name(f"{folder.name}-assist-{name}.npz")


def learn_from_reading(index: Index, reading: Reading, image: AssistImage) -> dict[int, LabelContext]:
    """Returns what the findings of a signed reading teach, by label; the largest findings count."""
    folder, top = index.case_folder(reading.case), find_top_label(index)
    predicted = FindingMap.from_prediction(nifti.read(folder / LABELS, label=True), read_findings(folder), top)
    current = predicted.draw(reading)
    sizes = np.bincount(current.numbers.voxels.ravel(), minlength=top + len(current.findings) + 1)
    lessons: dict[int, LabelContext] = {}
    for number in sorted(range(top + 1, top + 1 + len(current.findings)), key=lambda n: -sizes[n])[:MAX_FINDINGS]:
        finding = current.findings[number - top - 1]
        label = find_label(finding, reading.verdicts.get(finding.id))
        if label and sizes[number]:
            lesson = learn_from_mask(image, current.numbers.voxels == number)
            lessons[label] = lessons[label] + lesson if label in lessons else lesson
    return lessons


def _list_signed(index: Index, store: EventStore) -> dict[str, Reading]:
    """Returns the signed reading of each case that has one, by case, reader and time, the latest last."""
    readings = list[Reading]()
    for case in {case for case, _ in store.load_snapshot().readings} & set(index.cases):
        with suppress(BadInput):  # readers differ
            if reading := select_signed_reading(index, case, store.read_events(case)):
                readings.append(reading)
    readings.sort(key=lambda reading: (reading.signed_at or "", reading.case))
    return {json.dumps([reading.case, reading.reviewer, reading.signed_at]): reading for reading in readings}


def _drop_old_shapes(lessons: Lessons) -> Lessons:
    """Returns the lessons with the shapes of the newest only, since no more are used."""
    room: dict[int, int] = {}
    lean: Lessons = {}
    for key, by_label in reversed(lessons.items()):
        lean[key] = {}
        for label, context in by_label.items():
            space = room.setdefault(label, MAX_STORED_SHAPES)
            shapes = context.shapes[-space:] if space else ()
            room[label] = space - len(shapes)
            lean[key][label] = replace(context, shapes=shapes)
    return dict(reversed(lean.items()))


def _read_lessons(path: Path, version: str) -> Lessons:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            if str(arrays["version"]) != version:
                return {}
            lessons: Lessons = {}
            shapes = [
                SignedShape(depth.astype(np.float32), float(step), deepest)
                for depth, step, deepest in zip(arrays["depths"], arrays["steps"], arrays["deepest"], strict=True)
            ]
            ends = np.cumsum(arrays["num_shapes"])
            columns = (arrays["keys"], arrays["counts"], arrays["grams"], arrays["moments"], arrays["num_shapes"], ends)
            for key, count, gram, moment, num_shapes, end in zip(*columns, strict=True):
                case, label = json.loads(str(key))
                context = LabelContext(int(count), Evidence(gram, moment), tuple(shapes[end - num_shapes : end]))
                lessons.setdefault(case, {})[label] = context
            return lessons
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        logger.warning("%s: cannot be read (%s); what was signed is learned again", path, error)
        return {}


def _write_lessons(path: Path, version: str, lessons: Lessons) -> None:
    rows = [(json.dumps([key, label]), c) for key, by_label in lessons.items() for label, c in by_label.items()]
    shapes = [shape for _, c in rows for shape in c.shapes]
    with atomic_file(path, is_private=True) as part, part.open("wb") as file:
        np.savez_compressed(
            file, version=version, keys=np.array([key for key, _ in rows], str),
            counts=np.array([c.count for _, c in rows], np.int64),
            grams=np.array([c.evidence.gram for _, c in rows], np.float32),
            moments=np.array([c.evidence.moment for _, c in rows], np.float32),
            num_shapes=np.array([len(c.shapes) for _, c in rows], np.int64),
            depths=np.array([shape.depth_mm for shape in shapes], np.float16),
            steps=np.array([shape.step_mm for shape in shapes], np.float32),
            deepest=np.array([shape.deepest_mm for shape in shapes], np.float32),
        )  # fmt: skip
