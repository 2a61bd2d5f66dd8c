import io
import re

from jaxdiff.cli.progress import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def show(file, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("sys.stdout", file)
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    with progress(100, 8) as report:
        for step in range(1, 101):
            now[0] += 0.5
            report(step, {"loss": 2.0})
    return file.getvalue()


def test_lines_where_there_is_no_terminal(monkeypatch):
    lines = show(io.StringIO(), monkeypatch).splitlines()
    assert lines[1] == "step 40/100  loss 2.0000  16.0 images/s  0:00:30 left"
    assert lines[-1] == "step 100/100  loss 2.0000  16.0 images/s  0:00:00 left"
    assert len(lines) <= 6


def test_a_bar_on_a_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    text = show(Terminal(), monkeypatch)
    assert re.search(r"step 100/100.*loss 2.0000  16.0 images/s  0:00:00 left", text)
