"""The `medssl` command: finds the script of a command in a fixed table and runs it."""

import argparse
import difflib
import logging
import os
import sys
import traceback
import warnings
from importlib import import_module
from pathlib import Path
from types import ModuleType

from medssl.errors import BadInput, Stopped
from medssl.home import resources_dir
from medssl.version import __version__

COMMANDS: dict[str, dict[str, str]] = {
    "start": {
        "demo": "run the whole path on synthetic scans: ingest, pretrain, finetune, predict, evaluate",
        "run": "run the whole path on a folder of scans within a time: ingest to evaluation and one page",
        "doctor": "check torch, GPU, memory, disk, codecs and browser of this machine",
        "completion": "print a completion script for bash, zsh or tcsh",
    },
    "data": {
        "fetch": "download a public data set of the Medical Segmentation Decathlon",
        "ingest": "turn a folder of scans into a prepared store, a manifest and a ledger of every file",
        "boxes-to-labels": "draw boxes, or points with a diameter, as label volumes",
        "verify": "re-read every file of a store, a run or predictions and list damaged ones",
        "check-leakage": "find patients, series and images that training and test cases share",
        "data-card": "describe a data set by what its store holds",
        "compress": "make a store about 50 times smaller, from which trainings read",
        "upload": "copy a store to an object store, from which trainings read it",
        "atlas": "register scans to an atlas, over which labels are propagated",
    },
    "training": {
        "plan": "choose the settings of a training for a store, a time and a memory, with reasons",
        "pretrain": "learn an encoder from unlabelled volumes",
        "finetune": "train segmentation or detection from a few labelled volumes",
        "show-examples": "give an in-context segmentation other labelled examples, without training",
        "fewshot": "compare training methods over numbers of labelled volumes and seeds",
        "battle": "rank encoders and starts over several tasks, each a few-label sweep",
        "probe": "measure what the frozen features of runs are worth, against untrained encoders",
        "retrieve": "find cases and places like those of a scan, or clusters of cases, by the features of a run",
        "encode-reports": "turn radiology reports into vectors, with which scans are aligned in a pretraining",
        "prompt": "rank scans by sentences, with a pretraining that was aligned with reports",
        "runs": "list, filter and compare runs, and remove unfinished ones",
        "reproduce": "train a finished run again and compare weights and scores",
        "slurm": "write and submit the SLURM script of a training",
        "suggest": "rank unlabelled cases by what annotating them would bring",
        "fetch-weights": "download the weights of a published encoder",
        "import-weights": "make a run from weights of nnU-Net, nnssl or a MONAI bundle",
        "export-weights": "write a run's encoder under the tensor names of other projects",
    },
    "prediction": {
        "predict": "predict labels, probabilities and findings on each scan's own grid",
        "calibrate": "fit the temperature and lesion thresholds of a run on held-out cases",
        "watch": "predict studies as they arrive and send SEG and SR back to the archive",
        "import-predictions": "make a predictions folder from another tool's masks",
        "evaluate": "score predictions against reference labels",
        "compare": "compare two evaluations of the same cases, paired by patient",
        "publish": "write a run as a folder to share, with a model card",
        "export-store": "write a store as BIDS or nnU-Net data, or predictions under nnU-Net's names",
    },
    "review": {
        "review": "open the review app on a predictions folder",
        "encode": "encode the images of predictions with a run, for proposals in the review app",
        "deliver": "write reviewed predictions as DICOM SEG and SR, PDF and CSV",
        "feedback": "turn reviewed predictions into a labelled data set",
        "audit": "check that no verdict was changed, removed or moved",
    },
}

EXTRAS = {
    "train": ("torch", "monai", "einops", "lightning", "safetensors", "tensorboardX", "SimpleITK"),
    "onnx": ("onnxruntime",),
    "export": ("onnx", "onnxscript"),
    "reports": ("tokenizers",),
    "pacs": ("dicomweb_client", "requests", "pynetdicom"),
}


def main(argv: list[str] | None = None) -> None:
    """Runs `medssl NAME ...`: bad input is one line and exit code 2; a traceback is shown only with --debug."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    warnings.formatwarning = _format_warning
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("medssl").setLevel(logging.DEBUG if debug else logging.INFO)
    if words[:1] == ["help"]:
        words = [*words[1:2], "--help"]
    if not words or words[0] in ("-h", "--help"):
        print(format_help())
    elif words[0] == "--version":
        print(f"medssl {__version__}")
    else:
        sys.exit(run(words[0], words[1:], debug))


def run(name: str, words: list[str], debug: bool = False) -> int:
    """Runs one command.

    Args:
        name: The command, for example "import-weights".
        words: Its arguments.
        debug: Whether errors show a traceback.

    Returns:
        The exit code: 0 done, 2 the input has to be corrected, 1 an internal error, 75 stopped by a signal or a limit
        with the state saved, 130 interrupted by Ctrl-C.
    """
    try:
        if name not in command_names():
            raise BadInput(_describe_unknown_command(name))
        script = load_script(name)
        script.main(unify_style(script.build_parser(), words) if hasattr(script, "build_parser") else words)
    except (BadInput, OSError) as error:
        return _fail(name, _describe_error(error), 2, debug)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        extra = next((extra for extra, packages in EXTRAS.items() if package in packages), "app")
        return _fail(name, f"needs {package}, which is not installed; pip install 'medssl[{extra}]'", 2, debug)
    except Stopped as stopped:
        return _fail(name, str(stopped), stopped.exit_code, debug=False)
    except KeyboardInterrupt:
        return _fail(name, "stopped", 130, debug=False)
    except Exception as error:
        text = f"internal error: {type(error).__name__}: {_describe_error(error)}"
        return _fail(name, f"{text}. This is a bug; run it again with --debug and report it", 1, debug)
    return 0


def unify_style(parser: argparse.ArgumentParser, words: list[str]) -> list[str]:
    """Returns arguments in the style of a command: `--key value` and `key=value` mean the same everywhere.

    Args:
        parser: The options of the command. One with `overrides` takes settings as `key=value`, and its options, if it
            has any, as `--key value`.
        words: The arguments.
    """
    actions = parser._option_string_actions
    takes_settings = any(action.dest == "overrides" for action in parser._actions)
    unified, rest = list[str](), list(words)
    while rest:
        word = rest.pop(0)
        option, equals, value = word.partition("=")
        if option in actions and not equals and actions[option].nargs != 0 and rest:
            unified += [word, rest.pop(0)]
        elif takes_settings and option.startswith("--") and option not in actions and (equals or rest):
            unified.append(f"{option[2:]}={value if equals else rest.pop(0)}")
        elif not takes_settings and equals and f"--{option}" in actions and not Path(word).exists():
            unified.append(f"--{word}")
        else:
            unified.append(word)
    return unified


def command_names() -> list[str]:
    """Returns the names of all commands."""
    return sorted(name for group in COMMANDS.values() for name in group)


def load_script(name: str) -> ModuleType:
    """Imports the script of a command: `import-weights` is pipelines/import_weights.py."""
    if str(resources_dir()) not in sys.path:
        sys.path.insert(0, str(resources_dir()))
    return import_module(f"pipelines.{name.replace('-', '_')}")


def config_parser(name: str, description: str) -> argparse.ArgumentParser:
    """Returns the parser of a command of the form `medssl NAME CONFIG.yaml key=value ...`.

    The help lists every key with its default and description from pipelines/keys/NAME.txt, which `make reference`
    writes from the config models, so that printing it does not import torch.
    """
    keys = (resources_dir() / "pipelines" / "keys" / f"{name}.txt").read_text(encoding="utf-8")
    parser = argparse.ArgumentParser(
        f"medssl {name}", description=description, formatter_class=argparse.RawTextHelpFormatter,
        epilog=f"keys, their defaults and what they do:\n{keys}",
    )  # fmt: skip
    parser.add_argument("config", metavar="CONFIG.yaml", help="settings that differ from the defaults; see configs/")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="settings that replace those of the file: train.epochs=10"
    )
    return parser


def format_help() -> str:
    """Returns the text of `medssl --help`."""
    width = max(map(len, command_names()))
    usage = "usage: medssl COMMAND ...      (medssl help COMMAND; --version; --debug shows tracebacks)"
    lines = [f"medssl {__version__}: research use only, not for clinical use", usage]
    for group, commands in COMMANDS.items():
        lines += ["", f"{group}:", *(f"  {name:<{width}} {summary}" for name, summary in commands.items())]
    return "\n".join(lines)


def _describe_unknown_command(name: str) -> str:
    """Returns that there is no such command, with the one that is spelled most like it."""
    nearest = difflib.get_close_matches(name, command_names(), 1)
    hint = f"did you mean {nearest[0]}? " if nearest else ""
    return f"{name!r} is not a command; {hint}known: {', '.join(command_names())}"


def _fail(name: str, text: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print(f"medssl {name}: {text}", file=sys.stderr)
    return code


def _format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """Formats a warning as one line, without the place in the code."""
    return f"warning: {message}\n"


def _describe_error(error: Exception) -> str:
    """Describes an error in one line."""
    from medssl.files import PART_PREFIX, is_disk_full

    if isinstance(error, OSError) and is_disk_full(error):
        return f"no space left on the disk of {error.filename or 'the output'}; free some space and run it again"
    if isinstance(error, OSError) and error.filename and error.strerror:
        path = Path(os.fsdecode(error.filename))
        return f"{path.parent if path.name.startswith(PART_PREFIX) else path}: {error.strerror.lower()}"
    return " ".join(str(error).split()) or type(error).__name__


if __name__ == "__main__":
    main()
