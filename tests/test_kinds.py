"""Configs as JSON: tags, types, and what is told of a value that does not serve."""

import dataclasses
import json
import pathlib
import re
from pathlib import Path
from typing import Literal

import pytest

from jaxdiff import kinds, models, tasks
from jaxdiff.models.unet import UNetConfig
from jaxdiff.tasks import picture


@dataclasses.dataclass(frozen=True)
class Inner:
    rate: float = 0.5
    sizes: tuple[int, ...] = (1, 2)
    pair: tuple[int, str] = (1, "a")


@dataclasses.dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner = Inner()
    word: Literal["a", "b"] = "a"
    maybe: int | None = None
    either: int | str = 0
    rows: tuple[Inner, ...] = ()
    path: Path = Path("x")
    on: bool = False


def test_what_is_written_is_read_again():
    config = Outer("n", Inner(2.0, (), (3, "b")), "b", 4, "word", (Inner(), Inner(1.0)), Path("a/b"), True)
    assert kinds.from_json(Outer, kinds.to_json(config)) == config


def test_a_whole_number_serves_as_a_float_and_what_is_left_out_has_its_default():
    read = kinds.from_json(Outer, '{"name": "n", "inner": {"rate": 1}}')
    assert read == Outer("n", Inner(1.0))
    assert isinstance(read.inner.rate, float)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"nmae": 1}, "unknown config field nmae: did you mean name?"),
        ({}, "name is missing"),
        ({"name": 1}, "name is 1: expected a text"),
        ({"name": "n", "on": 1}, "on is 1: expected true or false"),
        ({"name": "n", "on": None}, "on is None: expected true or false"),
        ({"name": "n", "maybe": 2.5}, "maybe is 2.5: expected a whole number"),
        ({"name": "n", "maybe": True}, "maybe is True: expected a whole number"),
        ({"name": "n", "either": 2.5}, "either is 2.5: expected a whole number; or either is 2.5: expected a text"),
        ({"name": "n", "word": "c"}, "word is 'c': expected one of a, b"),
        ({"name": "n", "word": ["a"]}, "word is ['a']: expected one of a, b"),
        ({"name": "n", "inner": 3}, "inner is 3: expected an object with the fields of Inner"),
        ({"name": "n", "inner": None}, "inner is None: expected an object"),
        ({"name": "n", "inner": {"rate": "1"}}, "inner.rate is '1': expected a number"),
        ({"name": "n", "inner": {"sizes": 3}}, "inner.sizes is 3: expected a list"),
        ({"name": "n", "inner": {"sizes": "12"}}, "inner.sizes is '12': expected a list"),
        ({"name": "n", "inner": {"sizes": [1, 2.5]}}, "inner.sizes[1] is 2.5: expected a whole number"),
        ({"name": "n", "inner": {"pair": [1]}}, "inner.pair is [1]: expected a list of 2"),
        ({"name": "n", "rows": [{}, {"raet": 1}]}, "unknown config field rows[1].raet: did you mean rate?"),
        ({"name": "n", "path": 3}, "path is 3: expected Path"),
        ([], "the config is []: expected an object"),
    ],
)
def test_a_wrong_value_is_told_in_one_line_with_its_path(told, words):
    with pytest.raises(ValueError, match=re.escape(words)) as error:
        kinds.from_json(Outer, json.dumps(told))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "{", '{"name": }', "nonsense"])
def test_what_is_no_json_is_told(text):
    with pytest.raises(ValueError, match="not JSON"):
        kinds.from_json(Outer, text)


def test_every_module_with_a_config_is_a_kind_and_nothing_else_is():
    assert {"picture", "first_stage"} <= {*tasks.KINDS.names()}
    assert not {"task", "first_stage_loss"} & {*tasks.KINDS.names()}
    assert "unet" in models.KINDS.names()
    assert "config" not in models.KINDS.names()
    for known in (tasks.KINDS, models.KINDS):
        for name in known.names():
            assert issubclass(known.find(name), known.base)
            folder = pathlib.Path(*known.package.split("."))
            assert (pathlib.Path(kinds.__file__).parents[1] / folder / f"{name}.py").is_file()


def test_the_tag_tells_the_class():
    told = json.loads(kinds.to_json(picture.Config()))
    assert (told["kind"], told["net"]["kind"]) == ("picture", "unet")
    assert kinds.build(tasks.TaskConfig, told) == picture.Config()
    assert kinds.build(UNetConfig, {"layers": 3}) == UNetConfig(
        layers=3
    )  # where the class is known, a tag is not needed


@pytest.mark.parametrize(
    ("base", "told", "words"),
    [
        (tasks.TaskConfig, {"kind": "pictrue"}, "kind: no kind 'pictrue' in jaxdiff.tasks: expected one of picture"),
        (tasks.TaskConfig, {}, "has no field 'kind': expected one of " + ", ".join(tasks.KINDS.names()[:10])),
        (tasks.TaskConfig, {"kind": "picture", "net": {"kind": "unte"}}, "net.kind: no kind 'unte' in jaxdiff.models"),
        (tasks.TaskConfig, {"kind": 3}, "kind is 3: expected a text"),
        (tasks.TaskConfig, {"kind": "os.path"}, "no kind 'os.path'"),
        (tasks.TaskConfig, {"kind": "task"}, "no kind 'task'"),
        (
            tasks.TaskConfig,
            {"kind": "picture", "text": None},
            "text is None: expected an object with the fields of Text",
        ),
    ],
)
def test_an_unknown_tag_is_told_with_the_nearest(base, told, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        kinds.build(base, told)


def test_a_class_that_nothing_could_read_again_is_not_written():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Mine(picture.Config):
        pass

    with pytest.raises(ValueError, match=r"add an entry point of the group 'jaxdiff.tasks'"):
        kinds.to_json(Mine())
