"""The state of one study in a watched inbox: one file, written as a whole, so that a killed watch loses nothing."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from medssl.errors import BadInput
from medssl.files import write_json

STATE = "state.json"
Status = Literal["predicted", "done", "failed", "skipped"]


@dataclass(frozen=True)
class StudyState:
    """What became of a study with a certain set of files.

    Args:
        instances: The SOPInstanceUIDs of its files; a study with others has grown since.
        status: "predicted" if its documents are still to be sent.
        documents: The folder of its documents, relative to the folder of the study.
        summary: What was predicted, in a few words.
        reason: Why the study, or the last try to send it, failed.
        sent_to: The destinations that have the documents.
        num_tries: How often sending failed.
        retry_at: When it is sent again, in seconds since 1970.
    """

    instances: list[str] = field(repr=False)
    status: Status
    documents: str = ""
    summary: str = ""
    reason: str = ""
    sent_to: list[str] = field(default_factory=list)
    num_tries: int = 0
    retry_at: float = 0.0

    @classmethod
    def read(cls, folder: Path) -> "StudyState | None":
        """Returns the state of a study; None if nothing became of it yet.

        Raises:
            BadInput: If the file is damaged.
        """
        path = folder / STATE
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise BadInput(
                f"{path}: not the state of a study ({error}); remove it to predict the study again"
            ) from None

    def write(self, folder: Path) -> None:
        """Writes the state; the folder of the study is created."""
        write_json(folder / STATE, asdict(self))
