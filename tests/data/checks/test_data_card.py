"""Cards: each says what its store holds, and a changed number is found."""

import re
from pathlib import Path

import pytest

from medssl import cli
from medssl.data.checks import data_card as cards
from medssl.data.checks.data_card import Facts
from medssl.data.ingest.pipeline import Options, ingest
from medssl.data.phantoms import datasets as phantom
from medssl.errors import BadInput

CARDS = Path(__file__).resolve().parents[3] / "data_cards"
SETS = {
    "hippocampus": {},
    "headneck_ct": {},
    "sarcoma": {},
    "nodules": {},
    "dicom": {"spacing_mm": "native", "deidentify": False},
}


def prepared(scans, store, **options):
    ingest(scans, store, Options(workers=1, **options), lambda done, of: None)
    return store


def drawn(folder, kind):
    count, spacing_mm = {"chest": (10, 4.0), "head": (5, 3.0)}[kind]
    phantom.demo_folder(folder / "scans", 0, count, 0, (72, 72, 72), spacing_mm, kind)
    return prepared(folder / "scans", folder / "store")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Four tiny chests, three of them with a site, an age and a sex."""
    folder = tmp_path_factory.mktemp("cards")
    phantom.demo_folder(folder / "scans", 3, 4, 0, (24, 24, 24), 12.0, "chest")
    rows = ["chest-3000,north,61,F", "chest-3001,north,70,M", "chest-3002,south,,F"]
    (folder / "scans/curated/cases.csv").write_text("\n".join(["case,site,age_years,sex", *rows]))
    return prepared(folder / "scans", folder / "store")


def test_a_card_tells_counts_sites_ages_labels_and_facts(store, tmp_path):
    cards.write(store, Facts(title="Chests", licence="free", problems=("small",)), tmp_path / "CARD.md")
    told = (tmp_path / "CARD.md").read_text()
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
        assert line in told.splitlines()
    assert (tmp_path / "CARD.png").read_bytes().startswith(b"\x89PNG")
    assert re.search(r"\| 1 \| lung \| 4 \| \d", told)
    assert "splits: patients (cases) | train 3 (3), test 1 (1) |" in told


def test_every_changed_number_is_found(store, tmp_path):
    """The planted fault: each number in turn is another."""
    cards.write(store, Facts(), tmp_path / "CARD.md")
    right = (tmp_path / "CARD.md").read_text()
    facets = cards.Facets.of(store)
    assert cards.text(facets, Facts(), "CARD.png") == right
    assert cards.faults(store, Facts(), tmp_path / "CARD.md") == []
    places = [m.start() for m in re.finditer(r"\d", right)]
    assert len(places) > 80
    for at in places[::9]:
        wrong = right[:at] + str((int(right[at]) + 1) % 10) + right[at + 1 :]
        (tmp_path / "CARD.md").write_text(wrong)
        found = cards.faults(store, Facts(), tmp_path / "CARD.md")
        assert len(found) == 2 and found[0][0] == "-" and found[1][0] == "+"


def test_the_command_writes_and_checks(store, tmp_path, capsys):
    (tmp_path / "facts.yaml").write_text("title: Chests\ncite: [One et al.]\n")
    words = [str(store), "--facts", str(tmp_path / "facts.yaml"), "--out", str(tmp_path / "c.md")]
    assert cli.run("data-card", [*words, "--check"]) == 2 and "no card" in capsys.readouterr().err
    assert cli.run("data-card", words) == 0 and cli.run("data-card", [*words, "--check"]) == 0
    (tmp_path / "facts.yaml").write_text("title: Heads\n")
    assert cli.run("data-card", [*words, "--check"]) == 2 and "# Heads" in capsys.readouterr().err
    (tmp_path / "facts.yaml").write_text("titel: Heads\n")
    assert cli.run("data-card", words) == 2 and "titel" in capsys.readouterr().err


def test_no_store_is_no_card(tmp_path):
    with pytest.raises(BadInput, match="no manifest"):
        cards.write(tmp_path, Facts(), tmp_path / "c.md")


def test_every_card_has_facts_a_picture_and_a_test():
    names = {path.stem for path in CARDS.glob("*.md")} - {"TEMPLATE"}
    assert names == {*SETS, "phantom_chest", "phantom_head"}
    assert names == {path.stem for path in (CARDS / "facts").glob("*.yaml")} == {p.stem for p in CARDS.glob("*.png")}
    for name in names:
        facts = Facts.read(CARDS / "facts" / f"{name}.yaml")
        assert "not told" not in (CARDS / f"{name}.md").read_text() and facts.cite and facts.problems


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["chest", "head"])
def test_the_card_of_a_phantom_set_is_right(tmp_path, kind):
    name = f"phantom_{kind}"
    assert cards.faults(drawn(tmp_path, kind), Facts.read(CARDS / f"facts/{name}.yaml"), CARDS / f"{name}.md") == []


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_the_card_of_a_real_set_is_right(shared_data, tmp_path, name):
    store = prepared(shared_data(name), tmp_path / "store", **SETS[name])
    assert cards.faults(store, Facts.read(CARDS / f"facts/{name}.yaml"), CARDS / f"{name}.md") == []
