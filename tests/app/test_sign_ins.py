"""A link to an image ends with the sign-in of its reader: by signing out, by idle time, by a removed role."""

import time

import pytest

from app import sign_ins
from medssl.review.access.reviewers import ReviewConfig, Reviewer
from medssl.review.access.signed_links import Link
from tests.helpers.app_client import make_client

SECRET, ANA = "s" * 16, Reviewer("ana", "reader")


@pytest.fixture
def make_config(predictions, tmp_path):
    def make(mode: str, **roles: str) -> ReviewConfig:
        return ReviewConfig(
            predictions=str(predictions), audit_db=str(tmp_path / "r.sqlite"), key="k" * 32, mode=mode, roles=roles,
            proxy_secret=SECRET,
        )  # fmt: skip

    sign_ins._get_last_use.cache_clear()
    return make


def fetch(config: ReviewConfig, sign_in: str, **headers: str) -> int:
    """The status of a request for the header of an image by a link of this sign-in."""
    link = Link(1, "image", 0, int(time.time()) + 3600, sign_in)
    with make_client(config) as client:
        return client.get(f"/api/volume/{link.sign(config.key)}/header.json", headers=headers).status_code


def test_a_link_ends_when_its_reader_signs_out(make_config):
    config = make_config("oidc", ana="reader")
    sign_in = sign_ins.name_sign_in(config, ANA, {"iat": 5})
    assert fetch(config, sign_in) == 404  # nobody has signed in
    sign_ins.mark_use(sign_in)
    assert fetch(config, sign_in) == 200
    assert fetch(config, "") == fetch(config, "0" * 16) == 404
    sign_ins.end(sign_in)
    assert fetch(config, sign_in) == 404


def test_a_link_ends_after_the_idle_time(make_config, monkeypatch):
    config = make_config("oidc", ana="reader")
    sign_in = sign_ins.name_sign_in(config, ANA, {"iat": 5})
    sign_ins.mark_use(sign_in)
    now = time.time()
    monkeypatch.setattr(sign_ins, "time", type("Clock", (), {"time": staticmethod(lambda: now + 21 * 60)}))
    assert fetch(config, sign_in) == 404


def test_behind_a_proxy_a_link_serves_only_its_reader_in_the_same_role(make_config):
    config = make_config("proxy", ana="reader", eve="reader")
    sign_in = sign_ins.name_sign_in(config, ANA, {})
    sign_ins.mark_use(sign_in)

    def knock(config: ReviewConfig, name: str, secret: str = SECRET) -> int:
        return fetch(config, sign_in, **{"X-Forwarded-User": name, "X-Proxy-Secret": secret})

    assert knock(config, "ana") == 200
    assert knock(config, "eve") == knock(config, "ana", "wrong") == fetch(config, sign_in) == 404
    assert knock(make_config("proxy", eve="reader"), "ana") == 404
    sign_ins.mark_use(sign_in)
    assert knock(make_config("proxy", ana="senior"), "ana") == 404


def test_local_mode_has_no_sign_in_that_could_end(make_config):
    config = make_config("local")
    assert sign_ins.name_sign_in(config, ANA, {}) == "" and fetch(config, "") == 200
