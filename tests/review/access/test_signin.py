"""A review that people sign in to starts only with files that keep strangers out."""

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
    said = "".join(f'{name} = "{value}"\n' for name, value in (AUTH | changed).items() if value)
    return secret(folder / "secrets.toml", f"[auth]\n{said}")


def test_roles_are_read_in_small_letters(tmp_path):
    path = secret(tmp_path / "roles.yaml", "Ana@Site: senior\nben: reader\n")
    assert signin.roles(path) == {"ana@site": "senior", "ben": "reader"}


@pytest.mark.parametrize("text", ["", "ana", "ana: king", "- ana", "{", "ana: reader\nANA: admin", "ana: 1"])
def test_roles_that_nobody_understands_are_refused(tmp_path, text):
    with pytest.raises(BadInput, match=r"roles\.yaml"):
        signin.roles(secret(tmp_path / "roles.yaml", text))


def test_a_proxys_secret_is_long_and_its_own(tmp_path):
    path = secret(tmp_path / "secret", "x" * 16 + "\n")
    assert signin.proxy_secret(path) == "x" * 16
    with pytest.raises(BadInput, match="can be guessed"):
        signin.proxy_secret(secret(path, "short"))
    with pytest.raises(BadInput, match="chmod 600"):
        signin.proxy_secret(secret(path, "x" * 16, 0o640))
    with pytest.raises(BadInput, match="cannot be read"):
        signin.proxy_secret(tmp_path / "none")


def test_a_whole_secrets_file_tells_the_host(tmp_path):
    assert signin.oidc_hosts(toml(tmp_path)) == ("review.site",)
    assert signin.oidc_hosts(toml(tmp_path, redirect_uri="http://localhost:8501/oauth2callback")) == ("localhost",)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"client_secret": ""}, "lacks client_secret"),
        ({"cookie_secret": "short"}, "can be guessed"),
        ({"redirect_uri": "https://review.site/"}, "oauth2callback"),
        ({"redirect_uri": "http://review.site/oauth2callback"}, "must be https"),
        ({"server_metadata_url": "http://id.site/x"}, "must be https"),
    ],
)
def test_a_secrets_file_that_lets_strangers_in_is_refused(tmp_path, changed, said):
    with pytest.raises(BadInput, match=said):
        signin.oidc_hosts(toml(tmp_path, **changed))


def test_a_secrets_file_others_can_read_is_refused(tmp_path):
    path = toml(tmp_path)
    path.chmod(0o644)
    with pytest.raises(BadInput, match="chmod 600"):
        signin.oidc_hosts(path)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--address", "0.0.0.0"], "in local mode nobody signs in"),
        (["--host", "review.site"], "in local mode nobody signs in"),
        (["--proxy-header", "X-User"], "go together"),
        (["--proxy-secret-file", "SECRET"], "go together"),
        (["--proxy-header", "X-User", "--proxy-secret-file", "SECRET"], "who may read?"),
        (["--oidc", "TOML"], "who may read?"),
        (["--oidc", "TOML", "--proxy-header", "X-User", "--proxy-secret-file", "SECRET"], "choose one"),
        (["--oidc", "none.toml", "--roles", "ROLES"], "cannot be read"),
    ],
)
def test_flags_that_do_not_go_together_are_bad_input(predictions, tmp_path, capsys, words, said):
    known = {
        "SECRET": secret(tmp_path / "secret", "x" * 16),
        "ROLES": secret(tmp_path / "roles.yaml", "ana: reader"),
        "TOML": toml(tmp_path),
    }
    assert cli.run("review", [str(predictions), *(str(known.get(word, word)) for word in words)]) == 2
    assert said in capsys.readouterr().err
