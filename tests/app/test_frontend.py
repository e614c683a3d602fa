"""Every page starts with a loading state, and browsers cache the files of the viewer by their hash."""

import re
import warnings

import pytest
from starlette.applications import Starlette

from app import frontend
from medssl.predictions_folder import NOTICE
from medssl.viewer import component


@pytest.fixture
def client():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from starlette.testclient import TestClient
    return TestClient(Starlette(routes=frontend.build_routes()))


def test_every_page_begins_with_a_loading_state_in_the_place_that_streamlit_fills(client):
    for path in frontend.PAGES:
        page = client.get(path).text
        assert "Opening the review" in page and page.count('<div id="root">') == 1 and "/static/js/" in page
        assert "<title>Review</title>" in page and NOTICE in page


def test_the_viewer_is_kept_by_the_browser_and_the_page_sends_only_its_address(client):
    for name, content in component.load_frontend().items():
        answer = client.get(f"{component.frontend_folder()}/{name}")
        assert answer.content == content and "immutable" in answer.headers["cache-control"]
        assert answer.headers["content-type"].startswith("text/css" if name.endswith(".css") else "text/javascript")
    modules = component.load_frontend()
    assert b"export default function mount" in modules["viewer.js"] and b".mv-bar" in modules["viewer.css"]
    assert component.frontend_folder() in component.loader_script() and len(component.loader_script()) < 400


def test_every_page_names_all_modules_in_its_head_so_that_they_load_before_streamlit_asks_for_them(client):
    scripts = {name for name in component.load_frontend() if name.endswith(".js")}
    for path in frontend.PAGES:
        head = client.get(path).text.partition("</head>")[0]
        links = re.findall(r'<link rel="modulepreload" href="([^"]*)">', head)
        assert {link.rpartition("/")[2] for link in links} == scripts and len(links) == len(scripts)
        assert all(client.get(link).status_code == 200 for link in links)


@pytest.mark.parametrize("path", ["types.d.ts", "component.py", "..%2Fcomponent.py", "viewer.js/", ""])
def test_nothing_else_is_served_from_the_folder_of_the_viewer(client, path):
    assert client.get(f"{component.frontend_folder()}/{path}", follow_redirects=False).status_code in (307, 404)


def test_every_import_names_a_file_of_the_same_folder():
    modules = component.load_frontend()
    source = b"\n".join(modules.values()).decode()
    imported = set(re.findall(r'^import .* from "(.*)";$', source, re.MULTILINE))
    assert imported and all(name.startswith("./") and name[2:] in modules for name in imported)


def test_a_change_of_any_file_changes_the_address_of_all(monkeypatch):
    folder = component.frontend_folder()
    modules = dict(component.load_frontend())
    for name in modules:
        monkeypatch.setattr(component, "load_frontend", lambda name=name: modules | {name: modules[name] + b" "})
        assert component.frontend_folder() != folder
