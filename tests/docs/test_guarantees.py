"""Every test that the page of guarantees names exists."""

import ast
import re

from tests.helpers.source_trees import ROOT

PAGE = ROOT / "docs" / "reference" / "review-guarantees.md"


def test_each_guarantee_names_tests_that_exist():
    rows = [row for row in PAGE.read_text().splitlines() if row.startswith("| ")][2:]
    named = [re.findall(r"`(tests/[^:`]+)::(\w+)`", row) for row in rows]
    assert len(rows) > 20 and all(named)
    missing = []
    for path, name in {pair for pairs in named for pair in pairs}:
        tree = ast.parse((ROOT / path).read_text())
        if name not in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}:
            missing.append(f"{path}::{name}")
    assert missing == []
