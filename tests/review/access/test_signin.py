"""A review with sign-in starts only with safe files and consistent options."""

import pytest

from medssl import cli
from medssl.errors import BadInput
from medssl.review.access import signin

AUTH = {
    "redirect_uri": "https://review.site/oauth2callback",
    "cookie_secret": "c" * 32,
    "client_id": "medssl",
    "client_secret": "s" * 20,
    "server_metadata_url": "https://id.site/.well-known/openid-configuration",
}


def secret(path, text: str, mode: int = 0o600):
    path.write_text(text)
    path.chmod(mode)
    return path


def toml(folder, **changed):
    lines = "".join(f'{name} = "{value}"\n' for name, value in (AUTH | changed).items() if value)
    return secret(folder / "secrets.toml", f"[auth]\n{lines}")


def test_roles_are_read_in_small_letters(tmp_path):
    path = secret(tmp_path / "roles.yaml", "Ana@Site: senior\nben: reader\n")
    assert signin.read_roles(path) == {"ana@site": "senior", "ben": "reader"}


@pytest.mark.parametrize("text", ["", "ana", "ana: king", "- ana", "{", "ana: reader\nANA: admin", "ana: 1"])
def test_malformed_roles_are_rejected(tmp_path, text):
    with pytest.raises(BadInput, match=r"roles\.yaml"):
        signin.read_roles(secret(tmp_path / "roles.yaml", text))


def test_a_proxy_secret_is_long_and_private(tmp_path):
    path = secret(tmp_path / "secret", "x" * 16 + "\n")
    assert signin.read_proxy_secret(path) == "x" * 16
    with pytest.raises(BadInput, match="can be guessed"):
        signin.read_proxy_secret(secret(path, "short"))
    with pytest.raises(BadInput, match="chmod 600"):
        signin.read_proxy_secret(secret(path, "x" * 16, 0o640))
    with pytest.raises(BadInput, match="cannot be read"):
        signin.read_proxy_secret(tmp_path / "none")


def test_a_complete_secrets_file_gives_the_host(tmp_path):
    assert signin.read_oidc_hosts(toml(tmp_path)) == ("review.site",)
    assert signin.read_oidc_hosts(toml(tmp_path, redirect_uri="http://localhost:8501/oauth2callback")) == ("localhost",)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"client_secret": ""}, "lacks client_secret"),
        ({"cookie_secret": "short"}, "can be guessed"),
        ({"redirect_uri": "https://review.site/"}, "oauth2callback"),
        ({"redirect_uri": "http://review.site/oauth2callback"}, "must be https"),
        ({"server_metadata_url": "http://id.site/x"}, "must be https"),
    ],
)
def test_an_unsafe_secrets_file_is_rejected(tmp_path, changed, message):
    with pytest.raises(BadInput, match=message):
        signin.read_oidc_hosts(toml(tmp_path, **changed))


def test_a_secrets_file_that_others_can_read_is_rejected(tmp_path):
    path = toml(tmp_path)
    path.chmod(0o644)
    with pytest.raises(BadInput, match="chmod 600"):
        signin.read_oidc_hosts(path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--address", "0.0.0.0"], "local mode has no sign-in"),
        (["--host", "review.site"], "local mode has no sign-in"),
        (["--proxy-header", "X-User"], "go together"),
        (["--proxy-secret-file", "SECRET"], "go together"),
        (["--proxy-header", "X-User", "--proxy-secret-file", "SECRET"], "--roles is missing"),
        (["--oidc", "TOML"], "--roles is missing"),
        (["--oidc", "TOML", "--proxy-header", "X-User", "--proxy-secret-file", "SECRET"], "choose one"),
        (["--oidc", "none.toml", "--roles", "ROLES"], "cannot be read"),
    ],
)
def test_inconsistent_options_are_bad_input(predictions, tmp_path, capsys, words, message):
    files = {
        "SECRET": secret(tmp_path / "secret", "x" * 16),
        "ROLES": secret(tmp_path / "roles.yaml", "ana: reader"),
        "TOML": toml(tmp_path),
    }
    assert cli.run("review", [str(predictions), *(str(files.get(word, word)) for word in words)]) == 2
    assert message in capsys.readouterr().err
