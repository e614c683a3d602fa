"""A release installs exactly the files that were resolved, and lists them with their licences."""

import subprocess
import sys
import zipfile

import pytest

from docs import write_release
from medssl.files import sha256


@pytest.fixture
def wheels(tmp_path):
    """A folder with a wheel of one module."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    write_wheel(folder / "tiny_part-1.0-py3-none-any.whl", "A = 1\n")
    return folder


def write_wheel(path, code):
    metadata = (
        "Metadata-Version: 2.4\nName: tiny-part\nVersion: 1.0\nClassifier: License :: OSI Approved :: MIT License\n"
    )
    wheel = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny_part.py", code)
        archive.writestr("tiny_part-1.0.dist-info/METADATA", metadata)
        archive.writestr("tiny_part-1.0.dist-info/WHEEL", wheel)
        archive.writestr("tiny_part-1.0.dist-info/RECORD", "")


@pytest.mark.slow
def test_another_file_than_the_resolved_one_is_not_installed(wheels, tmp_path):
    offline = ["--no-index", "--find-links", str(wheels)]
    packages = write_release.resolve([*offline, "tiny-part"])
    digest = sha256(wheels / "tiny_part-1.0-py3-none-any.whl")
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(write_release.format_requirements(packages))
    assert f"tiny-part==1.0 --hash=sha256:{digest}" in requirements.read_text().splitlines()
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--require-hashes"]
    command += [*offline, "-r", str(requirements)]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    write_wheel(wheels / "tiny_part-1.0-py3-none-any.whl", "A = 2\n")
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode != 0 and "DO NOT MATCH THE HASHES" in refused.stderr
    (component,) = write_release.build_bill_of_materials(packages)["components"]
    assert component["purl"] == "pkg:pypi/tiny-part@1.0" and component["hashes"][0]["content"] == digest
    assert component["licenses"] == [{"license": {"name": "MIT License"}}]
