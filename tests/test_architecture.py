"""Who may import whom, and which library stays in which layer."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = [p for top in ("medssl", "pipelines", "app") for p in sorted((ROOT / top).rglob("*.py"))]
THIRD = {
    "pydicom": ("medssl/io/",),
    "highdicom": ("medssl/io/",),
    "nibabel": ("medssl/io/nifti.py",),
    "SimpleITK": ("medssl/io/", "medssl/data/"),
    "lightning": ("medssl/training/",),
    "monai": ("medssl/nn/", "medssl/tasks/", "medssl/predict/", "medssl/metrics/", "pipelines/fetch.py"),
    "streamlit": ("app/", "medssl/viewer/"),
    "torchvision": (),
}
FOUNDATION = {"medssl", "__version__", "home", "errors", "settings", "files", "volume", "config", "run"}
MAY = {
    "io": {"io"},
    "review": {"review", "io"},
    "render": {"render"},
    "viewer": {"viewer", "render"},
    "data": {"data", "io", "review"},
    "nn": {"nn"},
    "metrics": {"metrics", "review"},
    "predict": {"predict", "nn", "metrics", "review", "render", "io", "data"},
    "deliver": {"deliver", "predict", "review", "render", "io", "data"},
    "objectives": {"objectives", "nn", "data"},
    "tasks": {"tasks", "nn", "data", "predict", "metrics"},
    "training": {"training", "objectives", "tasks", "nn", "data", "predict", "metrics", "render"},
    "fewshot": {"fewshot", "training", "predict", "metrics", "review", "data", "render"},
    "app": {"app", "io", "data", "review", "render", "viewer", "deliver"},
}
TORCH_FREE = ("volume", "run", "config", "review", "render", "viewer", "io", "deliver")


def imported(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    plain = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    from_ = {n for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module for n in _names(node)}
    return plain | from_


def _names(node: ast.ImportFrom) -> set[str]:
    return {node.module, *(f"{node.module}.{a.name}" for a in node.names)} if node.module == "medssl" else {node.module}


def layer(path: Path) -> str:
    parts = path.relative_to(ROOT).parts
    return parts[0] if parts[0] != "medssl" else Path(parts[1]).stem


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_third_parties_stay_in_their_layer(path):
    here = str(path.relative_to(ROOT))
    for name in {n.partition(".")[0] for n in imported(path)} & set(THIRD):
        assert here.startswith(THIRD[name]) if THIRD[name] else False, f"{here} imports {name}"


@pytest.mark.parametrize("path", [p for p in FILES if layer(p) in MAY], ids=lambda p: str(p.relative_to(ROOT)))
def test_layers_import_only_what_lies_below(path):
    used = {n.split(".")[1] if n.count(".") else n for n in imported(path) if n.partition(".")[0] == "medssl"}
    used |= {"app" for n in imported(path) if n.partition(".")[0] == "app"}
    assert used - FOUNDATION <= MAY[layer(path)], f"{path.name} imports {used - FOUNDATION - MAY[layer(path)]}"


def test_nobody_imports_a_pipeline():
    assert not [p for p in FILES if any(n.partition(".")[0] == "pipelines" for n in imported(p))]


@pytest.mark.parametrize("path", [p for p in FILES if layer(p) in TORCH_FREE], ids=lambda p: str(p.relative_to(ROOT)))
def test_light_layers_load_no_torch(path):
    assert "torch" not in {n.partition(".")[0] for n in imported(path)}


def test_the_app_and_what_it_leans_on_load_no_torch():
    light = [p for p in FILES if layer(p) in TORCH_FREE or p == ROOT / "app" / "api.py"]
    modules = [".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for p in light]
    script = f"import importlib, sys\nfor m in {modules!r}: importlib.import_module(m)\nprint('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.stdout.strip().endswith("False"), done.stdout + done.stderr


@pytest.mark.parametrize("path", sorted((ROOT / "configs").rglob("*.yaml")), ids=lambda p: p.name)
def test_a_config_says_only_what_differs(path):
    assert len(path.read_text().splitlines()) <= 15


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_says_in_its_first_line_what_it_is_for(path):
    assert ast.get_docstring(ast.parse(path.read_text()))
