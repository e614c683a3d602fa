"""Downloads public data sets, checks them against their MD5 and unpacks them."""

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
from typing import Literal

from medssl.errors import BadInput

log = logging.getLogger(__name__)
MIRROR = "https://msd-for-monai.s3-us-west-2.amazonaws.com"
BLOCK_BYTES = 1 << 20
TIMEOUT_S = 30.0
NETWORK_ERRORS = (urllib.error.URLError, ConnectionError, TimeoutError, HTTPException)
ByteProgress = Callable[[int, int | None], None]  # called with the bytes so far and in total, None if unknown
Downloader = Callable[[str, Path, str], None]  # downloads a URL with this MD5 to a path, completely or not at all


@dataclass(frozen=True)
class Archive:
    """An archive of the Medical Segmentation Decathlon, and its MD5 as MONAI lists it.

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


def download_dataset(
    name: str, out: Path, on_progress: ByteProgress, mirror: str = MIRROR, downloader: Downloader | None = None
) -> Path:
    """Downloads and unpacks a task of the Decathlon, unless it is there already; removes the archive.

    Args:
        name: The task, see `DECATHLON`.
        out: The parent folder of the data set.
        on_progress: Called with the bytes so far and in total.
        mirror: The address of the archives.
        downloader: Tried first; if it fails, the file is downloaded in blocks, which can be resumed.

    Returns:
        The folder of the data set.
    """
    if name not in DECATHLON:
        raise BadInput(f"{name!r} is not a known data set; choose one of {', '.join(DECATHLON)}")
    archive = DECATHLON[name]
    folder = out / archive.task
    if folder.exists():
        return folder
    out.mkdir(parents=True, exist_ok=True)
    tar = out / f"{archive.task}.tar"
    download_file(f"{mirror.rstrip('/')}/{tar.name}", tar, archive.md5, on_progress, downloader)
    unpack_tar(tar, folder)
    tar.unlink()
    return folder


def download_file(
    url: str,
    path: Path,
    checksum: str,
    on_progress: ByteProgress,
    downloader: Downloader | None = None,
    algorithm: Literal["md5", "sha256"] = "md5",
) -> None:
    """Downloads a file with the given checksum; an interrupted download in PATH.part is resumed."""
    part = path.with_name(path.name + ".part")
    if not path.exists():
        if part.exists() or not downloader or not _try_downloader(downloader, url, part, checksum):
            _resume_download(url, part, on_progress)
        part.rename(path)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, algorithm).hexdigest()
    if digest != checksum:
        path.unlink()
        raise BadInput(
            f"{url}: its {algorithm.upper()} is {digest}, expected is {checksum}; download it again, or from another"
            " --url"
        )


def unpack_tar(tar: Path, folder: Path) -> None:
    """Unpacks the folder of a tar file and moves it into place once it is complete.

    Raises:
        BadInput: The file is damaged, lacks the folder, or has members that lead out of it.
    """
    with TemporaryDirectory(dir=tar.parent, prefix=".part-") as scratch:
        try:
            with tarfile.open(tar) as archive:
                archive.extractall(scratch, filter="data")
        except tarfile.FilterError as error:
            raise BadInput(f"{tar}: {error}; nothing was unpacked, do not trust this archive") from None
        except (tarfile.TarError, EOFError) as error:
            raise BadInput(f"{tar}: not a complete tar file ({error}); remove it and download it again") from None
        unpacked = Path(scratch) / folder.name
        if not unpacked.is_dir():
            raise BadInput(f"{tar}: holds no folder {folder.name}; download it from another --url")
        shutil.move(unpacked, folder)


def _try_downloader(downloader: Downloader, url: str, part: Path, md5: str) -> bool:
    """Returns whether the downloader succeeded; a server that stops responding is given up after a timeout."""
    default_timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT_S)
    try:
        downloader(url, part, md5)
    except (OSError, HTTPException, RuntimeError, ValueError) as error:
        log.info("%s: the download failed (%s); downloading it in blocks", url, error)
    finally:
        socket.setdefaulttimeout(default_timeout)
    return part.exists()


def _resume_download(url: str, part: Path, on_progress: ByteProgress) -> None:
    """Appends the missing bytes of a URL to a file."""
    num_bytes = part.stat().st_size if part.exists() else 0
    try:
        headers = {"Range": f"bytes={num_bytes}-"} if num_bytes else {}
        request = urllib.request.Request(url, headers=headers)  # noqa: S310
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response, part.open("ab") as file:  # noqa: S310
            if response.status != 206:  # the server cannot resume: download from the start
                num_bytes = 0
                file.truncate(0)
            length = response.headers.get("Content-Length")
            total = num_bytes + int(length) if length else None
            while block := response.read(BLOCK_BYTES):
                file.write(block)
                num_bytes += len(block)
                on_progress(num_bytes, total)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # the file is complete already
            return
        raise BadInput(f"{url}: the server answers {error.code} {error.reason}; try another --url") from None
    except (*NETWORK_ERRORS, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise BadInput(f"{url}: cannot be downloaded ({reason}); check the network or try another --url") from None
    if total and num_bytes < total:
        raise BadInput(f"{url}: broke off after {num_bytes} of {total} bytes; run the command again to resume")
