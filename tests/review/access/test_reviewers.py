"""Who is let in, and as whom."""

import pytest

from medssl.errors import BadInput
from medssl.review.access.reviewers import VARIABLE, Access, Reviewer, identify

BASE = {"predictions": "p", "store": "s", "key": "k" * 32}


def test_settings_survive_the_environment(monkeypatch):
    access = Access(**BASE, roles={"ana": "senior"})
    for name, value in access.to_environment().items():
        monkeypatch.setenv(name, value)
    assert Access.from_environment() == access


def test_an_app_started_by_hand_says_how_to_start_it(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(BadInput, match="medssl review"):
        Access.from_environment()


def test_on_a_local_machine_the_reader_is_the_one_it_was_started_for():
    claims = {"email": "eve", "is_logged_in": True}
    assert identify(Access(**BASE, reviewer="ana"), {"X-Forwarded-User": "eve"}, claims) == Reviewer("ana", "reader")


@pytest.mark.parametrize("secret", [None, "", "wrong", "secret "])
def test_a_proxy_header_without_the_secret_is_nobody(secret):
    access = Access(**BASE, mode="proxy", proxy_secret="secret", roles={"ana": "reader"})
    headers = {"X-Forwarded-User": "ana"} | ({"X-Proxy-Secret": secret} if secret is not None else {})
    assert identify(access, headers, {}) is None
    assert identify(access, headers | {"X-Proxy-Secret": "secret"}, {}) == Reviewer("ana", "reader")


def test_a_proxy_without_any_secret_lets_nobody_in():
    access = Access(**BASE, mode="proxy", roles={"ana": "reader"})
    assert identify(access, {"X-Forwarded-User": "ana", "X-Proxy-Secret": ""}, {}) is None


def test_who_has_no_role_is_nobody():
    access = Access(**BASE, mode="oidc", roles={"ana@site": "senior"})

    def known(**claims) -> Reviewer | None:
        return identify(access, {"X-Forwarded-User": "ana@site"}, {"is_logged_in": True} | claims)

    assert known() is None
    assert known(email="eve@site") is None
    assert known(email="ana@site", is_logged_in=False) is None
    assert known(email="ana@site", email_verified=False) is None
    assert known(email=None, sub="ana@site") is None
    assert known(email="Ana@Site") == known(email="ana@site", email_verified=True) == Reviewer("ana@site", "senior")


def test_readers_stay_blinded_and_admins_sign_nothing():
    may = {
        role: {what for what in ("accept", "sign", "compare", "deliver") if Reviewer("ana", role).may(what)}
        for role in ("reader", "senior", "admin")
    }
    assert may == {
        "reader": {"accept", "sign"},
        "senior": {"accept", "sign", "compare", "deliver"},
        "admin": {"accept", "compare", "deliver"},
    }
