"""A reader opens, accepts, reloads and signs a case in a real browser; no request leaves the machine."""

import re
import signal

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def decisions(server) -> list[tuple[str, str]]:
    return [(e.action, e.finding) for e in server.store.read_events() if e.action not in ("open", "predict")]


def open_first(page, url: str) -> None:
    page.goto(url)
    page.get_by_role("button", name="Read next case").click(timeout=60_000)
    page.locator("canvas").first.wait_for(timeout=60_000)
    page.locator(".mv-verdict").first.wait_for()


def wait_until(page, true, seconds: float = 30) -> None:
    for _ in range(int(seconds * 5)):
        if true():
            return
        page.wait_for_timeout(200)
    assert true()


def test_what_was_accepted_is_still_accepted_after_a_reload(server, browser):
    page = browser.new_page(viewport={"width": 1500, "height": 920})
    outside, errors, violations = [], [], set()
    page.expose_function("addViolation", lambda blocked: violations.add(blocked))
    page.add_init_script(
        "document.addEventListener('securitypolicyviolation', (e) => window.addViolation(e.blockedURI))"
    )
    page.on("request", lambda r: outside.append(r.url) if not re.match(rf"({server.url}|data:|blob:)", r.url) else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    open_first(page, server.url)
    assert "case-a" not in page.url and "case-a" not in page.title()
    assert page.get_by_text("Research use only. Not for clinical use.").count()
    page.locator(".mv-accept").click()
    wait_until(page, lambda: decisions(server) == [("accept", "case-a-1-1")])
    page.reload()
    page.get_by_text("accepted").first.wait_for(timeout=60_000)
    page.locator(".mv-reject").click()
    wait_until(page, lambda: decisions(server)[1:] == [("reject", "case-a-1-2")])
    page.get_by_role("button", name="Sign off").click()
    page.get_by_text(re.compile("Signed 20")).wait_for()
    assert [action for action, _ in decisions(server)] == ["accept", "reject", "sign"]
    assert server.store.find_faults() == []
    assert outside == [] and errors == []
    assert violations <= {"wasm-eval"}  # a faster way of Streamlit to count, which it does without


def test_no_inline_script_and_no_style_attribute_takes_effect(server, browser):
    """What gets into the page as text is neither run nor laid out, even if nothing had escaped it."""
    page = browser.new_page()
    page.goto(server.url)
    page.get_by_role("button", name="Read next case").wait_for(timeout=60_000)
    page.evaluate(
        """() => {
            const box = document.body.appendChild(document.createElement("div"));
            box.innerHTML = "<img src='x' onerror='window.didRun = 1'><p id=styled style='position: fixed'>text</p>";
            const script = box.appendChild(document.createElement("script"));
            script.textContent = "window.didRun = 2";
            return new Promise((done) => box.firstChild.addEventListener("error", () => setTimeout(done)));
        }"""
    )
    assert page.evaluate("window.didRun") is None
    assert page.evaluate("getComputedStyle(document.getElementById('styled')).position") == "static"
    evaluate = "try { done(new Function('return 1')()); } catch { done('refused'); }"  # later: the browser's own may
    assert page.evaluate(f"() => new Promise((done) => setTimeout(() => {{ {evaluate} }}, 10))") == "refused"


def test_a_stopped_server_loses_no_verdict(server, browser):
    """The click waits in the browser until the server is there again."""
    page = browser.new_page(viewport={"width": 1500, "height": 920})
    page.goto(f"{server.url}/case?case=2")
    before = decisions(server)
    page.locator(".mv-accept:enabled").wait_for(timeout=60_000)
    server.process.send_signal(signal.SIGSTOP)
    page.locator(".mv-accept").click()
    page.wait_for_timeout(1500)
    assert decisions(server) == before
    server.process.send_signal(signal.SIGCONT)
    wait_until(page, lambda: decisions(server) == [*before, ("accept", "case-b-1-1")])
