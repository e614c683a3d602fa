"""Copies the images and labels of a store into an object store, from which trainings read them."""

from dataclasses import replace
from pathlib import Path

from fsspec.core import url_to_fs

from medssl.data.manifest import Case, Manifest
from medssl.data.storage.codebook import CODEBOOK
from medssl.data.storage.object_cache import PROTOCOLS
from medssl.data.store_metadata import StoreMetadata
from medssl.errors import BadInput
from medssl.files import write_checksums


def upload_store(manifest: Manifest, url: str, out: Path) -> Manifest:
    """Copies all images and labels below an address, and writes a store whose manifest points to them.

    Files that are there already with the same size are left as they are, so that a second call continues.

    Args:
        manifest: The cases.
        url: Address of a folder, such as s3://bucket/folder.
        out: Folder of the new store, which holds manifest.csv and store.json only.

    Raises:
        BadInput: The address is of an unknown kind or cannot be written, or `out` exists.
    """
    if url.partition("://")[0] not in PROTOCOLS:
        raise BadInput(f"{url}: not an address of a folder; give one with {', '.join(PROTOCOLS)}")
    if out.exists():
        raise BadInput(f"{out}: exists already; choose another --out, or remove it")
    if any(path for case in manifest.cases[:1] for path in manifest.path(case).parent.glob(f"{CODEBOOK}*")):
        raise BadInput(f"{manifest.folder}: is a compressed store, which is read from a local folder; copy it as it is")
    url = url.rstrip("/")
    try:
        cases = tuple(_upload_case(manifest, case, url) for case in manifest.cases)
    except (OSError, ImportError) as error:
        raise BadInput(f"{url}: cannot be written ({' '.join(str(error).split())}); check address and access") from None
    StoreMetadata.read(manifest.folder).write(out)
    uploaded = Manifest(cases, out)
    uploaded.write(out / "manifest.csv")
    write_checksums(out, ("store.json", "manifest.csv"))
    return uploaded


def _upload_case(manifest: Manifest, case: Case, url: str) -> Case:
    """Copies the files of a case and returns the case with their addresses."""
    paths = {case.image: manifest.path(case)} | ({case.label: manifest.label_path(case)} if case.label else {})
    for name, path in paths.items():
        filesystem, remote = url_to_fs(f"{url}/{name}")
        if filesystem.exists(remote) and filesystem.size(remote) == path.stat().st_size:
            continue
        filesystem.makedirs(remote.rpartition("/")[0], exist_ok=True)
        filesystem.put_file(str(path), remote)
    label = f"{url}/{case.label}" if case.label else None
    return replace(case, image=f"{url}/{case.image}", label=label)
