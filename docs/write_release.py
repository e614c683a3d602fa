"""Writes what a release is installed from: all packages with their hashes, and a bill of materials (CycloneDX).

Run it as `python -m docs.write_release dist`, on each platform that the release is for: wheels differ between them.
"""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medssl.files import write_json, write_text
from medssl.version import __version__

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = ".[app,cluster]"
Package = Mapping[str, Any]  # an entry of "install" in a report of pip


def main(folder: Path) -> None:
    """Writes requirements.txt and sbom.cdx.json into a folder."""
    packages = resolve(["-c", str(ROOT / "constraints.txt"), str(ROOT / EXTRAS)])
    write_text(folder / "requirements.txt", format_requirements(packages))
    write_json(folder / "sbom.cdx.json", build_bill_of_materials(packages))


def resolve(arguments: Sequence[str]) -> list[Package]:
    """Returns the packages that pip would install into an empty environment, without medssl itself."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--report", "-"]
    process = subprocess.run([*command, *arguments], capture_output=True, text=True, check=True)
    packages = [entry for entry in json.loads(process.stdout)["install"] if entry["metadata"]["name"] != "medssl"]
    return sorted(packages, key=lambda entry: str(entry["metadata"]["name"]).lower())


def format_requirements(packages: Sequence[Package]) -> str:
    """Returns the lines for `pip install --require-hashes -r`, which refuses any other file."""
    lines = [f"# medssl {__version__}; pip install --require-hashes -r requirements.txt"]
    for entry in packages:
        name, version = entry["metadata"]["name"], entry["metadata"]["version"]
        lines.append(f"{name}=={version} --hash=sha256:{_read_hash(entry)}")
    return "\n".join(lines) + "\n"


def build_bill_of_materials(packages: Sequence[Package]) -> dict[str, Any]:
    """Returns the bill of materials in the format CycloneDX 1.6, https://cyclonedx.org/docs/1.6/json."""
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "application", "name": "medssl", "version": __version__}},
        "components": [_describe(entry) for entry in packages],
    }


def _describe(entry: Package) -> dict[str, Any]:
    """Returns one component: name, version, package URL, hash and, where it is declared, its licence."""
    metadata = entry["metadata"]
    classified = [
        text.rpartition(" :: ")[2] for text in metadata.get("classifier", []) if text.startswith("License ::")
    ]
    licence = metadata.get("license_expression") or metadata.get("license") or ", ".join(classified)
    short = licence.strip().partition("\n")[0][:100]
    component = {
        "type": "library",
        "name": metadata["name"],
        "version": metadata["version"],
        "purl": f"pkg:pypi/{metadata['name'].lower().replace('_', '-')}@{metadata['version']}",
        "hashes": [{"alg": "SHA-256", "content": _read_hash(entry)}],
    }
    return component | ({"licenses": [{"license": {"name": short}}]} if short else {})


def _read_hash(entry: Package) -> str:
    return str(entry["download_info"]["archive_info"]["hashes"]["sha256"])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
