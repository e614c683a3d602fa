"""Requests pass only from allowed hosts, own pages and the proxy, and every response has strict headers."""

import logging
import warnings

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocketDisconnect

PROXIED = {"mode": "proxy", "proxy_secret": "s" * 16, "user_header": "X-User", "roles": {"ana": "reader"}}


@pytest.fixture
def knock(app_config):
    """A function from settings to a client of a small app behind the same middleware as the real one."""
    with warnings.catch_warnings():  # it prefers a client that is not on every machine
        warnings.simplefilter("ignore")
        from starlette.testclient import TestClient

    from app.access_middleware import build_middleware

    async def talk(socket):
        await socket.accept()
        await socket.send_text("in")
        await socket.close()

    def make(**changed) -> TestClient:
        access = app_config.model_copy(update=changed)
        routes = [Route("/", lambda request: PlainTextResponse("in")), WebSocketRoute("/talk", talk)]
        return TestClient(
            Starlette(routes=routes, middleware=build_middleware(access)), base_url="http://localhost:8501"
        )

    return make


def test_every_response_has_the_security_headers(knock):
    for answer in (knock().get("/"), knock().get("/none"), knock().get("/", headers={"Host": "evil.site"})):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["strict-transport-security"].startswith("max-age=")
        policy = dict(rule.split(" ", 1) for rule in answer.headers["content-security-policy"].split("; "))
        assert policy["default-src"] == policy["connect-src"] == "'self'"
        assert policy["frame-ancestors"] == policy["object-src"] == "'none'"
        assert "http" not in answer.headers["content-security-policy"]


@pytest.mark.parametrize(("host", "code"), [("127.0.0.1:8501", 200), ("localhost", 200), ("evil.site", 400), ("", 400)])
def test_only_allowed_hosts_are_answered(knock, host, code):
    assert knock().get("/", headers={"Host": host}).status_code == code


@pytest.mark.parametrize(
    ("origin", "let_in"),
    [
        ("http://localhost:8501", True),
        ("https://evil.site", False),
        ("null", False),
        ("http://localhost.evil", False),
        ("http://localhost:1", False),
        ("http://127.0.0.1:8501", False),
        ("http://localhost", False),
        ("http://localhost:x", False),
        ("https://localhost", False),
    ],
)
def test_pages_of_other_sites_are_rejected(knock, origin, let_in):
    assert knock().get("/", headers={"Origin": origin}).status_code == (200 if let_in else 403)
    talk = knock().websocket_connect("ws://localhost:8501/talk", headers={"Origin": origin})
    if let_in:
        with talk as socket:
            assert socket.receive_text() == "in"
    else:
        with pytest.raises(WebSocketDisconnect) as refused, talk:
            pass
        assert refused.value.status_code == 403


@pytest.mark.parametrize(
    ("origin", "code"),
    [("https://review.site", 200), ("https://review.site:8443", 403), ("https://other.site", 403)],
)
def test_a_proxy_may_rewrite_the_host_but_not_the_origin(knock, origin, code):
    hosts = ("127.0.0.1", "localhost", "review.site")
    assert knock(hosts=hosts).get("/", headers={"Origin": origin, "Host": "127.0.0.1:8501"}).status_code == code


@pytest.mark.parametrize("path", ["/_stcore/metrics", "/_stcore/metrics/"])
def test_metrics_need_a_sign_in(knock, path):
    assert knock().get(path).status_code == knock(mode="oidc").get(path).status_code == 403
    assert knock(**PROXIED).get(path).status_code == 403
    headers = {"X-User": "ana", "X-Proxy-Secret": "s" * 16}
    assert knock(**PROXIED).get(path, headers=headers).status_code == 404  # passed on; this small app has none


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ([], 403),
        ([("X-User", "ana")], 403),
        ([("X-User", "ana"), ("X-Proxy-Secret", "wrong")], 403),
        ([("X-User", "ana"), ("X-Proxy-Secret", "")], 403),
        ([("X-User", "ana"), ("X-Proxy-Secret", "s" * 16)], 200),
        ([("X-User", "eve"), ("X-User", "ana"), ("X-Proxy-Secret", "s" * 16)], 403),
    ],
)
def test_requests_that_bypass_the_proxy_are_rejected(knock, headers, code):
    assert knock(**PROXIED).get("/", headers=headers).status_code == code


def test_a_log_names_no_case(capsys):
    from app import logs

    before = logging.getLogRecordFactory()
    handler = logging.StreamHandler()
    log = logging.getLogger("streamlit.test")
    log.addHandler(handler)
    try:
        with warnings.catch_warnings():
            logs.redact_logs()
        try:
            raise ValueError("Mustermann^Max")
        except ValueError as error:
            log.error("Uncaught app execution", exc_info=error)
    finally:
        logging.setLogRecordFactory(before)
        log.removeHandler(handler)
    assert not logging.getLogger("uvicorn.access").isEnabledFor(logging.CRITICAL)
    log_text = capsys.readouterr().err
    assert "Mustermann" not in log_text.replace('raise ValueError("Mustermann^Max")', "")
    assert log_text.rstrip().endswith("ValueError") and "test_access_middleware.py" in log_text
