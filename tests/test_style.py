"""Names and prose: functions are verbs, locals say what they hold, docstrings are plain English."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.source_trees import ROOT, parse_code, parse_files

PARTICIPLES = {
    "told",
    "said",
    "given",
    "found",
    "drawn",
    "held",
    "kept",
    "left",
    "taken",
    "seen",
    "shown",
    "known",
    "made",
    "done",
    "lost",
    "brought",
    "begun",
    "sent",
    "built",
    "written",
    "chosen",
    "bent",
    "grown",
    "heard",
    "gone",
    "met",
    "felt",
}
VAGUE = {
    "told",
    "said",
    "asked",
    "given",
    "found",
    "there",
    "here",
    "mine",
    "theirs",
    "own",
    "one",
    "of",
    "at",
    "few",
    "whose",
    "seen",
    "taken",
    "kept",
    "left",
    "shown",
    "drawn",
    "known",
    "held",
    "apart",
    "alike",
    "done",
    "made",
}
QUAINT = {"told", "tells", "said", "says", "asked", "nobody", "somebody", "anew", "beside", "hangs", "brought"}
# Events are hashed with the names of their fields, and buffers are keys of checkpoints: these keep their names.
STORED_NAMES = {"at", "made", "taken"}


def functions(trees: dict[Path, ast.Module]) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node


def local_names(trees: dict[Path, ast.Module]) -> Iterator[tuple[str, str]]:
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                yield f"{path.relative_to(ROOT)}:{node.lineno} {node.id}", node.id.strip("_")


def is_participle(name: str) -> bool:
    words = name.strip("_").split("_")
    return words[0] in PARTICIPLES or (len(words) == 1 and words[0].endswith("ed") and len(words[0]) > 4)


def body_length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    docstring = node.body[0].end_lineno - node.body[0].lineno + 1 if ast.get_docstring(node) else 0
    return node.end_lineno - node.lineno - docstring


def test_no_function_is_named_by_a_participle():
    assert not [
        place for place, node in functions(parse_code()) if not node.name.startswith("__") and is_participle(node.name)
    ]


def test_local_names_say_what_they_hold():
    assert not [place for place, name in local_names(parse_code()) if name in VAGUE - STORED_NAMES]


def test_names_in_tests_and_benchmarks_are_almost_all_plain():
    trees = parse_files("tests", "benchmarks")
    participles = [place for place, node in functions(trees) if is_participle(node.name)]
    assert len(participles) < 0.015 * len(list(functions(trees))), participles
    vague = [place for place, name in local_names(trees) if name in VAGUE]
    assert len(vague) < 0.01 * len(list(local_names(trees))), vague


def test_docstrings_hold_no_quaint_words():
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    quaint = [
        f"{path.relative_to(ROOT)} {getattr(node, 'name', '')}: {word}"
        for path, tree in parse_code().items()
        for node in ast.walk(tree)
        if isinstance(node, kinds)
        for word in re.findall(r"[a-z']+", (ast.get_docstring(node) or "").lower())
        if word in QUAINT
    ]
    assert not quaint


def test_a_public_class_name_occurs_once():
    places = defaultdict(list)
    for path, tree in parse_code().items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and node.name != "Config":
                places[node.name].append(str(path.relative_to(ROOT)))
    assert not {name: files for name, files in places.items() if len(files) > 1}


def test_no_module_has_a_class_and_a_function_that_differ_in_case_only():
    pairs = []
    for path, tree in parse_code().items():
        names = [n.name for n in tree.body if isinstance(n, ast.ClassDef | ast.FunctionDef)]
        lowered = [name.lower() for name in names]
        pairs += [f"{path.relative_to(ROOT)} {n}" for n in names if lowered.count(n.lower()) > 1]
    assert not pairs


def test_bodies_and_files_are_short():
    assert not [f"{place}: {body_length(node)}" for place, node in functions(parse_code()) if body_length(node) > 60]
    assert not [str(path.relative_to(ROOT)) for path in parse_code() if len(path.read_text().splitlines()) > 350]


def test_library_code_does_not_print():
    library = {
        path: tree
        for path, tree in parse_code().items()
        if path.is_relative_to(ROOT / "medssl") and path.name != "cli.py"
    }
    prints = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path, tree in library.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"
    ]
    assert not prints


@pytest.mark.parametrize("name", ["told", "_drawn", "fitted", "_judged", "found_by_name"])
def test_participles_are_recognized(name):
    assert is_participle(name)


@pytest.mark.parametrize("name", ["fit_window", "read", "feed", "load_model", "is_closed", "spread"])
def test_verbs_and_predicates_are_no_participles(name):
    assert not is_participle(name)
