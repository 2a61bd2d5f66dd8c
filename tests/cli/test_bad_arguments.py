"""Odd words after every option of every program: the option or the word is named in one line, or it is of use."""

import dataclasses
import random
import warnings

import pytest
from cli import sampling as helper

from jaxdiff.cli import benchmark, convert, sample_args
from jaxdiff.cli.main import main, plain_warnings
from jaxdiff.evaluation.config import EvaluateConfig

WORDS = (
    "-1",
    "0",
    "nan",
    "-inf",
    "1e400",
    "",
    "x",
    "2.5",
    "999999999999",
    "1e-300",
    "none.png",
    "folder",
    "None",
    "é\n",
)
"""What a user may give by mistake."""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return helper.make_place(tmp_path_factory.mktemp("odd"))


@pytest.fixture(autouse=True)
def here(place, monkeypatch):
    monkeypatch.chdir(place)


def refused(capsys, argv, *names):
    """Whether a command line is refused; the message has one of the names in it, or explains the command line."""
    status = 0
    try:
        main(argv)
    except SystemExit as error:
        status = error.code
    said = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("warning: ")]
    if status == 1:
        assert len(said) == 1, said
        assert len(said[0]) < 1000
        assert any(name in said[0] for name in names if name), (argv, said)
    assert status in (0, 1, 2)
    return status != 0


def options(args, *but):
    return [field.name for field in dataclasses.fields(args) if field.name not in but]


def spellings(name, word):
    return name, name.replace("_", "-"), name.replace("_", " "), name.rstrip("s"), word.strip()


NOT_ODD = ("model", "mesh", "prompt", "negative_prompt", "safety", "fuse", "programs")
"""Any words will do, or none; a folder for programs is made."""
GIVEN = {
    "sd": {"--prompt": ["cat"]},
    "runs/text": {"--prompt": ["red"]},
    "inpaint": {"--image": ["image.png"], "--mask": ["mask.png"]},
    "edit": {"--image": ["image.png"]},
}


@pytest.mark.parametrize("name", options(sample_args.Args, *NOT_ODD))
def test_odd_words_of_sample(capsys, tmp_path, monkeypatch, name):
    """Each kind of model in turn."""
    helper.without_programs(monkeypatch)
    rng = random.Random(name)
    for word in rng.sample(WORDS, 4):
        model = rng.choice([*GIVEN])
        given = {
            "--model": [model],
            "--num": ["1"],
            "--steps": ["2"],
            "--out": [str(tmp_path / "a.png")],
            **GIVEN[model],
        }
        given[f"--{name.replace('_', '-')}"] = [word]
        argv = [word for flag, words in given.items() for word in (flag, *words)]
        refused(capsys, ["sample", *argv], *spellings(name, word), "hint", "seed", "num")


@pytest.mark.parametrize("name", options(EvaluateConfig))
def test_odd_words_of_evaluate(capsys, tmp_path, name):
    """Two folders, of which one is missing: every check is made before it is found out."""
    common = ["evaluate", "--generated", "folder", "--reference", "nowhere", "--workdir", str(tmp_path / "w")]
    flag = f"--{name.replace('_', '-')}"
    for word in WORDS:
        argv = common.copy()
        if flag in argv:
            del argv[argv.index(flag) : argv.index(flag) + 2]
        assert refused(capsys, [*argv, flag, word], *spellings(name, word), "nowhere", "folder", "reference")


@pytest.mark.parametrize("name", options(convert.Args))
def test_odd_words_of_convert(capsys, tmp_path, name):
    common = {"--model": ["nowhere"], "--out": [str(tmp_path / "new")]}
    for word in WORDS:
        given = {**common, f"--{name.replace('_', '-')}": [word]}
        argv = [word for flag, words in given.items() for word in (flag, *words)]
        assert refused(capsys, ["convert", *argv], *spellings(name, word), "nowhere")


@pytest.mark.parametrize("name", options(benchmark.Args, "what", "json", "profile", "against", "dtype"))
def test_odd_words_of_benchmark(capsys, name):
    for word in WORDS:
        argv = ["benchmark", "nothing", f"--{name.replace('_', '-')}", word]
        assert refused(capsys, argv, *spellings(name, word), "nothing")


def test_a_warning_is_one_line_on_standard_error(capsys):
    with plain_warnings():
        for _ in range(2):
            warnings.warn("the checkpoint 20 is damaged\n  (changed: d): 10 is taken instead", stacklevel=2)
    said = capsys.readouterr()
    assert said.err == "warning: the checkpoint 20 is damaged (changed: d): 10 is taken instead\n" * 2
    assert not said.out
