"""The page of what is survived names tests that exist."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "survival.md"


def test_each_row_names_a_test_that_exists():
    files = {path.name: path.read_text() for path in Path(__file__).parent.glob("test_*.py")}
    everything = "\n".join(files.values())
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")][1:]
    assert rows
    for row in rows:
        shown = re.findall(r"`(test_\w+(?:\.py)?)`", row.split("|")[3])
        assert shown, row
        for name in shown:
            assert name in files or f"def {name}(" in everything, name
