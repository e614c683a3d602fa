"""The `medssl` command: finds a pipeline by name and runs it."""

import ast
import errno
import logging
import os
import sys
import traceback
import warnings
from importlib import import_module
from pathlib import Path

from medssl import __version__
from medssl.errors import BadInput, Doubt
from medssl.files import PART
from medssl.home import home


def main(argv: list[str] | None = None) -> None:
    """Runs `medssl NAME ...`: bad input is one line and exit code 2; a traceback is shown only with --debug."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = [w for w in words if w != "--debug"]
    warnings.formatwarning = _doubt
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("medssl").setLevel(logging.DEBUG if debug else logging.INFO)
    if not words or words[0] in ("-h", "--help"):
        print(_help())
    elif words[0] == "--version":
        print(f"medssl {__version__}")
    else:
        sys.exit(run(words[0], words[1:], debug))


def run(name: str, words: list[str], debug: bool = False) -> int:
    """One pipeline's exit code: 0 done, 2 something to change in the input, 1 a fault of the program."""
    try:
        if name not in pipelines():
            raise BadInput(f"{name!r} is no command; known: {', '.join(pipelines())}")
        sys.path.insert(0, str(home()))
        import_module(f"pipelines.{_stem(name)}").main(words)
    except (BadInput, OSError) as error:
        if debug:
            traceback.print_exc()
        print(f"medssl {name}: {_line(error)}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        if debug:
            traceback.print_exc()
        print(f"medssl {name}: needs {error.name}, which is not installed; pip install 'medssl[app]'", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"medssl {name}: stopped", file=sys.stderr)
        return 130
    except Exception as error:
        if debug:
            traceback.print_exc()
        said = f"unexpected {type(error).__name__}: {_line(error)}"
        print(f"medssl {name}: {said} (a fault of the program; --debug shows where)", file=sys.stderr)
        return 1
    return 0


def pipelines() -> list[str]:
    """The commands there are."""
    stems = (p.stem for p in (home() / "pipelines").glob("*.py"))
    return sorted(stem.replace("_", "-") for stem in stems if not stem.startswith("_"))


def _stem(name: str) -> str:
    """The script of a command: `import-weights` is import_weights.py."""
    return name.replace("-", "_")


def _doubt(message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None) -> str:
    """A warning as one line, without the place in the code that nobody asked for."""
    return f"{'doubt' if category is Doubt else 'warning'}: {message}\n"


def _line(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"no space left on the disk of {error.filename or 'the output'}; free some and run it again"
    if isinstance(error, OSError) and error.filename and error.strerror:
        place = Path(os.fsdecode(error.filename))
        asked = place.parent if place.name.startswith(PART) else place
        return f"{asked}: {error.strerror.lower()}"
    return " ".join(str(error).split()) or type(error).__name__


def _help() -> str:
    width = max(map(len, pipelines()))
    rows = [f"  {n:<{width}} {_first_line(home() / 'pipelines' / f'{_stem(n)}.py')}" for n in pipelines()]
    usage = "usage: medssl COMMAND ...      (medssl COMMAND --help; --debug shows tracebacks)"
    return "\n".join([f"medssl {__version__}: research use only, not for clinical use", usage, "", *rows])


def _first_line(script: Path) -> str:
    return (ast.get_docstring(ast.parse(script.read_text())) or "").partition("\n")[0]


if __name__ == "__main__":
    main()
