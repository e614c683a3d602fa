"""Checks what medssl needs of this machine: torch, GPU, memory, disk, codecs, browser and threads."""

import argparse
import os
import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

CODECS = {"gdcm": "JPEG", "openjpeg": "JPEG 2000", "jpeg_ls": "JPEG-LS", "rle": "RLE"}  # by the module that decodes
EXTRAS = {"review app": "streamlit", "DICOM output": "highdicom", "dask": "distributed", "documentation": "mkdocs"}
MIN_DISK_GB, MIN_MEMORY_GB = 10, 4


def main(words: list[str]) -> None:
    """Prints a line for each part; a line that begins with `!` names what is missing and how to get it."""
    build_parser().parse_args(words)
    for check in (_describe_versions, _describe_torch, _describe_memory, _describe_codecs, _describe_extras):
        for line in check():
            print(line)


def build_parser() -> argparse.ArgumentParser:
    """Returns the options of the command, of which there are none."""
    return argparse.ArgumentParser("medssl doctor", description=__doc__)


def _describe_versions() -> Iterator[str]:
    from medssl.version import __version__

    yield f"  medssl {__version__}, Python {platform.python_version()}, {platform.platform()}"


def _describe_torch() -> Iterator[str]:
    if find_spec("torch") is None:
        yield "! torch is not installed: training and prediction need it; pip install 'medssl[train]'"
        return
    import torch

    yield f"  torch {torch.__version__}, {torch.get_num_threads()} threads on {os.cpu_count()} cores"
    if not torch.cuda.is_available():
        built_for = torch.version.cuda
        reason = f"torch is built for CUDA {built_for}, but sees no driver" if built_for else "torch is built for CPUs"
        yield f"  no GPU: {reason}; trainings run on the CPU"
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        yield f"  GPU {index}: {properties.name}, {properties.total_memory / 2**30:.0f} GB, CUDA {torch.version.cuda}"


def _describe_memory() -> Iterator[str]:
    from medssl.training.fault_tolerance.limits import read_memory_limit_gb

    memory, disk = read_memory_limit_gb(), shutil.disk_usage(Path.cwd()).free / 2**30
    mark = "!" if memory < MIN_MEMORY_GB else " "
    yield f"{mark} memory: {memory:.1f} GB{'; trainings need small patch_size and batch_size' if mark == '!' else ''}"
    mark = "!" if disk < MIN_DISK_GB else " "
    yield f"{mark} disk: {disk:.0f} GB free in {Path.cwd()}{'; free some before you ingest' if mark == '!' else ''}"


def _describe_codecs() -> Iterator[str]:
    missing = [name for module, name in CODECS.items() if find_spec(module) is None]
    if missing:
        yield f"! DICOM codecs missing: {', '.join(missing)}; pip install medssl"
    else:
        yield f"  DICOM codecs: {', '.join(CODECS.values())}"


def _describe_extras() -> Iterator[str]:
    for purpose, module in EXTRAS.items():
        try:
            yield f"  {purpose}: {module} {version(module)}"
        except PackageNotFoundError:
            yield f"  {purpose}: {module} is not installed"
    browser = next((name for name in ("chromium", "chromium-browser", "google-chrome") if shutil.which(name)), "")
    yield f"  browser for tests and pictures: {browser or 'no Chromium found; apt-get install chromium'}"
