"""The sizes of a finding are those of the reader, and the same wherever they are shown."""

import numpy as np
import pytest

from medssl.finding import format_volume
from medssl.review.access.signed_links import Link
from medssl.review.event_store import EventStore
from medssl.review.image_files import ImageFiles
from tests.app.test_pages import case, start, text, viewer_data
from tests.export.test_export import (
    A1,
    A2,
    ReviewedPredictions,
    collect_reports,
    locate,
    paint,
    read_groups,
    read_reviewed,
    read_table,
)


@pytest.fixture
def review(predictions, app_config):
    review = ReviewedPredictions(predictions)
    review.store = EventStore(app_config.audit_db)
    return review


def read_cards():
    return {finding["id"]: finding for finding in viewer_data(case(1))["findings"]}


def test_one_size_is_on_card_worklist_pdf_sr_and_csv(review, tmp_path, monkeypatch):
    predicted = read_cards()
    i, j, k = locate(review, A1)
    paint(review, A1, (slice(i, i + 8), slice(j - 2, j + 3), slice(k - 2, k + 3)))
    paint(review, A1, (slice(0, 6), slice(26, 32), slice(0, 6)))  # a part of its own
    cards, part = read_cards(), f"{A1}-part-3"  # event 1 opens the case, event 3 is this stroke
    assert cards[A1]["volume_ml"] > predicted[A1]["volume_ml"] and cards[A2] == predicted[A2]
    assert [p["id"] for p in cards[A1]["parts"]] == [part]
    sizes = {card["id"]: (card["volume_ml"], card["diameter_mm"]) for card in (*cards.values(), *cards[A1]["parts"])}
    assert format_volume(sizes[A1][0]) in text(start())
    review.act("edit", A1).act("accept", A2).sign().export(tmp_path / "out")
    rows, groups = read_table(tmp_path / "out"), read_groups(tmp_path / "out")
    reports = collect_reports(monkeypatch)
    review.export(tmp_path / "again")
    cells = dict(zip(rows, reports[0].rows, strict=True))
    assert set(sizes) == set(rows) == set(groups) == {A1, A2, part}
    for name, (volume_ml, diameter_mm) in sizes.items():
        assert float(rows[name]["volume_ml"]) == round(volume_ml, 4)
        assert float(rows[name]["diameter_mm"]) == round(diameter_mm, 2)
        assert f"{volume_ml:.2f} mL" in [value for _, _, value in groups[name]]
        assert f"{diameter_mm:.2f} mm" in [value for _, _, value in groups[name]]
        assert f"{cells[name][2]} ml" == format_volume(volume_ml)
        assert cells[name][4] == f"{diameter_mm:.1f}"


def test_an_added_finding_has_a_size_once_it_is_drawn(review):
    details = '{"centre_mm": [0, 0, 0], "low_mm": [0, 0, 0], "high_mm": [0, 0, 0], "volume_ml": 0, "diameter_mm": 0, '
    review.act("missed", "mine", label=2, details=details + '"score": 1, "label": 2, "name": "cyst"}')
    assert read_cards()["mine"]["volume_ml"] == 0
    paint(review, "mine", (slice(0, 4), slice(0, 4), slice(0, 4)), label=2)
    assert read_cards()["mine"]["volume_ml"] == pytest.approx(64 * review.read_labels().voxel_ml())
    assert "nothing" not in text(case(1))


def test_the_overlay_names_the_finding_of_each_voxel(review):
    """The number that a finding has on its card is in its voxels, above the two labels."""
    paint(review, A2, (slice(0, 2), slice(0, 2), slice(0, 2)))
    files = ImageFiles(review.index.folder, review.store.name)
    voxels = files.open(files.find(Link(1, "findings", 1, 0))).read_planes(0, review.read_labels().shape[2])
    numbers = {name: card["number"] for name, card in read_cards().items()}
    assert numbers == {A1: 3, A2: 4} and voxels[locate(review, A1)] == 3 and voxels[locate(review, A2)] == 4
    assert (voxels[:2, :2, :2] == 4).all() and set(np.unique(voxels)) == {0, 3, 4}
    assert set(np.unique(files.open(files.find(Link(1, "labels", 0, 0))).read_planes(0, 1))) <= {0, 1}
    assert read_reviewed(review).items[1].finding.volume_ml == read_cards()[A2]["volume_ml"]
