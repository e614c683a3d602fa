"""Which layer may import which, and which third-party library stays in which layer. Each test lists all offenders."""

import ast
import subprocess
import sys
from pathlib import Path

from medssl.cli import EXTRAS
from tests.helpers.source_trees import ROOT, parse_code, parse_file

THIRD_PARTIES = {
    "pydicom": ("medssl/io/",),
    "highdicom": ("medssl/io/",),
    "nibabel": ("medssl/io/",),
    "SimpleITK": ("medssl/data/registration/",),
    "dicomweb_client": ("medssl/io/",),
    "requests": ("medssl/io/",),
    "pynetdicom": ("medssl/io/",),
    "lightning": ("medssl/training/",),
    "monai": ("medssl/nn/", "medssl/tasks/", "medssl/inference/", "medssl/metrics/", "pipelines/fetch.py"),
    "streamlit": ("app/", "medssl/viewer/"),
    "onnxruntime": ("medssl/inference/networks/",),
    "tokenizers": ("medssl/inference/networks/",),
    "torchvision": (),
}
FOUNDATION = {
    "medssl",
    "version",
    "home",
    "errors",
    "settings",
    "csv_text",
    "files",
    "arrays",
    "volume",
    "config",
    "config_errors",
    "run",
    "finding",
}
ALLOWED = {
    "arrays": set(),
    "io": set(),
    "predictions_folder": {"io"},
    "review": {"io", "predictions_folder"},
    "render": set(),
    "viewer": {"render", "io"},
    "data": {"io", "predictions_folder", "render"},
    "nn": set(),
    "metrics": set(),
    "inference": {"nn", "data", "metrics", "io", "render", "predictions_folder"},
    "export": {"inference", "data", "review", "io", "render", "predictions_folder"},
    "objectives": {"nn", "data"},
    "tasks": {"inference", "nn", "data", "metrics"},
    "evaluation": {"inference", "data", "metrics", "io", "render", "predictions_folder"},
    "models": {"evaluation", "inference", "objectives", "tasks", "nn", "data", "io", "predictions_folder"},
    "planning": {"data", "nn"},
    "training": {
        "planning",
        "models",
        "evaluation",
        "inference",
        "objectives",
        "tasks",
        "nn",
        "data",
        "metrics",
        "render",
    },
    "retrieval": {"inference", "data", "metrics", "render"},
    "watch": {"export", "inference", "data", "io", "predictions_folder"},
    "fewshot": {"training", "evaluation", "models", "data", "metrics", "render", "predictions_folder"},
    "api": {"training", "models", "inference", "nn", "data", "io"},
    "app": {"export", "review", "viewer", "data", "render", "io", "predictions_folder"},
}
TORCH_FREE = ("volume", "run", "config", "finding", "predictions_folder", "review", "render", "viewer", "io", "export")

TORCH_FREE_COMMANDS = (
    "ingest", "verify", "check-leakage", "data-card", "boxes-to-labels", "import-predictions", "evaluate", "compare",
    "review", "deliver", "feedback", "audit", "export-store",
)  # fmt: skip
HIDE_PACKAGES = """
import sys
class Finder:
    def find_spec(name, path, target=None):
        if name.partition(".")[0] in {}:
            raise ModuleNotFoundError("hidden", name=name)
sys.meta_path.insert(0, Finder)
"""


def imported_modules(path: Path) -> set[str]:
    plain = {a.name for n in ast.walk(parse_file(path)) if isinstance(n, ast.Import) for a in n.names}
    nodes = [n for n in ast.walk(parse_file(path)) if isinstance(n, ast.ImportFrom) and n.module]
    return plain | {name for node in nodes for name in _names(node)}


def _names(node: ast.ImportFrom) -> set[str]:
    return {node.module, *(f"{node.module}.{a.name}" for a in node.names)} if node.module == "medssl" else {node.module}


def layer(path: Path) -> str:
    parts = path.relative_to(ROOT).parts
    return parts[0] if parts[0] != "medssl" else Path(parts[1]).stem


def imported_layers(path: Path) -> set[str]:
    modules = imported_modules(path)
    layers = {m.split(".")[1] if "." in m else m for m in modules if m.partition(".")[0] == "medssl"}
    return layers | {"app" for m in modules if m.partition(".")[0] == "app"}


def test_third_parties_stay_in_their_layer():
    offenders = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in parse_code()
        for name in {n.partition(".")[0] for n in imported_modules(path)} & set(THIRD_PARTIES)
        if not str(path.relative_to(ROOT)).startswith(THIRD_PARTIES[name] or ("-",))
    ]
    assert not offenders


def test_layers_import_only_lower_layers():
    layered = [path for path in parse_code() if layer(path) in ALLOWED]
    extra = {p: imported_layers(p) - FOUNDATION - ALLOWED[layer(p)] - {layer(p)} for p in layered}
    assert not [f"{path.relative_to(ROOT)} imports {layers}" for path, layers in extra.items() if layers]


def test_every_package_has_a_layer():
    packages = {path.parent.name for path in (ROOT / "medssl").glob("*/__init__.py")}
    assert packages <= set(ALLOWED)


def test_no_layer_allows_a_layer_above_it():
    assert all(ALLOWED.get(below, set()).isdisjoint({above}) for above, lower in ALLOWED.items() for below in lower)


def test_no_module_imports_a_pipeline():
    assert not [p for p in parse_code() if any(n.partition(".")[0] == "pipelines" for n in imported_modules(p))]


def test_light_layers_import_no_torch():
    light = [path for path in parse_code() if layer(path) in TORCH_FREE]
    assert not [p for p in light if "torch" in {n.partition(".")[0] for n in imported_modules(p)}]


def test_the_app_and_the_commands_around_it_need_no_package_of_training():
    light = [p for p in parse_code() if layer(p) in TORCH_FREE or p == ROOT / "app" / "api.py"]
    modules = [".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for p in light]
    scripts = [ROOT / "pipelines" / f"{name.replace('-', '_')}.py" for name in TORCH_FREE_COMMANDS]
    nodes = [node for path in scripts for node in ast.walk(parse_file(path))]
    imports = [f"import {module}" for module in modules]
    imports += [ast.unparse(node) for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
    script = HIDE_PACKAGES.format(EXTRAS["train"]) + f"for line in {imports!r}: exec(line)"
    process = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr


def test_a_config_holds_only_what_differs_from_the_defaults():
    assert not [p for p in sorted((ROOT / "configs").rglob("*.yaml")) if len(p.read_text().splitlines()) > 15]


def test_the_first_line_of_a_file_says_what_it_is_for():
    assert not [path for path in parse_code() if not ast.get_docstring(parse_file(path))]


def test_a_folder_has_at_most_fifteen_modules():
    folders = {path.parent for path in parse_code() if path.is_relative_to(ROOT / "medssl")}
    crowded = {f: len([p for p in f.glob("*.py") if p.name != "__init__.py"]) for f in folders}
    assert not {str(f.relative_to(ROOT)): count for f, count in crowded.items() if count > 15}
