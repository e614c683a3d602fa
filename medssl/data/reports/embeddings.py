"""The embeddings of the sentences of reports, in one file that trainings read without the texts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Float32

from medssl.errors import BadInput
from medssl.files import atomic_file

KEYS = {"cases", "counts", "embeddings", "encoder"}


@dataclass(frozen=True)
class ReportEmbeddings:
    """Sentences of reports as vectors.

    Attributes:
        by_case: One row of length 1 for each sentence of a case.
        encoder: Hash of the text encoder that made them.
    """

    by_case: Mapping[str, Float32[np.ndarray, "_ d"]]
    encoder: str

    @property
    def width(self) -> int:
        """The number of dimensions of a vector."""
        return next(iter(self.by_case.values())).shape[1]

    def select(self, cases: Sequence[str]) -> list[Float32[np.ndarray, "_ d"]]:
        """Returns the rows of some cases, none for a case without a report."""
        return [self.by_case.get(case, np.zeros((0, self.width), np.float32)) for case in cases]

    def write(self, path: Path) -> None:
        """Writes the file, readable by its owner only: who holds the encoder can guess at sentences by it."""
        rows = np.concatenate(list(self.by_case.values())).astype(np.float16)
        counts = np.array([len(part) for part in self.by_case.values()])
        names = np.array(list(self.by_case), dtype=np.str_)
        with atomic_file(path, is_private=True) as part, part.open("wb") as file:
            np.savez(file, cases=names, counts=counts, embeddings=rows, encoder=np.array(self.encoder))

    @classmethod
    def read(cls, path: Path) -> "ReportEmbeddings":
        """Reads the file; raises BadInput if it is missing, damaged or another one."""
        if not path.is_file():
            raise BadInput(f"{path}: no such file; `medssl encode-reports` writes one")
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                if not set(arrays.files) >= KEYS:
                    raise ValueError("lacks arrays")
                rows, counts = arrays["embeddings"].astype(np.float32), arrays["counts"]
                names, encoder = arrays["cases"].tolist(), str(arrays["encoder"])
            if rows.ndim != 2 or not np.isfinite(rows).all() or len(names) != len(counts) or counts.sum() != len(rows):
                raise ValueError("has arrays that do not fit each other")
            parts = np.split(rows, np.cumsum(counts)[:-1])
            by_case = {str(name): _normalize(part) for name, part in zip(names, parts, strict=True)}
            if not by_case:
                raise ValueError("holds no case")
        except (OSError, ValueError, TypeError, KeyError, EOFError, BadZipFile):
            raise BadInput(f"{path}: is damaged or no file of `medssl encode-reports`; write it again") from None
        return cls(by_case, encoder)


def _normalize(rows: Float32[np.ndarray, "n d"]) -> Float32[np.ndarray, "n d"]:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6).astype(np.float32)
