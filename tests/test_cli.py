"""The command: one line and exit code 2 for bad input, a traceback only with --debug."""

import sys
import warnings

import pytest

from medssl import cli
from medssl.errors import Doubt


def said(capsys) -> str:
    return capsys.readouterr().err


def test_help_lists_every_pipeline(capsys):
    cli.main(["--help"])
    out = capsys.readouterr().out
    assert "research use only" in out
    for name in cli.pipelines():
        assert f"  {name} " in out


def test_an_unknown_command_lists_the_known(capsys):
    assert cli.run("ingset", []) == 2
    assert "known: " in said(capsys) and "ingest" in " ".join(cli.pipelines())


@pytest.fixture
def pipeline(tmp_path, monkeypatch):
    """Puts one script in the place of all pipelines."""

    def put(body: str) -> None:
        folder = tmp_path / "pipelines"
        folder.mkdir()
        (folder / "__init__.py").touch()
        (folder / "fails.py").write_text(f'"""Fails."""\n\n\ndef main(words):\n    {body}\n')
        monkeypatch.setattr(cli, "home", lambda: tmp_path)
        monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
        for name in [n for n in sys.modules if n.partition(".")[0] == "pipelines"]:
            monkeypatch.delitem(sys.modules, name)

    yield put
    for name in [n for n in sys.modules if n.partition(".")[0] == "pipelines"]:
        del sys.modules[name]


@pytest.mark.parametrize(
    "body, code, text",
    [
        (
            "from medssl.errors import BadInput; raise BadInput('a.nii: no such file; check the path')",
            2,
            "a.nii: no such",
        ),
        ("import errno; raise OSError(errno.ENOSPC, 'full', 'out/x')", 2, "no space left on the disk of out/x"),
        ("open('/no/such/file')", 2, "fails: /no/such/file: no such file or directory"),
        ("raise PermissionError(13, 'Permission denied', '/out/.part-x1')", 2, "fails: /out: permission denied"),
        ("raise RuntimeError('odd')", 1, "unexpected RuntimeError: odd"),
    ],
)
def test_a_failure_is_one_line(pipeline, capsys, body, code, text):
    pipeline(body)
    assert cli.run("fails", []) == code
    err = said(capsys)
    assert text in err and err.count("\n") == 1 and "Traceback" not in err


def test_debug_shows_where(pipeline, capsys):
    pipeline("raise RuntimeError('odd')")
    assert cli.run("fails", [], debug=True) == 1
    assert "Traceback" in said(capsys)


def test_a_doubt_is_one_line(pipeline, monkeypatch):
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    pipeline("pass")
    with pytest.raises(SystemExit):
        cli.main(["fails"])
    assert warnings.formatwarning("unit unset: taken as mm", Doubt, "x.py", 1) == "doubt: unit unset: taken as mm\n"
