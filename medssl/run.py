"""The Run class: a folder with the weights of a training, its settings and the facts about how it was made."""

import json
import logging
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from medssl import config
from medssl.errors import BadInput
from medssl.files import exclusive_lock, read_checksums, sha256, sweep_parts, write_checksums, write_json, write_text
from medssl.settings import Settings
from medssl.version import __version__

log = logging.getLogger(__name__)

PROJECTION_FILE = "projection.safetensors"

SAME_CONTENT = {
    "manifest": "manifest",
    "pretrained": "start_sha256",
}  # compared by content hash, wherever the files lie

# Keys of `train` that may change when a run resumes.
MACHINE = {"devices", "num_nodes", "strategy", "num_workers", "augment_on", "accelerator", "tracker"}
MAX_DIFF_CHARACTERS = 200_000  # of uncommitted changes that are recorded


@dataclass(frozen=True)
class Run:
    """A training run: a folder with config.yaml, run.json (metadata) and weights.safetensors.

    A pretraining with a projection head also has projection.safetensors, which no finetuning reads.

    A run is open while it trains. `close` makes it read-only and records the hash of its weights.
    """

    path: Path

    @classmethod
    def create(cls, path: Path | str, settings: Settings, kind: str, **facts: Any) -> "Run":
        """Creates a new run in a folder that must not exist yet.

        Args:
            path: The folder of the run.
            settings: The resolved settings, written to config.yaml.
            kind: The kind of training, "pretrain" or "finetune".
            **facts: Further entries of run.json.
        """
        run = cls(Path(path))
        if run.path.exists():
            raise BadInput(f"{path}: exists already; choose another `run`, or continue it with resume=true")
        run.path.mkdir(parents=True)
        write_text(run.path / "config.yaml", config.dump(settings))
        metadata = {"kind": kind, "state": "open", "created": datetime.now(UTC).isoformat(timespec="seconds")}
        write_json(run.path / "run.json", metadata | {"version": __version__, "git": read_git_state()} | facts)
        return run

    @classmethod
    def begin(cls, path: Path | str, settings: Settings, kind: str, resume: bool, **facts: Any) -> "Run":
        """Creates a run, or resumes it; see `create` and `resume`."""
        return (cls.resume if resume else cls.create)(path, settings, kind, **facts)

    @classmethod
    def resume(cls, path: Path | str, settings: Settings, kind: str, **facts: Any) -> "Run":
        """Opens the run at `path`, finished or not, or creates it if there is none; takes the arguments of `create`.

        Raises:
            BadInput: If the run was started with other settings or other input files.
        """
        if not (Path(path) / "run.json").is_file():
            return cls.create(path, settings, kind, **facts)
        run = cls.open(path)
        first_settings = config.check(run.read_settings(), type(settings), str(run.path / "config.yaml"))
        fields = set(type(settings).model_fields) - {"run", "resume", "limits", *SAME_CONTENT}
        values, first_values = (_dump_without_machine(group) for group in (settings, first_settings))
        changed = sorted(key for key in fields if values[key] != first_values[key])
        changed += [
            name for name, fact in SAME_CONTENT.items() if run.metadata.get(fact, facts.get(fact)) != facts.get(fact)
        ]
        if changed:
            raise BadInput(
                f"{path}: was started with another {', '.join(changed)}; resume it unchanged or choose another `run`"
            )
        if run.is_closed:
            log.info("%s: is finished already; nothing is left to train", path)
            with exclusive_lock(run.path, "another process trains this run; wait for its end"):
                sweep_parts(run.path)
                if "run.json" not in read_checksums(run.path):  # killed while it was closed
                    run._write_checksums()
        return run

    @classmethod
    def open(cls, path: Path | str) -> "Run":
        """Opens an existing run, open or closed."""
        run = cls(Path(path))
        if not (run.path / "run.json").is_file():
            raise BadInput(f"{path}: no run here (run.json is missing); give the folder that a training wrote")
        return run

    @property
    def metadata(self) -> dict[str, Any]:
        """The contents of run.json: kind, state, version, hashes, normalization, network and scores."""
        try:
            metadata = json.loads((self.path / "run.json").read_text())
        except (ValueError, RecursionError) as error:
            raise BadInput(f"{self.path / 'run.json'}: is damaged ({error}); restore the file or train again") from None
        if not isinstance(metadata, dict) or not {"kind", "state"} <= metadata.keys():
            raise BadInput(f"{self.path / 'run.json'}: does not describe a run; restore the file or train again")
        return metadata

    @property
    def weights(self) -> Path:
        """The path of the weights file, which only a closed run has; the weights of a closed run are checked."""
        path = self.path / "weights.safetensors"
        return self._require_hash(path, self.metadata.get("weights_sha256")) if self.is_closed else path

    @property
    def projection(self) -> Path | None:
        """The path of the projection head of a pretraining, checked as the weights are; None if there is none."""
        path = self.path / PROJECTION_FILE
        if not path.is_file():
            return None
        return self._require_hash(path, read_checksums(self.path).get(path.name)) if self.is_closed else path

    def _require_hash(self, path: Path, expected: str | None) -> Path:
        if sha256(path) != expected:
            raise BadInput(f"{path}: not the bytes that this run wrote; restore the file or train again")
        return path

    @property
    def is_closed(self) -> bool:
        """Whether the run is closed, which means that its training finished."""
        return self.metadata["state"] == "closed"

    @property
    def is_finished(self) -> bool:
        """Whether the folder holds a run at all and that run is closed."""
        return (self.path / "run.json").is_file() and self.is_closed

    def read_settings(self) -> dict[str, Any]:
        """Reads the resolved settings from config.yaml as plain values."""
        return yaml.safe_load((self.path / "config.yaml").read_text())

    def update_metadata(self, **facts: Any) -> None:
        """Adds or replaces entries of run.json; raises BadInput if the run is closed."""
        metadata = self.metadata
        if metadata["state"] == "closed":
            raise BadInput(f"{self.path}: this run is closed and read-only; start another one")
        write_json(self.path / "run.json", metadata | facts)

    def close(self, **facts: Any) -> None:
        """Closes the run: adds final facts and the hash of the weights, and makes it read-only."""
        facts["weights_sha256"] = sha256(self.path / "weights.safetensors")
        self.update_metadata(**facts, finished=datetime.now(UTC).isoformat(timespec="seconds"), state="closed")
        self._write_checksums()

    def _write_checksums(self) -> None:
        """Writes the hashes of the files of a finished run."""
        names = ["config.yaml", "run.json", "weights.safetensors", PROJECTION_FILE]
        write_checksums(self.path, [name for name in names if (self.path / name).exists()])


def read_git_state() -> dict[str, Any] | None:
    """Returns the commit of the code and, if files were changed, the diff; None if the code is not a git checkout."""

    def run_git(*args: str) -> str:
        return subprocess.run(
            ["git", *args], cwd=Path(__file__).parent, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        changed = bool(run_git("status", "--porcelain", "--", "."))
        state = {"commit": run_git("rev-parse", "HEAD"), "changed": changed}
        return state | ({"diff": run_git("diff", "HEAD", "--", ".")[:MAX_DIFF_CHARACTERS]} if changed else {})
    except (OSError, subprocess.SubprocessError):
        return None


def _dump_without_machine(settings: Settings) -> dict[str, Any]:
    """Returns settings as plain values, without those of the machine that they run on."""
    return settings.model_dump(mode="json", exclude={"train": MACHINE})
