"""Fetch: a public data set downloaded, checked and unpacked."""

import hashlib
import logging
import shutil
import socket
import tarfile
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory

from medssl.errors import BadInput

log = logging.getLogger(__name__)
MIRROR = "https://msd-for-monai.s3-us-west-2.amazonaws.com"
BLOCK = 1 << 20
PATIENCE_S = 30.0
BROKEN = (urllib.error.URLError, ConnectionError, TimeoutError, HTTPException)
Watch = Callable[[int, int | None], None]  # told how many bytes are here, of how many if that is known
AtOnce = Callable[[str, Path, str], None]  # brings what lies at a URL, with this MD5, to a path; whole or not at all


@dataclass(frozen=True)
class Archive:
    """A tar of the Medical Segmentation Decathlon and the MD5 that its publisher gives.

    Antonelli et al., The Medical Segmentation Decathlon, 2022, https://doi.org/10.1038/s41467-022-30695-9.
    """

    task: str
    md5: str


DECATHLON = {
    "brain": Archive("Task01_BrainTumour", "240a19d752f0d9e9101544901065d872"),
    "heart": Archive("Task02_Heart", "06ee59366e1e5124267b774dbd654057"),
    "liver": Archive("Task03_Liver", "a90ec6c4aa7f6a3d087205e23d4e6397"),
    "hippocampus": Archive("Task04_Hippocampus", "9d24dba78a72977dbd1d2e110310f31b"),
    "prostate": Archive("Task05_Prostate", "35138f08b1efaef89d7424d2bcc928db"),
    "lung": Archive("Task06_Lung", "8afd997733c7fc0432f71255ba4e52dc"),
    "pancreas": Archive("Task07_Pancreas", "4f7080cfca169fa8066d17ce6eb061e4"),
    "hepatic_vessel": Archive("Task08_HepaticVessel", "641d79e80ec66453921d997fbf12a29c"),
    "spleen": Archive("Task09_Spleen", "410d4a301da4e5b2f6f86ec3ddba524e"),
    "colon": Archive("Task10_Colon", "bad7a188931dc2f6acf72b08eb6202d0"),
}


def fetch(name: str, out: Path, watch: Watch, mirror: str = MIRROR, at_once: AtOnce | None = None) -> Path:
    """Downloads and unpacks a task of the Decathlon into `out`, unless it is there; returns its folder.

    It is tried `at_once`; what fails so is fetched block by block, and such a download that broke off is continued.
    The archive is removed once all its files are in place.
    """
    if name not in DECATHLON:
        raise BadInput(f"{name!r} is no data set known here; choose one of {', '.join(DECATHLON)}")
    archive = DECATHLON[name]
    folder = out / archive.task
    if folder.exists():
        return folder
    out.mkdir(parents=True, exist_ok=True)
    tar = out / f"{archive.task}.tar"
    download(f"{mirror.rstrip('/')}/{tar.name}", tar, archive.md5, watch, at_once)
    unpack(tar, folder)
    tar.unlink()
    return folder


def download(url: str, path: Path, md5: str, watch: Watch, at_once: AtOnce | None = None) -> None:
    """The file at `url`, whole and with the given MD5; what an earlier try left in PATH.part is continued."""
    part = path.with_name(path.name + ".part")
    if not path.exists():
        if part.exists() or not at_once or not _came(at_once, url, part, md5):
            _continue(url, part, watch)
        part.rename(path)
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    if found != md5:
        path.unlink()
        raise BadInput(f"{url}: its MD5 is {found}, published is {md5}; fetch it again, or from another --mirror")


def unpack(tar: Path, folder: Path) -> None:
    """The folder of a tar file, put in place only once it is whole; members that lead outside are refused."""
    with TemporaryDirectory(dir=tar.parent, prefix=".part-") as scratch:
        try:
            with tarfile.open(tar) as opened:
                opened.extractall(scratch, filter="data")
        except tarfile.FilterError as error:
            raise BadInput(f"{tar}: {error}; nothing was unpacked, and the archive is not to be trusted") from None
        except (tarfile.TarError, EOFError) as error:
            raise BadInput(f"{tar}: not a whole tar file ({error}); remove it and fetch it again") from None
        unpacked = Path(scratch) / folder.name
        if not unpacked.is_dir():
            raise BadInput(f"{tar}: holds no folder {folder.name}; fetch it from another --mirror")
        shutil.move(unpacked, folder)


def _came(at_once: AtOnce, url: str, part: Path, md5: str) -> bool:
    """Whether a file could be fetched as a whole; a server that falls silent is given up."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE_S)
    try:
        at_once(url, part, md5)
    except (OSError, HTTPException, RuntimeError, ValueError) as error:
        log.info("%s: not to be had at once (%s); block by block, then", url, error)
    finally:
        socket.setdefaulttimeout(before)
    return part.exists()


def _continue(url: str, part: Path, watch: Watch) -> None:
    """Adds what is missing of `url` to `part`."""
    have = part.stat().st_size if part.exists() else 0
    try:
        request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer, part.open("ab") as file:
            if answer.status != 206:  # the server cannot continue: from the start
                have = 0
                file.truncate(0)
            length = answer.headers.get("Content-Length")
            total = have + int(length) if length else None
            while block := answer.read(BLOCK):
                file.write(block)
                have += len(block)
                watch(have, total)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # all of it was here already
            return
        raise BadInput(f"{url}: the server says {error.code} {error.reason}; try another --mirror") from None
    except (*BROKEN, ValueError) as error:
        told = getattr(error, "reason", error)
        raise BadInput(f"{url}: cannot be fetched ({told}); check the network or try another --mirror") from None
    if total and have < total:
        raise BadInput(f"{url}: broke off after {have} of {total} bytes; run the command again to continue")
