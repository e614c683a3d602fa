"""Describes what the server knew when it stored an act: the image and the mask on screen, and how a signature is meant.

The evidence of an event is JSON. Verdicts, measurements, strokes and signatures hold `image`, the SHA-256 of the image
file, `labels`, that of the predicted labels, `image_shown` and `labels_shown`, those of the slab files that the viewer
showed in place of both, and `mask`, see `hash_mask`. A signature also holds `meaning`, one of
`MEANINGS`, and `proof`, how the reviewer proved who they are.
"""

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from medssl.errors import BadInput
from medssl.files import sha256
from medssl.io.slabs.from_nifti import name_slab_file
from medssl.predictions_folder import IMAGE, LABELS, Index
from medssl.review.access.reviewers import Reviewer
from medssl.review.event import DECISIONS, MEANINGS
from medssl.review.reading import Reading

SCREEN_ACTIONS = (*DECISIONS, "measure", "stroke", "sign")


def gather_evidence(index: Index, reviewer: Reviewer, case: str, action: str) -> dict[str, str]:
    """Returns the hashes of the files of a case and, for a signature, its meaning and the proof of identity."""
    if action not in SCREEN_ACTIONS:
        return {}
    evidence = hash_case_files(index, case) | _hash_shown_files(index, case)
    if action == "sign":
        evidence |= {"meaning": MEANINGS.get(reviewer.role, ""), "proof": reviewer.proof}
    return evidence


def hash_case_files(index: Index, case: str) -> dict[str, str]:
    """Returns the SHA-256 of the image and of the predicted labels of a case, as the files are now.

    A file that is missing is left out. A file is read again only if it has changed.
    """
    return _hash_files(index, case, {"image": IMAGE, "labels": LABELS})


def _hash_shown_files(index: Index, case: str) -> dict[str, str]:
    files = (("image_shown", IMAGE), ("labels_shown", LABELS))
    return _hash_files(index, case, {name: name_slab_file(Path(file)).name for name, file in files})


def _hash_files(index: Index, case: str, files: Mapping[str, str]) -> dict[str, str]:
    hashes = {}
    for name, file in files.items():
        try:
            path = index.case_folder(case) / file
            hashes[name] = _hash_file(path, path.stat().st_mtime_ns, path.stat().st_size)
        except (BadInput, OSError):
            continue
    return hashes


def hash_mask(labels: str, reading: Reading) -> str:
    """Returns a hash of the mask that a reader saw.

    It is the SHA-256 over the hash of the predicted labels, the hashes of the strokes in effect, and the rejected and
    relabelled findings; anyone with the files and the event log can compute it again.
    """
    changes = [
        [verdict.finding, verdict.decision, verdict.label]
        for _, verdict in sorted(reading.verdicts.items())
        if verdict.decision in ("reject", "relabel")
    ]
    content = [labels, [stroke.hash for stroke in reading.strokes], changes]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def format_evidence(evidence: Mapping[str, str], reading: Reading) -> str:
    """Returns the evidence as it is stored, with the hash of the mask of a reading; empty without evidence."""
    if not evidence:
        return ""
    mask = {"mask": hash_mask(evidence["labels"], reading)} if "labels" in evidence else {}
    return json.dumps(dict(evidence) | mask, sort_keys=True)


@lru_cache(maxsize=1000)
def _hash_file(path: Path, modified_ns: int, size: int) -> str:
    return sha256(path)
