"""The bar of training and the count of an evaluation, on a terminal and elsewhere."""

import io
import re

import pytest

from jaxdiff.cli.progress import counting, progress, stages


class Terminal(io.StringIO):
    def isatty(self):
        return True


def train(now):
    """A hundred steps, two a second."""
    with progress(100, 8) as report:
        for step in range(1, 101):
            now[0] += 0.5
            report(step, {"loss": 2.0})


def count(now):
    """From 40, which were there before, to 100, two a second."""
    with counting("pictures made", 100) as tell:
        for done in range(40, 101):
            tell(done)
            now[0] += 0.5


def show(work, file, monkeypatch):
    now = [0.0]
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stdout", file)
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    work(now)
    return file.getvalue()


def test_training_writes_lines_where_there_is_no_terminal(monkeypatch):
    lines = show(train, io.StringIO(), monkeypatch).splitlines()
    assert lines[:2] == ["step 0/100  compiling", "step 1/100  loss 2.0000"]
    assert lines[3] == "step 41/100  loss 2.0000  16.0 images/s  0:00:30 left"
    assert lines[-1] == "step 100/100  loss 2.0000  16.0 images/s  0:00:00 left"
    assert len(lines) <= 7


def test_a_count_writes_lines_where_there_is_no_terminal(monkeypatch):
    lines = show(count, io.StringIO(), monkeypatch).splitlines()
    assert lines[0] == "pictures made 40/100"
    assert lines[1] == "pictures made 60/100  2.0/s  0:00:20 left"
    assert lines[-1] == "pictures made 100/100  2.0/s  0:00:00 left"


@pytest.mark.parametrize(
    ("work", "words"),
    [(train, r"step.*100/100.*loss 2\.0000  16\.0 images/s  0:00:00 left"), (count, r"made.*100/100.*2\.0/s  0:00:00")],
)
def test_a_bar_on_a_terminal(work, words, monkeypatch):
    assert re.search(words, show(work, Terminal(), monkeypatch))


def measure(now):
    """A compilation, then a hundred rounds, one a second."""
    with stages("unet") as tell:
        tell("compiling")
        for i in range(100):
            tell("measuring", f", round {i + 1}")
            now[0] += 1


def test_stages_are_lines_where_there_is_no_terminal(monkeypatch):
    lines = show(measure, io.StringIO(), monkeypatch).splitlines()
    assert lines[:3] == ["unet: compiling", "unet: measuring, round 1", "unet: measuring, round 11"]
    assert len(lines) == 11


def test_stages_share_the_line_of_a_terminal(monkeypatch):
    text = show(measure, Terminal(), monkeypatch)
    assert text.count("\n") == 1
    assert text.endswith("unet: measuring, round 100\r\033[Kunet\n")
