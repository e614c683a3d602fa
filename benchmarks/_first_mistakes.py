"""Mistakes of a first hour, the inputs that they need, and what medssl answers to them."""

import contextlib
import io
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from benchmarks._small_disk import mount_disk
from medssl import cli
from medssl.files import write_json
from medssl.io import nifti
from medssl.run import Run
from medssl.settings import Settings
from medssl.volume import Volume

STORE = "ingest scans --out store --split-fractions train=0.7,test=0.3"
PRETRAIN, FINETUNE = "pretrain configs/pretrain/spark.yaml", "finetune configs/finetune/segment.yaml"
MANIFEST = "manifest=store/manifest.csv run=runs/a"
NETWORK = "patch_size=16 encoder.channels=4,8 encoder.strides=1,2"
SMALL = f"{NETWORK} train.epochs=1 train.steps_per_epoch=1 train.batch_size=1 train.num_workers=0"
FULL, FULL_KILOBYTES = "full", 40


class Mistake(NamedTuple):
    """What a newcomer tries.

    Attributes:
        name: The mistake.
        words: The command.
        before: What commit 725138b answered.
        exit_code: Exit code of today's answer.
        answer: Words of today's answer.
    """

    name: str
    words: str
    before: str
    exit_code: int
    answer: str


MISTAKES = (
    Mistake("a path that is wrong", "ingest nowhere --out s", "one line, exit 2", 2, "no such folder; give the folder"),
    Mistake("a folder of RGB pictures", "ingest pictures --out s", "one line, exit 2", 2, "holds no scan"),
    Mistake("ingesting twice", STORE, "nothing to do", 0, "nothing to do; the store holds 6"),
    Mistake(
        "`images/` and `labels/`",
        "ingest plain --out store-plain",
        "all labels refused, exit 0",
        0,
        "names: their classes are class_1",
    ),
    Mistake(
        "`NAME_seg.nii.gz`",
        "ingest suffix --out store-suffix",
        "masks became scans, exit 0",
        0,
        "3 cases prepared; the store holds 3",
    ),
    Mistake(
        "`CASE/label.nii.gz`",
        "ingest folders --out store-folders",
        "masks became scans, exit 0",
        0,
        "3 cases prepared; the store holds 3",
    ),
    Mistake(
        "no dataset.json",
        "ingest unnamed --out store-unnamed",
        "`labels: {}` without a word",
        0,
        "a dataset.json beside the scans can name them",
    ),
    Mistake(
        "3 of 5 labels do not fit",
        "ingest faulty --out store-faulty",
        "`refused 4: does not lie on its image's grid`, exit 0",
        2,
        "3 of 5 labelled cases were refused: 1 because: label [name] holds classes [7], dataset.json declares [1]",
    ),
    Mistake(
        "some scans have labels",
        "ingest partly --out store-partly",
        "split totals only",
        0,
        "of which 2 are labelled (test ",
    ),
    Mistake(
        "the store for its manifest",
        f"{PRETRAIN} manifest=store run=runs/a",
        "one line, exit 2",
        2,
        "give the manifest in it, store/manifest.csv",
    ),
    Mistake(
        "a crop that does not divide",
        f"{PRETRAIN} {MANIFEST} patch_size=[33,32,32]",
        "one line, exit 2",
        2,
        "use (40, 32, 32)",
    ),
    Mistake(
        "crops much larger than scans",
        f"{PRETRAIN} {MANIFEST} patch_size=64",
        "trains on 86 % padding without a word",
        2,
        "lies outside the scans",
    ),
    Mistake(
        "`patch_size=48x48`",
        f"{PRETRAIN} {MANIFEST} patch_size=48x48",
        "Input should be a valid tuple",
        2,
        "patch_size",
    ),
    Mistake(
        "a typo in a key",
        f"{PRETRAIN} {MANIFEST} train.epoch=5",
        "Extra inputs are not permitted",
        2,
        "train.epoch: is no key; did you mean train.epochs?",
    ),
    Mistake(
        "a value out of range",
        f"{PRETRAIN} {MANIFEST} objective.mask_ratio=1.5",
        "objective.ratio.constrained-float ...",
        2,
        "objective.mask_ratio",
    ),
    Mistake(
        "a typo in the config's name",
        f"pretrain configs/pretrain/sparc.yaml {MANIFEST}",
        "no such config; see configs/",
        2,
        "spark.yaml",
    ),
    Mistake("no config", f"pretrain {MANIFEST}", "manifest=...: no such config", 2, "spark"),
    Mistake(
        "`--key value` for a setting",
        f"{PRETRAIN} --manifest nowhere.csv --run runs/a",
        "unrecognized arguments",
        2,
        "nowhere.csv: no manifest",
    ),
    Mistake("a typo in the command", "pretrian", "is no command; known: 24 names", 2, "pretrain"),
    Mistake("`help COMMAND`", "help pretrain", "is no command", 0, "usage: medssl pretrain"),
    Mistake(
        "a run that is not there", "predict runs/none store/manifest.csv --out p", "one line, exit 2", 2, "runs/none"
    ),
    Mistake(
        "a run that has not finished",
        "predict runs/open store/manifest.csv --out p",
        "one line, exit 2",
        2,
        "continue it with resume=true",
    ),
    Mistake("no predictions", "review nowhere", "one line, exit 2", 2, "nowhere"),
    *(
        Mistake(f"a full disk: {words.partition(' ')[0]}", words, before, 2, "no space left on the disk")
        for words, before in (
            (f"ingest scans --out {FULL}/store", "one line, exit 2"),
            (f"{PRETRAIN} manifest=store/manifest.csv run={FULL}/run {SMALL}", "not tried"),
            (f"predict runs/trained store/manifest.csv --out {FULL}/predictions", "not tried"),
        )
    ),
)


def answer(words: str) -> tuple[int, list[str]]:
    """Returns the exit code of a command, and the lines that it prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed), _log_to(printed):
        try:
            cli.main(words.split())
            code = 0
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 0
    return code, [line for line in printed.getvalue().splitlines() if line.strip()]


@contextlib.contextmanager
def _log_to(stream: io.StringIO) -> Iterator[None]:
    """Sends the log of the package to a stream, too."""
    handler = logging.StreamHandler(stream)
    logging.getLogger("medssl").addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger("medssl").removeHandler(handler)


@contextlib.contextmanager
def make_inputs() -> Iterator[Sequence[Mistake]]:
    """Writes the folders that the commands name into the current folder, and mounts a disk that is nearly full.

    Yields those of `MISTAKES` that can be made here: mounting a disk needs root.
    """
    _write_inputs()
    with mount_disk(Path(FULL), FULL_KILOBYTES) as resize:
        yield [mistake for mistake in MISTAKES if resize or f"{FULL}/" not in mistake.words]


def _write_inputs() -> None:
    rng = np.random.default_rng(0)
    _write_decathlon(Path("scans"), rng)
    _write_decathlon(Path("faulty"), rng)
    _damage_labels(Path("faulty", "labelsTr"))
    layouts = {
        "plain": ("images/{}", "labels/{}", 3),
        "suffix": ("{}", "{}_seg", 3),
        "folders": ("{}/image", "{}/label", 3),
        "unnamed": ("imagesTr/{}", "labelsTr/{}", 3),
        "partly": ("images/{}", "labels/{}", 2),
    }
    for folder, (image, label, labelled) in layouts.items():
        for number in range(4 if folder == "partly" else 3):
            _write_case(
                Path(folder, image.format(f"c{number}")),
                Path(folder, label.format(f"c{number}")) if number < labelled else None,
                rng,
            )
    Path("pictures").mkdir()
    Image.fromarray(rng.integers(0, 255, (16, 16, 3), np.uint8)).save("pictures/a.png")
    Run.create("runs/open", Settings(), "finetune")
    answer(STORE)
    answer(f"{FINETUNE} manifest=store/manifest.csv run=runs/trained {SMALL}")


def _write_decathlon(folder: Path, rng: np.random.Generator) -> None:
    """Writes six labelled scans with a dataset.json."""
    for number in range(6):
        _write_case(folder / f"imagesTr/c{number}", folder / f"labelsTr/c{number}", rng)
    rows = [{"image": f"./imagesTr/c{n}.nii.gz", "label": f"./labelsTr/c{n}.nii.gz"} for n in range(6)]
    labels = {"0": "background", "1": "bright"}
    write_json(folder / "dataset.json", {"modality": {"0": "CT"}, "labels": labels, "training": rows})


def _write_case(image: Path, label: Path | None, rng: np.random.Generator) -> None:
    scan = Volume(rng.integers(-1000, 1000, (32, 32, 32)).astype(np.int16), np.eye(4), "HU")
    nifti.write(scan, image.with_name(f"{image.name}.nii.gz"))
    if label:
        mask = Volume((scan.voxels > 900).astype(np.uint8), scan.affine, "label")
        nifti.write(mask, label.with_name(f"{label.name}.nii.gz"))


def _damage_labels(folder: Path) -> None:
    """Leaves a stray class, another grid, another shape and a missing label among six labels."""
    label = nifti.read(folder / "c0.nii.gz", label=True)
    voxels, affine = label.voxels.copy(), label.affine.copy()
    voxels[0], affine[0, 3] = 7, 50
    nifti.write(replace(label, voxels=voxels), folder / "c0.nii.gz")
    nifti.write(replace(label, affine=affine), folder / "c1.nii.gz")
    nifti.write(replace(label, voxels=label.voxels[:20]), folder / "c2.nii.gz")
    (folder / "c3.nii.gz").unlink()
