"""Data cards agree with their stores, and every changed number is found."""

import re
from pathlib import Path

import pytest

from medssl import cli
from medssl.data.checks import data_card
from medssl.data.checks.data_card import DataCardFacts
from medssl.data.ingest.config import IngestConfig
from medssl.data.ingest.pipeline import ingest
from medssl.data.phantoms import datasets
from medssl.errors import BadInput

CARDS = Path(__file__).resolve().parents[3] / "data_cards"
SETS = {
    "hippocampus": {},
    "headneck_ct": {},
    "sarcoma": {},
    "nodules": {},
    "dicom": {"spacing_mm": "native", "deidentify": False},
}


def ingest_into(scans, store, **options):
    ingest(scans, store, IngestConfig(num_workers=0, **options), lambda done, of: None)
    return store


def make_phantom_store(folder, kind):
    count, spacing_mm = {"chest": (10, 4.0), "head": (5, 3.0)}[kind]
    datasets.write_demo_folder(folder / "scans", 0, count, 0, (72, 72, 72), spacing_mm, kind)
    return ingest_into(folder / "scans", folder / "store")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Four tiny chests, three of them with a site, an age and a sex."""
    folder = tmp_path_factory.mktemp("cards")
    datasets.write_demo_folder(folder / "scans", 3, 4, 0, (24, 24, 24), 12.0, "chest")
    rows = ["chest-3000,north,61,F", "chest-3001,north,70,M", "chest-3002,south,,F"]
    (folder / "scans/curated/cases.csv").write_text("\n".join(["case,site,age_years,sex", *rows]))
    return ingest_into(folder / "scans", folder / "store")


def test_a_card_states_counts_sites_ages_labels_and_facts(store, tmp_path):
    data_card.write_card(
        store, DataCardFacts(title="Chests", licence="free", problems=("small",)), tmp_path / "CARD.md"
    )
    card = (tmp_path / "CARD.md").read_text()
    for line in (
        "# Chests",
        "| cases | 4, 4 of them labelled |",
        "| patients | 4 |",
        "| modality | CT in HU, channels: 1 (4) |",
        "| scanner or site | north (2), not recorded (1), south (1) |",
        "| age | 65.5 (61 to 70) years, of 2 of 4 patients |",
        "| sex | F (2), M (1), not recorded (1) |",
        "**Licence.** free",
        "- small",
        "![spacing, shape and volumes](CARD.png)",
    ):
        assert line in card.splitlines()
    assert (tmp_path / "CARD.png").read_bytes().startswith(b"\x89PNG")
    assert re.search(r"\| 1 \| lung \| 4 \| \d", card)
    assert "splits: patients (cases) | train 3 (3), test 1 (1) |" in card


def test_every_changed_number_is_found(store, tmp_path):
    """The planted fault: each number in turn is another."""
    data_card.write_card(store, DataCardFacts(), tmp_path / "CARD.md")
    expected = (tmp_path / "CARD.md").read_text()
    summary = data_card.StoreSummary.from_store(store)
    assert data_card.render_card(summary, DataCardFacts(), "CARD.png") == expected
    assert data_card.find_differences(store, DataCardFacts(), tmp_path / "CARD.md") == []
    digits = [m.start() for m in re.finditer(r"\d", expected)]
    assert len(digits) > 80
    for index in digits[::9]:
        wrong = expected[:index] + str((int(expected[index]) + 1) % 10) + expected[index + 1 :]
        (tmp_path / "CARD.md").write_text(wrong)
        lines = data_card.find_differences(store, DataCardFacts(), tmp_path / "CARD.md")
        assert len(lines) == 2 and lines[0][0] == "-" and lines[1][0] == "+"


def test_the_command_writes_and_checks(store, tmp_path, capsys):
    (tmp_path / "facts.yaml").write_text("title: Chests\ncite: [One et al.]\n")
    args = [str(store), "--facts", str(tmp_path / "facts.yaml"), "--out", str(tmp_path / "c.md")]
    assert cli.run("data-card", [*args, "--check"]) == 2 and "no card" in capsys.readouterr().err
    assert cli.run("data-card", args) == 0 and cli.run("data-card", [*args, "--check"]) == 0
    (tmp_path / "facts.yaml").write_text("title: Heads\n")
    assert cli.run("data-card", [*args, "--check"]) == 2 and "# Heads" in capsys.readouterr().err
    (tmp_path / "facts.yaml").write_text("titel: Heads\n")
    assert cli.run("data-card", args) == 2 and "titel" in capsys.readouterr().err


def test_a_folder_without_a_store_is_refused(tmp_path):
    with pytest.raises(BadInput, match="no manifest"):
        data_card.write_card(tmp_path, DataCardFacts(), tmp_path / "c.md")


def test_every_card_has_facts_a_picture_and_a_test():
    names = {path.stem for path in CARDS.glob("*.md")} - {"TEMPLATE"}
    assert names == {*SETS, "phantom_chest", "phantom_head"}
    assert names == {path.stem for path in (CARDS / "facts").glob("*.yaml")} == {p.stem for p in CARDS.glob("*.png")}
    for name in names:
        facts = DataCardFacts.read(CARDS / "facts" / f"{name}.yaml")
        assert "not stated" not in (CARDS / f"{name}.md").read_text() and facts.cite and facts.problems


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["chest", "head"])
def test_the_card_of_a_phantom_set_is_right(tmp_path, kind):
    name = f"phantom_{kind}"
    assert (
        data_card.find_differences(
            make_phantom_store(tmp_path, kind), DataCardFacts.read(CARDS / f"facts/{name}.yaml"), CARDS / f"{name}.md"
        )
        == []
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_the_card_of_a_real_set_is_right(shared_data, tmp_path, name):
    store = ingest_into(shared_data(name), tmp_path / "store", **SETS[name])
    assert (
        data_card.find_differences(store, DataCardFacts.read(CARDS / f"facts/{name}.yaml"), CARDS / f"{name}.md") == []
    )
