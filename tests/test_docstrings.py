"""Docstrings of functions begin with a verb, "Returns ...", and those of classes and modules with what they are."""

import ast
import pathlib
import re

import pytest

TOP = pathlib.Path(__file__).parents[1] / "jaxdiff"
FOLDERS = sorted(path.name for path in TOP.iterdir() if path.is_dir() and any(path.rglob("*.py")))
VERB = re.compile(r"[A-Z][a-z]+s\b")
NOUNS = re.compile(
    r"(Times|Weights|Names|Pixels|Pictures|Steps|Levels|Numbers|Shapes|Tensors|Features|Tokens|Words|Files|Rows|Keys|"
    r"Coefficients|Classes|Images|Examples|Labels|Options|Fields|Places|Moments|Bytes|Losses|Sizes|Captions|Rules|"
    r"Channels|Estimates|Values|Vectors|Others|Those|Its|This|Always|Less|Parameters|Checks of|Seconds)\b"
)
VAGUE = re.compile(r"(What|Of|Where|Those|How|Which|Whether)\b")


def wrong(path):
    """Lists the docstrings of a file that begin otherwise, as `file:line: beginning`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
            continue
        text = ast.get_docstring(node)
        if not text:
            continue
        if isinstance(node, ast.FunctionDef):
            fits = bool(VERB.match(text)) and not NOUNS.match(text)
        else:
            fits = not VAGUE.match(text)
        if not fits:
            yield f"{path.relative_to(TOP)}:{getattr(node, 'lineno', 1)}: {text.splitlines()[0][:60]}"


@pytest.mark.parametrize("folder", ["", *FOLDERS])
def test_docstrings_begin_with_a_verb_or_say_what_a_class_is(folder):
    paths = (TOP / folder).rglob("*.py") if folder else TOP.glob("*.py")
    assert not (found := [line for path in sorted(paths) for line in wrong(path)]), "\n".join(found)


def test_the_rule_can_fail(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "TOP", tmp_path)
    (tmp_path / "a.py").write_text(
        '"""Where it is."""\n'
        + "".join(f'def f():\n    """{text}"""\n' for text in ("The sum.", "Returns it.", "Times."))
    )
    assert [line.split(": ")[1] for line in wrong(tmp_path / "a.py")] == ["Where it is.", "The sum.", "Times."]
