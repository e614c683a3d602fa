"""A name in a predictions folder is text: it draws nothing, links nowhere and leads to no other folder."""

import json
import shutil

import pytest

from app import theme
from medssl.errors import BadInput
from medssl.predictions_folder import read_index
from tests.app.test_pages import start, text

LINK = (
    "[click](https://evil.site) ![x](https://evil.site/a.png) <b>bold</b> :red[x] $y$ **z** www.evil.site a@evil.site"
)


def change_index(predictions, **changes) -> None:
    index = json.loads((predictions / "index.json").read_text())
    (predictions / "index.json").write_text(json.dumps(index | changes))


def test_markdown_in_a_text_is_shown_as_it_is():
    shown = theme.escape_markdown(LINK + "\n# title")
    assert "\n" not in shown and shown.replace("\\", "") == LINK + " # title"
    for sign in ("[click](", "![x]", "<b>", ":red[", "$y$", "**z**", "www.", "a@", "https:"):
        assert sign not in shown


def test_the_worklist_shows_hostile_names_as_text(app_config, predictions):
    image = "<img src=https://evil.site/x.png>"
    cases = [{"id": case, "unit": "HU", "date": image, "patient": "p"} for case in ("case-a", "case-b", "case-c")]
    change_index(predictions, cases=cases, requested=["case-a", LINK], failed={LINK: LINK})
    (predictions / "case-b" / "findings.json").write_text("[{}]")
    app = start()
    assert image not in text(app) and "&lt;img" in text(app)
    for message in (*app.warning, *app.error):
        assert "[click](" not in message.value and "<b>" not in message.value
    assert any("click" in message.value for message in app.warning)


@pytest.mark.parametrize("name", ["../other/case-a", "..", "a/b", "", ".hidden", "/etc", "a\\\\b", "a b"])
def test_a_case_cannot_name_another_folder(predictions, name):
    change_index(predictions, cases=[{"id": name, "unit": "HU"}])
    with pytest.raises(BadInput, match="cannot name a folder"):
        read_index(predictions)


@pytest.mark.parametrize("colour", ["red;background:url(https://evil.site)", "red", "#12345", "#e0a030;", ""])
def test_a_colour_is_a_colour(predictions, colour):
    change_index(predictions, labels=[{"value": 1, "name": "nodule", "colour": colour}])
    with pytest.raises(BadInput, match="not a colour"):
        read_index(predictions)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_link_out_of_the_predictions_is_refused_and_one_inside_is_followed(predictions, tmp_path, kind):
    case = predictions / "case-a"
    shutil.copytree(case, tmp_path / "elsewhere")
    target, place = (tmp_path / "elsewhere", case) if kind == "folder" else (
        tmp_path / "elsewhere" / "image.nii.gz", case / "image.nii.gz",
    )  # fmt: skip
    shutil.rmtree(case) if kind == "folder" else place.unlink()
    place.symlink_to(target)
    with pytest.raises(BadInput, match="outside"):
        read_index(predictions).case_folder("case-a")
    place.unlink()
    place.symlink_to(predictions / "case-b" / ("" if kind == "folder" else "image.nii.gz"))
    assert read_index(predictions).case_folder("case-a") == predictions / "case-a"
