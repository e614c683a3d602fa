"""A request is identified as the right person or not at all."""

import pytest

from medssl.errors import BadInput
from medssl.review.access.reviewers import ENVIRONMENT_VARIABLE, ReviewConfig, Reviewer, identify

BASE = {"predictions": "p", "audit_db": "s", "key": "k" * 32}


def test_settings_survive_the_environment(monkeypatch):
    access = ReviewConfig(**BASE, roles={"ana": "senior"})
    for name, value in access.to_environment().items():
        monkeypatch.setenv(name, value)
    assert ReviewConfig.from_environment() == access


def test_an_app_without_configuration_names_the_command(monkeypatch):
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    with pytest.raises(BadInput, match="medssl review"):
        ReviewConfig.from_environment()


def test_local_mode_has_one_reader():
    claims = {"email": "eve", "is_logged_in": True}
    assert identify(ReviewConfig(**BASE, reviewer="ana"), {"X-Forwarded-User": "eve"}, claims) == Reviewer(
        "ana", "reader"
    )


@pytest.mark.parametrize("secret", [None, "", "wrong", "secret "])
def test_a_proxy_header_without_the_secret_identifies_no_reader(secret):
    access = ReviewConfig(**BASE, mode="proxy", proxy_secret="secret", roles={"ana": "reader"})
    headers = {"X-Forwarded-User": "ana"} | ({"X-Proxy-Secret": secret} if secret is not None else {})
    assert identify(access, headers, {}) is None
    assert identify(access, headers | {"X-Proxy-Secret": "secret"}, {}) == Reviewer("ana", "reader")


def test_a_proxy_without_any_secret_admits_no_reader():
    access = ReviewConfig(**BASE, mode="proxy", roles={"ana": "reader"})
    assert identify(access, {"X-Forwarded-User": "ana", "X-Proxy-Secret": ""}, {}) is None


def test_a_person_without_a_role_is_unknown():
    access = ReviewConfig(**BASE, mode="oidc", roles={"ana@site": "senior"})

    def identify_oidc(**claims) -> Reviewer | None:
        return identify(access, {"X-Forwarded-User": "ana@site"}, {"is_logged_in": True} | claims)

    assert identify_oidc() is None
    assert identify_oidc(email="eve@site") is None
    assert identify_oidc(email="ana@site", is_logged_in=False) is None
    assert identify_oidc(email="ana@site", email_verified=False) is None
    assert identify_oidc(email=None, sub="ana@site") is None
    assert (
        identify_oidc(email="Ana@Site")
        == identify_oidc(email="ana@site", email_verified=True)
        == Reviewer("ana@site", "senior")
    )


def test_readers_stay_blinded_and_admins_sign_nothing():
    permissions = {
        role: {
            action
            for action in ("accept", "sign", "compare", "deliver")
            if Reviewer("ana", role).has_permission(action)
        }
        for role in ("reader", "senior", "admin")
    }
    assert permissions == {
        "reader": {"accept", "sign"},
        "senior": {"accept", "sign", "compare", "deliver"},
        "admin": {"accept", "compare", "deliver"},
    }
