"""What many tests lean on."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data():
    """A function from a data set's name to its folder; the test is skipped where the set is not on this machine."""

    def find(name: str) -> Path:
        folder = SHARED / name
        if not folder.exists():
            pytest.skip(f"needs the real data set {name!r} in {SHARED}")
        return folder

    return find
