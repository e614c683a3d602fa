"""Every row of the table of faults names a test that exists."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_each_fault_has_a_test():
    rows = [row for row in (ROOT / "docs/reference/faults.md").read_text().splitlines() if row.startswith("| ")]
    faults = [row for row in rows if not row.startswith(("| ---", "| fault "))]
    references = [re.fullmatch(r"\|.+\|.+\| `(tests/[\w/]+\.py)::(test_\w+)` \|", row) for row in faults]
    assert len(faults) > 25 and all(references)
    missing = [r[0] for r in references if f"def {r[2]}(" not in (ROOT / r[1]).read_text()]
    assert not missing
