"""Who is let in, and as whom."""

import pytest

from medssl.errors import BadInput
from medssl.review.access import VARIABLE, Access, Reviewer, identify

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
    assert identify(Access(**BASE, reviewer="ana"), {"X-Forwarded-User": "eve"}, "eve") == Reviewer("ana", "reader")


@pytest.mark.parametrize("secret", [None, "", "wrong", "secret "])
def test_a_proxy_header_without_the_secret_is_nobody(secret):
    access = Access(**BASE, mode="proxy", proxy_secret="secret", roles={"ana": "reader"})
    headers = {"X-Forwarded-User": "ana"} | ({"X-Proxy-Secret": secret} if secret is not None else {})
    assert identify(access, headers, None) is None
    assert identify(access, headers | {"X-Proxy-Secret": "secret"}, None) == Reviewer("ana", "reader")


def test_a_proxy_without_any_secret_lets_nobody_in():
    access = Access(**BASE, mode="proxy", roles={"ana": "reader"})
    assert identify(access, {"X-Forwarded-User": "ana", "X-Proxy-Secret": ""}, None) is None


def test_who_has_no_role_is_nobody():
    access = Access(**BASE, mode="oidc", roles={"ana": "senior"})
    assert identify(access, {}, "eve") is None
    assert identify(access, {}, None) is None
    assert identify(access, {}, "ana") == Reviewer("ana", "senior")


def test_readers_stay_blinded():
    assert not Reviewer("ana", "reader").may("compare")
    assert Reviewer("ana", "senior").may("compare")
