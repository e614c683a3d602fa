"""Runs the whole path on a folder of scans, within a time: medssl run SCANS --out project --hours 2"""

import argparse
import base64
import json
import shlex
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from medssl import cli
from medssl.errors import BadInput

if TYPE_CHECKING:
    from medssl.evaluation.compare import ScoreDifference

ARMS = ("pretrained", "scratch")
TRAINING_FRACTIONS = {"pretrain": 0.35, "finetune": 0.2}  # of the hours; there are two finetunings
STOP_FACTOR = 1.3  # of its planned time, after which a training saves its state and stops


class ProjectStep(NamedTuple):
    """One command, and how to see that an earlier call has finished it."""

    name: str
    words: list[str]
    is_done: Callable[[], bool]


def main(words: list[str]) -> None:
    """Runs the steps that are not done yet, and writes one page about the result."""
    args = build_parser().parse_args(words)
    out: Path = args.out
    for name in ("hours", "memory"):
        if not 0 < getattr(args, name) < float("inf"):
            raise BadInput(f"--{name} {getattr(args, name):g}: expected a number above 0")
    _require_same_project(args)
    print(
        "ingest, plan, pretrain, finetune with and without the pretraining, predict, evaluate: the trainings take at"
        f" most {args.hours:g} h together, the rest depends on the number of scans; the same command resumes"
    )
    steps = [_ingest_step(args.scans, out)]
    _run_step(steps[0])
    _record_project(args)
    has_labels = _has_labels(out / "store" / "manifest.csv")
    for purpose in ("finetune", "pretrain") if has_labels else ("pretrain",):
        steps.append(_plan_step(purpose, out, args.hours, args.memory, args.device))
        _run_step(steps[-1])
    trainings = _training_steps(out, args.hours, args.device, has_labels)
    for step in trainings:
        _run_step(step)
    if not has_labels:
        print(
            f"no label in split train: {out}/runs/encoder is all that can be learnt; label some scans and start again"
            " with another --out"
        )
        return
    page, command = _write_report(out, [*steps, *trainings])
    print(f"\n{page}\nnext: {command}")


def build_parser() -> argparse.ArgumentParser:
    """Returns the options of the command."""
    parser = argparse.ArgumentParser("medssl run", description=__doc__)
    parser.add_argument("scans", help="folder of scans, as for `medssl ingest`")
    parser.add_argument("--out", type=Path, required=True, metavar="PROJECT", help="folder of everything that is made")
    parser.add_argument("--hours", type=float, default=2.0, help="hours of all trainings together (default: 2)")
    parser.add_argument("--memory", type=float, default=6.0, metavar="GB", help="memory of a training (default: 6)")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="where it runs (default: cuda if there is a GPU)")
    return parser


def _run_step(step: ProjectStep) -> None:
    """Runs a step, unless it is done; its exit code ends the command."""
    line = f"$ {_format_command(step)}"
    if step.is_done():
        print(f"\n{line}\ndone already", flush=True)
        return
    print(f"\n{line}", flush=True)
    if code := cli.run(step.name, step.words):
        if code != 2 or step.is_done():
            print(f"medssl run: stopped at {step.name}; the same command goes on from there", file=sys.stderr)
        sys.exit(code)


def _format_command(step: ProjectStep) -> str:
    return shlex.join(["medssl", step.name, *step.words])


def _request(args: argparse.Namespace) -> dict[str, object]:
    """Returns what a project is made from, which later calls have to repeat."""
    return {"scans": args.scans, "hours": args.hours, "memory": args.memory, "device": args.device}


def _require_same_project(args: argparse.Namespace) -> None:
    """Raises BadInput if an earlier call made the project from other scans or for another time, memory or device."""
    path = args.out / "project.json"
    if not path.is_file():
        return
    try:
        first = json.loads(path.read_text(encoding="utf-8"))
        changed = [
            f"{name} {first[name]}, not {value}" for name, value in _request(args).items() if first[name] != value
        ]
    except (ValueError, KeyError, TypeError):
        raise BadInput(f"{path}: is damaged; choose another --out") from None
    if changed:
        raise BadInput(
            f"{args.out}: was started with {'; '.join(changed)}; repeat the first call or choose another --out"
        )


def _record_project(args: argparse.Namespace) -> None:
    from medssl.files import write_json

    if not (args.out / "project.json").is_file():
        write_json(args.out / "project.json", _request(args))


def _ingest_step(scans: str, out: Path) -> ProjectStep:
    return ProjectStep("ingest", [scans, "--out", f"{out}/store"], (out / "store" / "manifest.csv").is_file)


def _plan_step(purpose: str, out: Path, hours: float, memory: float, device: str | None) -> ProjectStep:
    share = TRAINING_FRACTIONS[purpose] * hours
    path = out / f"{purpose}.yaml"
    words = [f"{out}/store", "--for", purpose, "--hours", f"{share:g}", "--memory", f"{memory:g}", "--out", str(path)]
    return ProjectStep("plan", [*words, *(["--device", device] if device else [])], path.is_file)


def _training_steps(out: Path, hours: float, device: str | None, has_labels: bool) -> list[ProjectStep]:
    """Returns the trainings, all with the network of one plan, and what follows them."""
    steps = [_train_step("pretrain", out, "encoder", hours, _network_words(out) if has_labels else [])]
    for arm in ARMS if has_labels else ():
        start = [f"pretrained={out}/runs/encoder" if arm == "pretrained" else "pretrained=null"]
        steps.append(_train_step("finetune", out, arm, hours, start))
        folder = out / "predictions" / arm
        words = [f"{out}/runs/{arm}", f"{out}/store/manifest.csv", "--out", str(folder), "--resume"]
        words += ["--device", device] if device else []
        steps.append(ProjectStep("predict", words, partial(_has_all_predictions, folder)))
        words = [str(folder), "--labels", f"{out}/store/manifest.csv"]
        steps.append(ProjectStep("evaluate", words, (folder / "evaluation" / "summary.json").is_file))
    return steps


def _train_step(purpose: str, out: Path, run: str, hours: float, words: list[str]) -> ProjectStep:
    from medssl.run import Run

    path = out / "runs" / run
    limit = f"limits.max_hours={STOP_FACTOR * TRAINING_FRACTIONS[purpose] * hours:g}"
    return ProjectStep(
        purpose, [f"{out}/{purpose}.yaml", *words, f"run={path}", "resume=true", limit], lambda: Run(path).is_finished
    )


def _has_all_predictions(folder: Path) -> bool:
    from medssl.predictions_folder import read_index

    return (folder / "index.json").is_file() and not read_index(folder).missing_cases


def _network_words(out: Path) -> list[str]:
    """Returns the network of the finetuning as settings, so that all trainings share it."""
    import yaml

    values = yaml.safe_load((out / "finetune.yaml").read_text(encoding="utf-8"))
    network = {f"encoder.{key}": value for key, value in values["encoder"].items()}
    return [
        f"{key}={json.dumps(value, separators=(',', ':'))}"
        for key, value in (network | {"patch_size": values["patch_size"]}).items()
    ]


def _has_labels(manifest: Path) -> bool:
    """Returns whether there are labels to learn from; raises BadInput if those are the only ones."""
    from medssl.data.manifest import Manifest

    labelled = Manifest.read(manifest).with_labels()
    if not labelled.in_split("train").cases:
        return False
    if not labelled.in_split("test").cases:
        raise BadInput(
            f"{manifest}: split 'test' has no labelled case, on which the results would be scored; label the scans of"
            " more patients, or ingest with other --split-fractions and --resplit"
        )
    return True


def _write_report(out: Path, steps: list[ProjectStep]) -> tuple[Path, str]:
    """Writes the page of scores, verdict and worst cases; returns its path and the command that comes next."""
    from medssl.evaluation.compare import ALL, compare
    from medssl.files import write_text
    from medssl.predictions_folder import NOTICE
    from medssl.render.templates import FOLDER, render_template

    first, second = (out / "predictions" / arm / "evaluation" for arm in ARMS)
    differences = compare(first, second)
    mean = next(row for row in differences if row.label == ALL)
    arm = ARMS[0] if mean.first >= mean.second else ARMS[1]
    pictures = sorted((out / "predictions" / arm / "evaluation" / "figures").glob("worst-*.png"))
    command = shlex.join(["medssl", "review", f"{out}/predictions/{arm}"])
    html = render_template(
        FOLDER / "project_report.html",
        title=f"{out.resolve().name}: what was learnt",
        verdict=f"Mean Dice {mean.first:.3f} from the pretraining, {mean.second:.3f} from scratch:"
        f" {mean.verdict(*ARMS)}.",
        arms=ARMS,
        rows=[
            (row.label, f"{row.first:.3f}", f"{row.second:.3f}", row.difference.format("+.3f"), f"{row.p:.3g}")
            for row in differences
        ],
        caution=_describe_caution(mean),
        arm=arm,
        pictures=[{"name": p.stem, "data": base64.b64encode(p.read_bytes()).decode()} for p in pictures],
        steps=[_format_command(step) for step in steps],
        next=command,
        notice=NOTICE,
    )
    write_text(out / "report.html", html)
    return out / "report.html", command


def _describe_caution(mean: "ScoreDifference") -> str:
    """Returns what the comparison cannot show."""
    from medssl.metrics.statistics import small_sample_warning

    seeds = "One pretraining and one seed: a difference between methods needs several (medssl fewshot)."
    warning = small_sample_warning(mean.patients)
    return f"Scored on {warning}. {seeds}" if warning else f"Scored on {mean.patients} patients. {seeds}"
