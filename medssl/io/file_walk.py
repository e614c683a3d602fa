"""Lists the files of a folder and the members of its archives in a fixed order."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from medssl.errors import BadInput, Message
from medssl.io.archives import FileOpener, is_apple_double, is_archive
from medssl.io.rejected import ReadRejected, RejectedFiles


def walk_files(
    source: Path | Sequence[Path],
    opener: FileOpener | None = None,
    follow_links: bool = False,
    is_known: Callable[[Path], bool] = lambda path: False,
) -> Iterator[Path | RejectedFiles]:
    """Lists every file of a folder and every member of its archives.

    Folders named `.git` and the AppleDouble files of macOS (`._NAME`) are left out.

    Args:
        source: A folder, a file, or a list of files; links in a list are followed.
        opener: Keeps the archives open.
        follow_links: Whether links in a folder are followed.
        is_known: Whether a file is known to be no archive, so that it need not be opened to see.

    Yields:
        The path of a file or a member, or a link or an archive that was rejected.
    """
    opener = opener or FileOpener()
    for path in list_files(source, follow_links) if isinstance(source, Path) else source:
        if isinstance(path, RejectedFiles) or is_apple_double(path):
            if isinstance(path, RejectedFiles):
                yield path
            continue
        if is_known(path):
            yield path
            continue
        try:
            members = [path / name for name in opener.open_archive(path).names] if is_archive(path) else [path]
            yield from (member for member in members if not member.name.startswith("._"))
        except ReadRejected as error:
            yield RejectedFiles((path,), Message("{path.name}: {reason}", path=path, reason=error.message), error.code)


def list_files(folder: Path, follow_links: bool = False) -> Iterator[Path | RejectedFiles]:
    """Lists the files below a folder in a fixed order; a link that is not followed is rejected with a reason.

    Raises:
        BadInput: The folder does not exist, or cannot be listed.
    """
    if folder.is_file():
        yield folder
        return
    if not folder.is_dir():
        raise BadInput(Message("{folder}: no such folder; give the folder that holds the scans", folder=folder))

    visited: set[str] = set()
    folders = [folder]
    while folders:
        folder = folders.pop()
        if follow_links:
            visited.add(os.path.realpath(folder))
        inner = []
        for entry in _scan_folder(folder):
            path = folder / entry.name
            if entry.is_file(follow_symlinks=False):
                yield path
            elif entry.is_dir(follow_symlinks=False) or (
                follow_links and entry.is_dir() and os.path.realpath(path) not in visited
            ):
                inner.append(path)
            else:
                reason = _check_link(path, entry, follow_links)
                yield path if reason is None else RejectedFiles((path,), reason, "not-a-file")
        folders.extend(reversed(inner))


def _scan_folder(folder: Path) -> list[os.DirEntry[str]]:
    """Returns the entries of a folder in the order of their names, without the folder `.git`."""
    try:
        with os.scandir(folder) as entries:
            wanted = [entry for entry in entries if entry.name != ".git" or not entry.is_dir()]
    except OSError as error:
        raise BadInput(
            f"{error.filename}: cannot be listed ({error.strerror}); make it readable or remove it"
        ) from None
    return sorted(wanted, key=lambda entry: entry.name)


def _check_link(path: Path, entry: os.DirEntry[str], follow_links: bool) -> Message | None:
    """Returns why a link, pipe or device is not listed as a file; None if it is."""
    if not entry.is_symlink():
        return Message("{path.name}: a link, pipe or device, not a file; remove it", path=path)
    if not follow_links:
        return Message("{path.name}: a link, pipe or device; follow links with --follow-links, or copy the file",
                       path=path)  # fmt: skip
    if path.is_file():
        return None
    return Message("{path.name}: a link to no file, or to a folder around it; fetch its content (datalad get), or "
                   "remove it", path=path)  # fmt: skip
