"""Pictures made to be measured do not depend on devices or interruptions."""

import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from evaluation.small import pipeline

from jaxdiff.evaluation import samples
from jaxdiff.evaluation.pictures import folder

ALONE = """
import sys
from evaluation.small import pipeline
from jaxdiff.evaluation import samples
import jax, pathlib
assert jax.device_count() == 1
samples.make(pipeline(), pathlib.Path(sys.argv[1]), ["a", "b"], 21, 3, batch_size=2, origin={}, steps=3)
"""


def contents(path):
    return {file.name: file.read_bytes() for file in path.glob("*.png")}


def test_the_same_set_on_one_and_on_eight_devices_and_after_an_interruption(tmp_path):
    class StopError(Exception):
        pass

    def stop(done):
        if done >= 16:
            raise StopError

    make = lambda report: samples.make(
        pipeline(), tmp_path / "eight", ["a", "b"], 21, 3, batch_size=2, origin={}, steps=3, report=report
    )
    with pytest.raises(StopError), pytest.warns(UserWarning, match="reads no prompts"):
        make(stop)
    half = contents(tmp_path / "eight")
    assert len(half) == 16
    counts = []
    with pytest.warns(UserWarning, match="reads no prompts"):
        make(counts.append)
    assert counts == [16, 21]
    tests = pathlib.Path(__file__).parents[1]
    env = os.environ | {
        "XLA_FLAGS": "",
        "PYTHONPATH": f"{tests}:{tests.parent}",
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
    }
    subprocess.run([sys.executable, "-c", ALONE, str(tmp_path / "one")], env=env, check=True)
    one, eight = contents(tmp_path / "one"), contents(tmp_path / "eight")
    assert one == eight
    assert half.items() <= eight.items()
    pictures = np.stack([folder(tmp_path / "one").read(i) for i in range(21)])
    assert len(np.unique(pictures.reshape(21, -1), axis=0)) == 21
    assert pictures.std() > 20


def fake(prompts, *, key, shade=0):
    """Pictures of one colour each, drawn from their key."""
    return jax.vmap(lambda k: jax.random.randint(k, (1, 1, 3), shade, 256) * np.ones((4, 4, 1), np.int32))(key).astype(
        np.uint8
    )


def make(path, num=3, seed=0, prompts=("x",), **options):
    samples.make(lambda *a, **k: np.asarray(fake(*a, **k)), path, prompts, num, seed, origin={"model": "m"}, **options)


def test_a_set_grows_and_knows_its_prompts(tmp_path):
    make(tmp_path / "p", 3, prompts=("x", "y"))
    before = contents(tmp_path / "p")
    make(tmp_path / "p", 5, prompts=("x", "y"))
    assert before.items() <= contents(tmp_path / "p").items()
    assert samples.prompts_of(tmp_path / "p", 5) == ["x", "y", "x", "y", "x"]
    assert samples.prompts_of(tmp_path, 5) == []


def test_seeds_of_64_bits_are_not_cut(tmp_path):
    made = []
    for seed in (0, 2**40, 2**40 + 1):
        make(tmp_path / str(seed), seed=seed)
        made.append(tuple(contents(tmp_path / str(seed)).values()))
    assert len(set(made)) == 3
    with pytest.raises(ValueError, match="expected 0 to"):
        make(tmp_path / "more", seed=2**64)


@pytest.mark.parametrize("text", ["", "{", "[]", "5", "{}", '{"prompts": 3}', '{"prompts": []}', '{"prompts": [1]}'])
def test_settings_that_are_damaged_are_named(tmp_path, text):
    make(tmp_path / "p")
    (tmp_path / "p" / samples.SETTINGS).write_text(text)
    with pytest.raises(ValueError, match=r"settings\.json"):
        samples.prompts_of(tmp_path / "p", 2)
    with pytest.raises(ValueError, match=r"settings\.json|made with"):
        make(tmp_path / "p", 4)


def test_pictures_made_in_another_way_are_not_mixed_in(tmp_path):
    make(tmp_path / "p")
    with pytest.raises(ValueError, match="made with seed 0, not 1; shade None, not 5: choose another --workdir"):
        make(tmp_path / "p", seed=1, shade=5)
    (tmp_path / "q").mkdir()
    (tmp_path / "q" / "holiday.png").write_text("")
    with pytest.raises(ValueError, match="not empty"):
        make(tmp_path / "q")
