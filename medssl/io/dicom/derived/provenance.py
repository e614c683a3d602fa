"""Describes in derived DICOM objects what they hold, and which tool and which person made each outline."""

from dataclasses import dataclass
from typing import Literal

import highdicom as hd
from highdicom.sr import AlgorithmIdentification

from medssl.io.dicom.derived.codes import NETWORK, OTHER_TOOL

AlgorithmType = Literal["AUTOMATIC", "SEMIAUTOMATIC", "MANUAL"]
MAX_LENGTH = 64  # of the value representation LO


@dataclass(frozen=True)
class AlgorithmInfo:
    """The tool that made the outlines of a document.

    Args:
        name: The name of the tool.
        version: The version of the tool; "unknown" if it is not recorded.
        weights_sha256: The hash of the weights; empty if the tool is not a network of this project.
        notice: The notice on the use of the results.
        type: How the tool makes outlines: MANUAL if people draw with it.
        run: The name of the run that the weights come from; may be empty.
    """

    name: str
    version: str
    weights_sha256: str
    notice: str
    type: AlgorithmType = "AUTOMATIC"
    run: str = ""

    @property
    def summary(self) -> str:
        """The name of the tool and its version."""
        return self.name if self.version == "unknown" else f"{self.name} {self.version}"

    def describe_for_seg(self) -> hd.AlgorithmIdentificationSequence:
        """Returns the identification of the tool for a SEG."""
        return hd.AlgorithmIdentificationSequence(
            self.name[:MAX_LENGTH], NETWORK if self.weights_sha256 else OTHER_TOOL, self.version[:MAX_LENGTH],
            parameters=self._parameters,
        )  # fmt: skip

    def describe_for_sr(self) -> AlgorithmIdentification:
        """Returns the identification of the tool for an SR."""
        parameters = [f"{name}={value}" for name, value in (self._parameters or {}).items()]
        return AlgorithmIdentification(self.name, self.version, parameters or None)

    @property
    def _parameters(self) -> dict[str, str] | None:
        values = {"run": self.run, "weights_sha256": self.weights_sha256}
        return {name: value for name, value in values.items() if value} or None


@dataclass(frozen=True)
class MaskOrigin:
    """The tool and the person who made the outline of one finding.

    Args:
        algorithm: The tool; None if a person drew the outline from nothing.
        reader: The login of the person who drew or changed the outline; empty if the tool made it alone.
    """

    algorithm: AlgorithmInfo | None
    reader: str = ""

    @property
    def type(self) -> AlgorithmType:
        """MANUAL if a person drew the outline, SEMIAUTOMATIC if a person changed that of an automatic tool."""
        if self.algorithm is None:
            return "MANUAL"
        return "SEMIAUTOMATIC" if self.reader and self.algorithm.type == "AUTOMATIC" else self.algorithm.type

    @property
    def summary(self) -> str:
        """Names the tool and the person, for example "nnU-Net 2.6, edited by ana"."""
        if self.algorithm is None:
            return f"drawn by {self.reader or 'a reader'}"
        return f"{self.algorithm.summary}, edited by {self.reader}" if self.reader else self.algorithm.summary


def describe_series(content: str, notice: str) -> str:
    """Returns a SeriesDescription: what the series holds, then the notice, whole or its first sentence."""
    full = f"{content}. {notice}"
    if len(full) <= MAX_LENGTH:
        return full
    short = f". {notice.partition('. ')[0].rstrip('.')}."
    room = MAX_LENGTH - len(short)
    return (content if len(content) <= room else f"{content[: room - 3]}...") + short
