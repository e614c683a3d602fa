"""Signing in through OIDC, the whole way: button, identity provider, callback, page; and out again."""

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

from benchmarks.reviewers import answering, free

pytestmark = [pytest.mark.browser, pytest.mark.slow]
ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def provider(who: dict):
    """An identity provider that asks nothing and says that everybody is `who`; gives its address."""
    port, key, nonces = free(), RSAKey.generate_key(2048, {"kid": "1"}), []
    base = f"http://127.0.0.1:{port}"

    def told(_):
        ends = {"authorization_endpoint": "authorize", "token_endpoint": "token", "jwks_uri": "jwks"}
        return JSONResponse({"issuer": base} | {name: f"{base}/{end}" for name, end in ends.items()})

    def authorize(request):
        asked = request.query_params
        nonces.append(asked["nonce"])
        return RedirectResponse(f"{asked['redirect_uri']}?code=1&state={asked['state']}")

    def token(_):
        now = int(time.time())
        claims = {"iss": base, "aud": "medssl", "sub": "1", "iat": now, "exp": now + 600, "nonce": nonces[-1]} | who
        signed = jwt.encode({"alg": "RS256", "kid": "1"}, claims, key)
        return JSONResponse({"access_token": "x", "token_type": "Bearer", "expires_in": 600, "id_token": signed})

    routes = [
        Route("/.well-known/openid-configuration", told),
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
def signing_in(predictions: Path, base: str):
    """The app that sends people to the provider; gives its address."""
    folder, port = predictions.parent, free()
    (folder / "roles.yaml").write_text("ana@site: senior")
    said = {"redirect_uri": f"http://127.0.0.1:{port}/oauth2callback", "cookie_secret": "c" * 32, "client_id": "medssl",
            "client_secret": "s" * 16, "server_metadata_url": f"{base}/.well-known/openid-configuration"}  # fmt: skip
    (folder / "secrets.toml").write_text("[auth]\n" + "".join(f'{name} = "{value}"\n' for name, value in said.items()))
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


@pytest.mark.parametrize(
    ("who", "said"),
    [
        ({"email": "Ana@Site", "email_verified": True}, "case-a"),
        ({"email": "eve@site", "email_verified": True}, "No role here"),
    ],
)
def test_the_provider_says_who_it_is_and_the_roles_what_they_may(predictions, browser, who, said):
    with provider(who) as base, signing_in(predictions, base) as url:
        page = browser.new_context(viewport={"width": 1500, "height": 920}).new_page()
        page.goto(url)
        page.get_by_text("Not signed in").wait_for(timeout=120_000)
        assert "case-a" not in page.content()
        page.get_by_role("button", name="Sign in").click()
        page.get_by_text(said).first.wait_for(timeout=120_000)
        assert ("case-a" in page.content()) == (said == "case-a")
        page.context.close()
