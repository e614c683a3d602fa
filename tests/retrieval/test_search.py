"""Cases are ranked by similarity, scans are encoded once, and impossible queries are refused."""

import numpy as np
import pytest

from medssl.data.ingest.read_source import ScanRef
from medssl.errors import BadInput
from medssl.retrieval.features import FeatureSource, normalize
from medssl.retrieval.search import find_scan, require_inside, search_scans
from medssl.volume import Volume


def make_scan(seed):
    voxels = np.random.default_rng(seed).normal(0, 1, (12, 10, 8)).astype(np.float32)
    return Volume(voxels, np.diag([1.0, 1.0, 2.0, 1.0]), "a.u.")


def refer(case, scan):
    return ScanRef(case, case, None, lambda: scan)


class CountingEncoder:
    """Encodes a scan as the intensities around each voxel at two levels, and counts the scans."""

    def __init__(self):
        self.count = 0

    def __call__(self, scan):
        self.count += 1
        shifts = [(i, j, k) for i in (-1, 0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1)]
        fine = np.stack([np.roll(scan.voxels, shift, (0, 1, 2)) for shift in shifts])
        step = np.diag([2.0, 2.0, 2.0, 1.0])
        return [Volume(fine, scan.affine, "a.u."), Volume(fine[:, ::2, ::2, ::2], scan.affine @ step, "a.u.")]


@pytest.fixture
def scans():
    volumes = {"a": make_scan(0), "b": make_scan(1), "copy": make_scan(0), "c": make_scan(2)}
    return [refer(case, volume) for case, volume in volumes.items()]


def test_an_identical_scan_ranks_first_and_the_query_is_left_out(scans):
    source = FeatureSource(CountingEncoder(), (), "w")
    cases, places = search_scans(scans, scans[0], [(4.0, 4.0, 8.0)], source)
    assert [row.rank for row in cases] == [1, 2, 3] and {row.case for row in cases} == {"b", "c", "copy"}
    assert cases[0].case == "copy" and cases[0].similarity == pytest.approx(1)
    assert cases[1].similarity < 0.99
    assert places[0].case == "copy" and places[0].place_mm == (4, 4, 8) and places[0].back_mm == 0
    assert places[0].is_consistent and [row.rank for row in places] == [1, 2, 3]


def test_the_order_of_the_scans_changes_no_score(scans):
    source = FeatureSource(CountingEncoder(), (), "w")
    forwards = search_scans(scans, scans[0], [(4.0, 4.0, 8.0)], source)
    backwards = search_scans(scans[::-1], scans[0], [(4.0, 4.0, 8.0)], source)
    for first, second in zip(forwards, backwards, strict=True):
        assert [row.case for row in first] == [row.case for row in second]
        np.testing.assert_allclose([row.similarity for row in first], [row.similarity for row in second])


def test_features_that_are_kept_are_not_computed_again(scans, tmp_path):
    encoder = CountingEncoder()
    source = FeatureSource(encoder, (), "w", tmp_path / "features")
    first = search_scans(scans, scans[0], [(4.0, 4.0, 8.0)], source)
    assert encoder.count == 3, "the copy has the features of the original"
    assert search_scans(scans, scans[0], [(4.0, 4.0, 8.0)], source) == first and encoder.count == 3
    files = sorted((tmp_path / "features").iterdir())
    assert len(files) == 3 and all(file.stat().st_mode & 0o077 == 0 for file in files)
    files[0].write_bytes(files[0].read_bytes()[:100])
    assert search_scans(scans, scans[0], [(4.0, 4.0, 8.0)], source) == first and encoder.count == 4
    search_scans(scans, scans[0], [], FeatureSource(encoder, (0,), "w", tmp_path / "features"))
    assert encoder.count == 7, "other levels have other features"
    search_scans(scans, scans[0], [], FeatureSource(encoder, (), "other", tmp_path / "features"))
    assert encoder.count == 10, "other weights have other features"


def test_kept_features_differ_by_the_geometry_of_the_scan(tmp_path):
    encoder = CountingEncoder()
    source = FeatureSource(encoder, (), "w", tmp_path)
    scan = make_scan(0)
    source.compute(scan)
    moved = source.compute(Volume(scan.voxels, np.eye(4), "a.u."))
    assert encoder.count == 2 and moved[0].spacing_mm() == (2, 2, 2)


def test_features_have_length_1_and_blank_ones_stay_blank():
    voxels = np.random.default_rng(0).normal(0, 1e4, (5, 3, 4, 6))
    voxels[:, 1, 1, 1] = 0
    length = np.linalg.norm(normalize(Volume(voxels, np.eye(4), "a.u.")).voxels.astype(float), axis=0)
    assert length[1, 1, 1] == 0 and np.sort(length.ravel())[1:] == pytest.approx(1, abs=2e-3)


def test_a_scan_that_cannot_be_used_is_left_out_with_its_reason(scans, caplog):
    class Choosy(CountingEncoder):
        def __call__(self, scan):
            if scan.shape != (12, 10, 8):
                raise BadInput("this scan has another shape")
            return super().__call__(scan)

    damaged = refer("damaged", Volume(np.ones((3, 3, 3), np.float32), np.eye(4), "a.u."))
    source = FeatureSource(Choosy(), (), "w")
    cases, places = search_scans([*scans, damaged], scans[0], [(4.0, 4.0, 8.0)], source)
    assert {row.case for row in cases} == {row.case for row in places} == {"b", "c", "copy"}
    assert "damaged: is left out: this scan has another shape" in caplog.text
    with pytest.raises(BadInput, match="a: none of the 1 other scans can be compared with it"):
        search_scans([scans[0], damaged], scans[0], [], source)
    with pytest.raises(BadInput, match="another shape"):
        search_scans([*scans, damaged], damaged, [], source)


def test_an_unknown_case_level_or_place_is_refused(scans):
    with pytest.raises(BadInput, match="d: no such case among 4 scans; give one of a, b, copy, c"):
        find_scan(scans, "d")
    with pytest.raises(BadInput, match="a: is the only scan"):
        find_scan(scans[:1], "a")
    with pytest.raises(BadInput, match=r"--levels 0 2: the encoder has levels 0 \(finest\) to 1"):
        search_scans(scans, scans[0], [], FeatureSource(CountingEncoder(), (0, 2), "w"))
    require_inside(make_scan(0), "a", (11.4, 0.0, 14.9))
    with pytest.raises(
        BadInput, match=r"a: the place 11, 9, 16 mm is the voxel 11, 9, 8, outside the scan of 12, 10, 8"
    ):
        require_inside(make_scan(0), "a", (11.0, 9.0, 16.0))
