"""The command: one line and exit code 2 for bad input, a traceback only with --debug."""

import subprocess
import sys
import warnings

import pytest

from medssl import __version__, cli
from medssl.errors import InputWarning
from medssl.home import resources_dir


def read_stderr(capsys) -> str:
    return capsys.readouterr().err


def test_help_lists_every_command(capsys):
    cli.main(["--help"])
    out = capsys.readouterr().out
    assert "research use only" in out
    for name in cli.command_names():
        assert f"  {name} " in out


def test_an_unknown_command_lists_the_known(capsys):
    assert cli.run("ingset", []) == 2
    assert "known: " in read_stderr(capsys) and "ingest" in cli.command_names()


@pytest.fixture
def pipeline(tmp_path, monkeypatch):
    """Puts one script in the place of all pipelines."""

    def put(body: str) -> None:
        folder = tmp_path / "pipelines"
        folder.mkdir()
        (folder / "__init__.py").touch()
        (folder / "fails.py").write_text(f'"""Fails."""\n\n\ndef main(words):\n    {body}\n')
        monkeypatch.setattr(cli, "resources_dir", lambda: tmp_path)
        monkeypatch.setitem(cli.COMMANDS, "test", {"fails": "fail"})
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
        ("raise RuntimeError('odd')", 1, "internal error: RuntimeError: odd. This is a bug"),
    ],
)
def test_a_failure_is_one_line(pipeline, capsys, body, code, text):
    pipeline(body)
    assert cli.run("fails", []) == code
    err = read_stderr(capsys)
    assert text in err and err.count("\n") == 1 and "Traceback" not in err


def test_debug_shows_where(pipeline, capsys):
    pipeline("raise RuntimeError('odd')")
    assert cli.run("fails", [], debug=True) == 1
    assert "Traceback" in read_stderr(capsys)


def test_a_warning_is_one_line(pipeline, monkeypatch):
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    pipeline("pass")
    with pytest.raises(SystemExit):
        cli.main(["fails"])
    assert (
        warnings.formatwarning("unit unset: taken as mm", InputWarning, "x.py", 1)
        == "warning: unit unset: taken as mm\n"
    )


@pytest.mark.parametrize("name", cli.command_names())
def test_help_of_a_command_loads_no_heavy_library(name):
    code = (
        "import sys\nfrom medssl import cli\n"
        f"try: cli.load_script({name!r}).main(['--help'])\nexcept SystemExit: pass\n"
        "print('loaded', sorted({'torch', 'monai', 'numpy', 'pydantic', 'SimpleITK'} & set(sys.modules)))"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.startswith("usage: medssl") and process.stdout.strip().endswith("loaded []")


@pytest.mark.parametrize(
    "words",
    [
        *(f"{name} configs/none.yaml run=runs/a" for name in ("pretrain", "finetune", "fewshot")),
        f"plan store --out {resources_dir()}/configs/pretrain/spark.yaml",
    ],
)
def test_a_wrong_file_is_named_before_torch_is_imported(words):
    code = (
        "import sys\nfrom medssl import cli\n"
        f"code = cli.run({words.partition(' ')[0]!r}, {words.split()[1:]})\n"
        "print(code, sorted({'torch', 'monai', 'lightning'} & set(sys.modules)))"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout == "2 []\n"
    assert "no such config" in process.stderr or "exists already" in process.stderr


def test_a_command_is_a_script_and_a_script_is_a_command():
    scripts = {path.stem for path in (resources_dir() / "pipelines").glob("*.py")} - {"__init__"}
    assert {name.replace("-", "_") for name in cli.command_names()} == scripts


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_knows_commands_and_options(shell, capsys):
    assert cli.run("completion", [shell], debug=True) == 0
    output = capsys.readouterr().out
    assert "check-leakage" in output and "--split-fractions" in output


def test_the_version_is_printed(capsys):
    cli.main(["--version"])
    assert capsys.readouterr().out == f"medssl {__version__}\n"


def test_an_unknown_command_names_the_nearest(capsys):
    assert cli.run("ingset", []) == 2
    assert "did you mean ingest?" in read_stderr(capsys)


def test_help_of_a_command_is_a_command(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["help", "fetch"])
    assert ended.value.code == 0 and capsys.readouterr().out.startswith("usage: medssl fetch")
    cli.main(["help"])
    assert "usage: medssl COMMAND" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "words", "unified"),
    [
        ("pretrain", "a.yaml --manifest m --run=r train.lr=1", "a.yaml manifest=m run=r train.lr=1"),
        ("pretrain", "a.yaml --train.epochs 5", "a.yaml train.epochs=5"),
        ("slurm", "finetune a.yaml --gpus 2 --run r", "finetune a.yaml --gpus 2 run=r"),
        ("ingest", "scans out=store seed=3", "scans --out=store --seed=3"),
        ("ingest", "scans --out store --kinds out=lesion", "scans --out store --kinds out=lesion"),
        ("ingest", "scans --split-fractions train=1 --dry-run", "scans --split-fractions train=1 --dry-run"),
        ("predict", "runs/a store --out p --tta", "runs/a store --out p --tta"),
    ],
)
def test_both_styles_mean_the_same(command: str, words: str, unified: str):
    parser = cli.load_script(command).build_parser()
    assert cli.unify_style(parser, words.split()) == unified.split()


def test_the_doctor_finds_what_is_missing(capsys, monkeypatch):
    assert cli.run("doctor", [], debug=True) == 0
    printed = capsys.readouterr().out
    for part in ("Python 3", "torch 2", "threads", "memory: ", "GB free", "codecs: JPEG, JPEG 2000"):
        assert part in printed, part
    doctor = cli.load_script("doctor")
    monkeypatch.setattr(doctor, "CODECS", {"no_such_codec": "JPEG-XL"})
    monkeypatch.setattr(doctor, "MIN_DISK_GB", 1e9)
    assert cli.run("doctor", [], debug=True) == 0
    printed = capsys.readouterr().out
    assert "! DICOM codecs missing: JPEG-XL; pip install" in printed and "! disk: " in printed
