"""Run: a folder that holds what a training gave and all that made it."""

import json
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from medssl import __version__, config
from medssl.errors import BadInput
from medssl.files import seal, sha256, write_json, write_text
from medssl.settings import Settings

SAME = {"manifest": "manifest", "pretrained": "start_sha256"}  # told by what they hold, wherever they lie


@dataclass(frozen=True)
class Run:
    """A folder: config.yaml, run.json (what made it, what came out), weights.safetensors; closed runs are read-only."""

    path: Path

    @classmethod
    def create(cls, path: Path | str, settings: Settings, kind: str, **facts: Any) -> "Run":
        """A new run of a `kind` (pretrain, finetune); refuses a folder that already exists."""
        run = cls(Path(path))
        if run.path.exists():
            raise BadInput(f"{path}: exists already; choose another `run`, or continue it with resume=true")
        run.path.mkdir(parents=True)
        write_text(run.path / "config.yaml", config.dump(settings))
        made = {"kind": kind, "state": "open", "created": datetime.now(UTC).isoformat(timespec="seconds")}
        write_json(run.path / "run.json", made | {"version": __version__, "git": _git()} | facts)
        return run

    @classmethod
    def resume(cls, path: Path | str, settings: Settings, kind: str, **facts: Any) -> "Run":
        """The unfinished run at `path`, which must have been started the same way; a new one if there is none."""
        if not (Path(path) / "run.json").is_file():
            return cls.create(path, settings, kind, **facts)
        run = cls.open(path)
        if run.closed:
            raise BadInput(f"{path}: this run is finished; choose another `run`")
        now, then = settings, config.check(run.settings(), type(settings), str(run.path / "config.yaml"))
        fields = set(type(settings).model_fields) - {"run", "resume", *SAME}
        changed = sorted(key for key in fields if getattr(now, key) != getattr(then, key))
        changed += [name for name, fact in SAME.items() if run.card.get(fact, facts.get(fact)) != facts.get(fact)]
        if changed:
            raise BadInput(
                f"{path}: was started with another {', '.join(changed)}; resume it unchanged or choose another `run`"
            )
        return run

    @classmethod
    def open(cls, path: Path | str) -> "Run":
        """A run that exists."""
        run = cls(Path(path))
        if not (run.path / "run.json").is_file():
            raise BadInput(f"{path}: no run here (run.json is missing); give the folder that a training wrote")
        return run

    @property
    def card(self) -> dict[str, Any]:
        """What made this run and what came out: kind, state, version, digests, recipe, network, scores."""
        try:
            told: dict[str, Any] = json.loads((self.path / "run.json").read_text())
        except ValueError as error:
            raise BadInput(f"{self.path / 'run.json'}: is damaged ({error}); restore it or train again") from None
        return told

    @property
    def weights(self) -> Path:
        """Where the weights are; a run that never finished has none."""
        path = self.path / "weights.safetensors"
        if self.closed and self.card.get("weights_sha256") != sha256(path):
            raise BadInput(f"{path}: not the bytes this run wrote; restore the file or train again")
        return path

    @property
    def closed(self) -> bool:
        """Whether the run finished."""
        return self.card["state"] == "closed"

    @property
    def finished(self) -> bool:
        """Whether there is a run here at all, and it finished."""
        return (self.path / "run.json").is_file() and self.closed

    def settings(self) -> dict[str, Any]:
        """The resolved settings as plain values."""
        return yaml.safe_load((self.path / "config.yaml").read_text())

    def note(self, **facts: Any) -> None:
        """Adds facts to run.json; a closed run refuses."""
        card = self.card
        if card["state"] == "closed":
            raise BadInput(f"{self.path}: this run is closed and read-only; start another")
        write_json(self.path / "run.json", card | facts)

    def close(self, **facts: Any) -> None:
        """Seals the run: what it holds now is what it will hold."""
        facts["weights_sha256"] = sha256(self.path / "weights.safetensors")
        self.note(**facts, finished=datetime.now(UTC).isoformat(timespec="seconds"), state="closed")
        seal(self.path, ("config.yaml", "run.json", "weights.safetensors"))


def _git() -> dict[str, Any] | None:
    """The commit of the code and whether it was changed, where the code is a checkout."""

    def ask(*words: str) -> str:
        here = Path(__file__).parent
        return subprocess.run(
            ["git", *words], cwd=here, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        return {"commit": ask("rev-parse", "HEAD"), "changed": bool(ask("status", "--porcelain", "--", "."))}
    except (OSError, subprocess.SubprocessError):
        return None
