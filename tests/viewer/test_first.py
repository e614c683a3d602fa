"""The reader sees the finding before the rest of the scan has arrived."""

from urllib.parse import parse_qs, urlparse

import numpy as np
import pytest

from medssl.io.slabs import slab_file
from medssl.volume import Volume

pytestmark = pytest.mark.browser


@pytest.mark.parametrize(("selected", "first"), [("low", 4), ("high", 16), (None, 4)])
def test_the_slab_around_the_finding_is_requested_first(screen, monkeypatch, selected, first):
    shape = (24, 20, 20)
    monkeypatch.setattr(slab_file, "SLAB_BYTES", 24 * 20 * 4 * 2)  # four planes of 16-bit voxels
    scan = Volume(np.random.default_rng(3).integers(-1000, 500, shape).astype(np.int16), np.eye(4), "HU")
    findings = [{"id": name, "label": 1, "name": "nodule", "centre_mm": [5, 5, k], "diameter_mm": 4, "volume_ml": 0.1,
                 "score": 0.9} for name, k in (("low", 6), ("high", 17))]  # fmt: skip
    screen.open(scan, findings=findings, selected=selected)
    queries = [parse_qs(urlparse(url).query) for url in screen.requested if "/voxels" in url]
    assert (queries[0]["from"], queries[0]["to"]) == ([str(first)], [str(first + 4)])
    assert sorted(int(query["from"][0]) for query in queries) == [0, 4, 8, 12, 16]
