"""What `jaxdiff evaluate` refuses before it loads or makes anything."""

import dataclasses
import math
import types

import pytest
from PIL import Image

from jaxdiff.data.config import MOST_PIXELS_A_SIDE
from jaxdiff.evaluation import run
from jaxdiff.evaluation.config import BOUNDS, EvaluateConfig, calls, check

NAN, INF = math.nan, math.inf


def config(folder, **options):
    made = EvaluateConfig(generated=folder, reference=str(folder), workdir=folder / "out")
    for name, value in options.items():  # as a caller's program may give them; tests check types where it is made
        object.__setattr__(made, name, value)
    return made


@pytest.fixture
def folder(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    return tmp_path


def test_the_defaults_are_sound(folder):
    check(config(folder))


@pytest.mark.parametrize("field", BOUNDS)
def test_every_number_has_bounds(folder, field):
    least, most = BOUNDS[field]
    for value in (least - 1, most + 1, 10**9 + most, 2**70, 2.5, NAN, INF, -INF, "8", None, True):
        with pytest.raises(ValueError, match=f"^{field} is .*: expected a whole number from {least} to {most}$"):
            check(config(folder, **{field: value}))
    for value in (least, most):
        check(config(folder, **{field: value}))


def test_no_number_is_without_bounds():
    numbers = {f.name for f in dataclasses.fields(EvaluateConfig) if isinstance(f.default, int | float)}
    assert numbers == {*BOUNDS, "guidance"}
    assert BOUNDS["size"][1] == MOST_PIXELS_A_SIDE


@pytest.mark.parametrize("guidance", [NAN, INF, -INF])
def test_guidance_is_finite(folder, guidance):
    with pytest.raises(ValueError, match=r"guidance is .*: expected a finite number"):
        check(config(folder, guidance=guidance))


@pytest.mark.parametrize("text", ["", "5,", "5,x", "0", "5,-1", "2.5", "nan", "1" * 5000, "100000"])
def test_calls_are_whole_numbers(folder, text):
    with pytest.raises(ValueError, match=r"calls is .*: expected whole numbers from 1 to 10000 between commas"):
        calls(config(folder, calls=text))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": ()}, "no metric was given: expected some of frechet"),
        ({"sampler": "dimm"}, "unknown sampler 'dimm': expected one of d"),
        ({"sampler": ""}, "unknown sampler ''"),
        ({"model": "m", "generated": None, "sweep": "ddim,hoin"}, "unknown sampler 'hoin': expected one of heun"),
        ({"generated": "gone"}, "no folder of pictures at .*gone"),
        ({"generated": None, "autoencoder": "gone"}, "no folder of an autoencoder at .*gone"),
        ({"clip": "gone"}, "no directory of a CLIP model at .*gone"),
        ({"weights": "gone"}, "no file of weights at .*gone"),
        ({"reference": "gone.npz", "metrics": ("frechet",)}, r"no file of statistics at gone\.npz"),
        ({"reference": "./gone"}, "'./gone': there is no such folder"),
        ({"reference": "gone-for-good"}, "'gone-for-good': expected a TFDS name or a folder of pictures"),
        ({"save_statistics": "real.txt"}, r"save_statistics is .*real\.txt: expected a file that ends in \.npz"),
        ({"save_statistics": "a.png/real.npz"}, r"cannot write to .*a\.png: .*a\.png is not a folder"),
        ({"workdir": "a.png"}, r"cannot write to .*a\.png: .*a\.png is not a folder"),
        ({"workdir": "a.png/b/c"}, r"cannot write to .*a\.png/b/c: .*a\.png is not a folder"),
    ],
)
def test_what_does_not_exist_or_cannot_be_written_is_said_first(folder, monkeypatch, options, message):
    monkeypatch.setattr(run, "load", lambda *args: pytest.fail("a model was loaded"))
    paths = ("generated", "autoencoder", "clip", "weights", "save_statistics", "workdir")
    options = {name: folder / value if name in paths and value else value for name, value in options.items()}
    with pytest.raises((ValueError, OSError), match=message) as error:
        run.evaluate(config(folder, **options), lambda what, total: pytest.fail("work began"))
    assert "\n" not in str(error.value)


def test_more_pictures_than_the_disk_holds_are_refused(folder, monkeypatch):
    monkeypatch.setattr(run.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=10**9))
    run._check_room(folder / "out" / "pictures", 1000, 512)
    with pytest.raises(ValueError, match=r"10000 pictures of 512x512 may take 7\.9 GB, and .* has 1\.0 GB free"):
        run._check_room(folder / "out" / "pictures", 10_000, 512)
