"""Sign-in with OIDC: button, identity provider, callback, page."""

import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn
from joserfc import jwt
from joserfc.jwk import RSAKey
from starlette.applications import Starlette
from starlette.responses import JSONResponse, RedirectResponse
from starlette.routing import Route

from benchmarks._browser import answering, free

pytestmark = [pytest.mark.browser, pytest.mark.slow]
ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def run_provider(identity: dict):
    """Runs an identity provider that signs everybody in as `identity`; yields its address."""
    port, key, nonces = free(), RSAKey.generate_key(2048, {"kid": "1"}), []
    base = f"http://127.0.0.1:{port}"

    def describe(_):
        ends = {"authorization_endpoint": "authorize", "token_endpoint": "token", "jwks_uri": "jwks"}
        return JSONResponse({"issuer": base} | {name: f"{base}/{end}" for name, end in ends.items()})

    def authorize(request):
        query = request.query_params
        nonces.append(query["nonce"])
        return RedirectResponse(f"{query['redirect_uri']}?code=1&state={query['state']}")

    def token(_):
        now = int(time.time())
        claims = {
            "iss": base,
            "aud": "medssl",
            "sub": "1",
            "iat": now,
            "exp": now + 600,
            "nonce": nonces[-1],
        } | identity
        signed = jwt.encode({"alg": "RS256", "kid": "1"}, claims, key)
        return JSONResponse({"access_token": "x", "token_type": "Bearer", "expires_in": 600, "id_token": signed})

    routes = [
        Route("/.well-known/openid-configuration", describe),
        Route("/authorize", authorize),
        Route("/token", token, methods=["POST"]),
        Route("/jwks", lambda _: JSONResponse({"keys": [key.as_dict(private=False)]})),
    ]
    server = uvicorn.Server(uvicorn.Config(Starlette(routes=routes), port=port, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield base
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def run_app(predictions: Path, base: str):
    """Serves the app with sign-in at the provider; yields its address."""
    folder, port = predictions.parent, free()
    (folder / "roles.yaml").write_text("ana@site: senior")
    settings = {
        "redirect_uri": f"http://127.0.0.1:{port}/oauth2callback",
        "cookie_secret": "c" * 32,
        "client_id": "medssl",
        "client_secret": "s" * 16,
        "server_metadata_url": f"{base}/.well-known/openid-configuration",
    }
    lines = "".join(f'{name} = "{value}"\n' for name, value in settings.items())
    (folder / "secrets.toml").write_text(f"[auth]\n{lines}")
    (folder / "secrets.toml").chmod(0o600)
    command = [sys.executable, "-m", "medssl.cli", "review", str(predictions), "--port", str(port)]
    command += ["--oidc", str(folder / "secrets.toml"), "--roles", str(folder / "roles.yaml")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL) as process:
        try:
            answering(port)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


def test_the_provider_identifies_a_person_and_the_roles_give_access(predictions, browser):
    identity = {"email_verified": True}
    people = {"Ana@Site": "case-a", "eve@site": "No role in this review"}
    with run_provider(identity) as base, run_app(predictions, base) as url:
        for identity["email"], shown_text in people.items():
            sign_in(browser, url, shown_text)


def sign_in(browser, url: str, shown_text: str) -> None:
    """Signs in in a new browser session, and checks what the page shows before and after."""
    page = browser.new_context(viewport={"width": 1500, "height": 920}).new_page()
    page.goto(url)
    page.get_by_text("Not signed in").wait_for(timeout=120_000)
    assert "case-a" not in page.content()
    page.get_by_role("button", name="Sign in").click()
    page.get_by_text(shown_text).first.wait_for(timeout=120_000)
    assert ("case-a" in page.content()) == (shown_text == "case-a")
    page.context.close()
