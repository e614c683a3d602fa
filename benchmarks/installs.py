"""The package with its extra `app` from newest and lowest dependencies on each Python: its size, and whether it works.

A last row holds Streamlit alone, which the app is built on: no size below it can be reached.

usage: python -m benchmarks.installs [PYTHON ...]; interpreters to try, by default those of 3.11 to 3.13 that are found.
It needs a package index; uv is installed into a throw-away environment.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks._browser import answering, free
from medssl.data.phantoms.datasets import write_demo_folder
from medssl.inference.phantom_predictions import write_phantom_predictions

ROOT = Path(__file__).parents[1]
VERSIONS = ("3.11", "3.12", "3.13")
RESOLUTIONS = ("highest", "lowest-direct")
NUM_LARGEST = 8
SMOKE = (
    "--version",
    "ingest {scans} --out {out}/store",
    "data-card {out}/store",
    "deliver {predictions} --out {out}/delivered --unsigned",
)


@dataclass(frozen=True)
class Installation:
    """What became of one environment.

    Attributes:
        packages: Number of packages.
        megabytes: Size on disk.
        largest: The largest packages with their megabytes.
        failure: The command that failed, with its last line; empty if all worked.
    """

    packages: int
    megabytes: float
    largest: dict[str, float]
    failure: str


def main(*interpreters: str) -> None:
    """Prints a row for each Python and resolution; ends with an error if one does not work."""
    pythons = interpreters or [path for version in VERSIONS if (path := shutil.which(f"python{version}"))]
    failures = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wheel, uv = build_wheel(folder), install_uv(folder / "uv")
        write_demo_folder(folder / "scans", 0, 2, 1, (24, 24, 24), 12.0)
        write_phantom_predictions(folder / "predictions", 1)
        print("| Python | dependencies | packages | MB on disk | largest | works |\n|---|---|---|---|---|---|")
        for python in pythons:
            for resolution in RESOLUTIONS:
                failures += print_row(python, resolution, install(folder, uv, wheel, python, resolution))
        failures += print_row(python, "Streamlit alone", install_streamlit(folder, uv, python))
    if failures:
        sys.exit("\n".join(failures))


def print_row(python: str, dependencies: str, installation: Installation) -> list[str]:
    """Prints a row of the table, and returns what failed."""
    largest = ", ".join(f"{name} {size:.0f}" for name, size in installation.largest.items())
    version = read_version(python)
    print(
        f"| {version} | {dependencies} | {installation.packages} | {installation.megabytes:.0f} | {largest} |"
        f" {installation.failure or 'yes'} |",
        flush=True,
    )
    return [f"{version}, {dependencies}: {installation.failure}"] * bool(installation.failure)


def build_wheel(folder: Path) -> Path:
    """Builds the wheel of this tree."""
    _run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)])
    return next(folder.glob("*.whl"))


def install_uv(folder: Path) -> Path:
    """Installs uv into an environment of its own."""
    venv.create(folder, with_pip=True)
    _run([str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "uv"])
    return folder / "bin" / "uv"


def install(folder: Path, uv: Path, wheel: Path, python: str, resolution: str) -> Installation:
    """Installs the wheel with its extra `app` into a new environment, and tries the commands of SMOKE there."""
    environment, out = folder / "environment", folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    own = create_environment(environment, uv, python)
    pins = folder / "requirements.txt"
    resolve = ["pip", "compile", "--quiet", "--python", python, "--resolution", resolution, "--extra", "app"]
    resolve += ["--upgrade", "--only-binary", ":all:", str(ROOT / "pyproject.toml"), "-o", str(pins)]
    failure = _describe_failure([str(uv), *resolve], "uv pip compile")
    words = ["pip", "install", "--quiet", "--python", str(own), "--no-deps", "-r", str(pins), str(wheel)]
    failure = failure or _describe_failure([str(uv), *words], "uv pip install")
    paths = {"scans": folder / "scans", "predictions": folder / "predictions", "out": out}
    for words in [] if failure else [command.format(**paths) for command in SMOKE]:
        failure = failure or _describe_failure([str(own), "-m", "medssl.cli", *words.split()], f"medssl {words}")
    failure = failure or _describe_review(own, folder / "predictions")
    return measure(environment, failure)


def install_streamlit(folder: Path, uv: Path, python: str) -> Installation:
    """Installs nothing but Streamlit, in the version of the newest dependencies."""
    requirement = next(name for name in _read_requirements("app") if name.startswith("streamlit"))
    environment = folder / "environment"
    own = create_environment(environment, uv, python)
    failure = _describe_failure([str(uv), "pip", "install", "--quiet", "--python", str(own), requirement], "uv")
    return measure(environment, failure)


def create_environment(folder: Path, uv: Path, python: str) -> Path:
    """Creates an environment in place of the last one, and returns its interpreter."""
    shutil.rmtree(folder, ignore_errors=True)
    _run([str(uv), "venv", "--quiet", "--python", python, str(folder)])
    return folder / "bin" / "python"


def measure(environment: Path, failure: str) -> Installation:
    """Returns packages and sizes of an environment."""
    site = next((environment / "lib").glob("python*/site-packages"))
    sizes = {path.name: _megabytes(path) for path in site.iterdir()}
    largest = sorted(sizes, key=lambda package: -sizes[package])[:NUM_LARGEST]
    return Installation(
        len(list(site.glob("*.dist-info"))), sum(sizes.values()), {name: sizes[name] for name in largest}, failure
    )


def _read_requirements(extra: str) -> list[str]:
    """Returns what an extra requires."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements: list[str] = project["optional-dependencies"][extra]
    return requirements


def read_version(python: str) -> str:
    """Returns the version of an interpreter."""
    return _run([python, "-c", "import platform; print(platform.python_version())"]).strip()


def _describe_review(python: Path, predictions: Path) -> str:
    """Returns why the review app does not answer; empty if it does."""
    port, database = free(), python.parents[2] / "out" / "verdicts.sqlite"
    words = [str(predictions), "--port", str(port), "--audit-db", str(database)]
    command = [str(python), "-m", "medssl.cli", "review", *words]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, cwd=database.parent, env=_environment(), **quiet) as server:
        try:
            answering(port)
        except TimeoutError as error:
            return f"medssl review: {error}"
        finally:
            server.kill()
    return ""


def _describe_failure(command: Sequence[str], name: str) -> str:
    """Returns the name of a command that fails, with its last line; empty if it succeeds."""
    process = subprocess.run(command, capture_output=True, text=True, cwd=tempfile.gettempdir(), env=_environment())
    lines = process.stderr.strip().splitlines() or ["no reason"]
    return f"{name}: {lines[-1]}" if process.returncode else ""


def _environment() -> dict[str, str]:
    """Returns the variables of this process without the path to this tree, so that the installed package is used."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def _run(command: Sequence[str]) -> str:
    process = subprocess.run(command, capture_output=True, text=True)
    if process.returncode:
        sys.exit(f"{' '.join(command)}: {(process.stderr.strip().splitlines() or ['no reason'])[-1]}")
    return process.stdout


def _megabytes(path: Path) -> float:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files) / 1e6


if __name__ == "__main__":
    main(*sys.argv[1:])
