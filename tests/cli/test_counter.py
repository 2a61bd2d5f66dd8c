"""The count of a long evaluation, on a terminal and elsewhere."""

import io
import re

from jaxdiff.cli.counter import counting


class Terminal(io.StringIO):
    def isatty(self):
        return True


def show(file, monkeypatch):
    """From 40, which were there before, to 100, two a second."""
    now = [0.0]
    monkeypatch.setattr("sys.stdout", file)
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    with counting("pictures made", 100) as tell:
        for done in range(40, 101):
            tell(done)
            now[0] += 0.5
    return file.getvalue()


def test_lines_where_there_is_no_terminal(monkeypatch):
    lines = show(io.StringIO(), monkeypatch).splitlines()
    assert lines[0] == "pictures made 60/100  2.0/s  0:00:20 left"
    assert lines[-1] == "pictures made 100/100  2.0/s  0:00:00 left"
    assert len(lines) == 3


def test_a_bar_on_a_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    text = show(Terminal(), monkeypatch)
    assert re.search(r"pictures made.*100/100.*2\.0/s  0:00:00 left", text)
