"""Behind a proxy only its readers see cases, and the log contains no names."""

import re

import pytest

from benchmarks.reviewers import SECRET, USER, front
from medssl.review.event_store import EventStore

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_a_reader_opens_a_case_by_its_address_on_a_server_that_just_started(
    proxied_server, browser, served_predictions
):
    """The whole way of a name: proxy, websocket, page, event; and of an error: page, log, no name."""
    _, port, store, log = proxied_server
    outside = []
    with front(port, "ana") as door, front(port, "eve") as other:
        page = browser.new_page(viewport={"width": 1500, "height": 920})
        own_address = rf"(http://127.0.0.1:({door}|{other})/|data:|blob:)"
        page.on("request", lambda r: outside.append(r.url) if not re.match(own_address, r.url) else None)
        page.goto(f"http://127.0.0.1:{door}/case?case=1")
        page.locator(".mv-accept").click(timeout=120_000)
        for _ in range(150):
            if any(e.action == "accept" for e in EventStore(store).read_events()):
                break
            page.wait_for_timeout(200)
        assert {(e.reviewer, e.role) for e in EventStore(store).read_events() if e.action != "predict"} == {
            ("ana", "senior")
        }

        (served_predictions / "case-a" / "findings.json").write_text("[{}]")
        page.goto(f"http://127.0.0.1:{door}/case?case=1")
        page.get_by_text("This page failed").wait_for(timeout=120_000)
        assert "case-a" not in page.content() and page.title() == "Review"

        page.goto(f"http://127.0.0.1:{other}/case?case=2")
        page.get_by_text("Not signed in").wait_for(timeout=120_000)
        assert "case-b" not in page.content()
    assert outside == []
    log_text = log.read_text()
    assert "BadInput" in log_text and "case-a" not in log_text and SECRET not in log_text and ".image." not in log_text


def test_a_request_that_bypasses_the_proxy_is_rejected(proxied_server, browser):
    page = browser.new_page(extra_http_headers={USER: "ana"})
    answer = page.goto(proxied_server[0])
    assert (answer.status, page.inner_text("body")) == (403, "not allowed")
    assert "content-security-policy" in answer.headers
