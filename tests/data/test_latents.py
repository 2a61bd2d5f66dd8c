"""Latents on disk, with an encoder of NumPy: written by many, killed, resumed, damaged, read."""

import dataclasses
import json
import signal
import subprocess
import sys

import numpy as np
import pytest

from jaxdiff.data import DataConfig, batches, latent_shards, open_source
from jaxdiff.data.latents import Layout, Plan

PLAN = Plan(
    data="numbers", subset="all", size=4, mirrored=False, labels=("even", "odd"), autoencoder="a" * 64,
    kind="AutoencoderKL", text_encoder=None, dtype="float32", factor=2, channels=6, context=None, shapes=((4, 4),),
    shard_rows=3,
)  # fmt: skip
CONFIG = DataConfig(size=4, workers=0)


def encode(examples):
    """Moments of which all follows from the picture: mean i + channel, log-variance log(4)."""
    values = np.array([one["image"][0, 1, 0] for one in examples], np.float32)
    mean = values[:, None, None, None, None] + np.zeros((1, 1, 2, 2, 3)) + np.arange(3)
    return {
        "moments": np.concatenate([mean, np.full(mean.shape, np.log(4))], -1),
        "small": np.stack([one["image"][None, ::2, ::2] for one in examples]),
    }


def make(folder, source, plan=PLAN, order=slice(None), encode=encode):
    latent_shards.begin(folder, plan)
    parts = latent_shards.parts(source, plan)
    for part in latent_shards.missing(folder / "train", parts, len(source))[order]:
        latent_shards.write(folder / "train", part, source, plan, encode, batch=2)
    return latent_shards.finish(folder / "train", parts, plan, len(source))


def files(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name[0] != "."}


@pytest.fixture
def made(tmp_path, numbers):
    make(tmp_path / "made", numbers(10))
    return tmp_path / "made"


def read(folder, **options):
    return open_source(dataclasses.replace(CONFIG, name=str(folder), **options))


def test_what_was_written_is_read(made, numbers):
    source, data = read(made), numbers(10)
    assert len(source) == 10
    assert source.labels == ("even", "odd")
    assert source.captions() == data.captions()
    for i in range(10):
        assert source[i]["caption"] == f"number {i}"
        assert source[i]["label"] == i % 2
        expected = encode([data[i]])
        np.testing.assert_array_equal(source[i]["moments"], expected["moments"][0].astype(np.float32))
        np.testing.assert_array_equal(source[i]["small"], expected["small"][0])


def test_the_scale_is_that_of_draws(made):
    """z = i + c + 2 eps over i < 10, c < 3: its variance by hand."""
    manifest = read(made).manifest
    variance = (10**2 - 1) / 12 + 2 / 3 + 4
    np.testing.assert_allclose(manifest.deviation, variance**0.5, rtol=1e-6)
    np.testing.assert_allclose(manifest.mean, 4.5 + np.arange(3), rtol=1e-6)
    np.testing.assert_allclose(manifest.std, [((10**2 - 1) / 12 + 4) ** 0.5] * 3, rtol=1e-6)


def test_the_order_in_which_shards_are_made_changes_no_byte(made, tmp_path, numbers):
    assert make(tmp_path / "other", numbers(10), order=slice(None, None, 2)) is None
    assert not (tmp_path / "other" / "train" / "manifest.json").exists()
    with pytest.raises(ValueError, match="is not complete: run `jaxdiff latents` again"):
        read(tmp_path / "other")
    assert make(tmp_path / "other", numbers(10), order=slice(None, None, -1)) is not None
    assert files(tmp_path / "other") == files(made)


KILLED = """
import os, pathlib, signal, sys
sys.path[:0] = [{tests!r}, {here!r}]
from conftest_numbers import Numbers
import test_latents as t

count = 0
def encode(examples):
    global count
    count += 1
    if count == 4:  # the second shard's second batch
        os.kill(os.getpid(), signal.SIGKILL)
    return t.encode(examples)

t.make(pathlib.Path({out!r}), Numbers(10), encode=encode)
"""


def test_a_killed_process_leaves_whole_shards_and_the_next_makes_the_same_bytes(made, tmp_path, numbers):
    out = tmp_path / "killed"
    here = [str(path) for path in (tmp_path, __file__.rsplit("/", 1)[0])]
    (tmp_path / "conftest_numbers.py").write_text(
        f"import importlib.util\nspec = importlib.util.spec_from_file_location('c', {here[1] + '/conftest.py'!r})\n"
        "module = importlib.util.module_from_spec(spec)\nspec.loader.exec_module(module)\nNumbers = module.Numbers\n"
    )
    code = KILLED.format(tests=here[0], here=here[1], out=str(out))
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    assert [*files(out / "train")] in (["00000.array_record", "00000.json"], ["00000.json", "00000.array_record"])
    assert make(out, numbers(10)) is not None
    assert files(out) == files(made)


@pytest.mark.parametrize("name", ["00001.array_record", "00002.json", "manifest.json"])
@pytest.mark.parametrize("what", ["missing", "damaged"])
def test_missing_and_damaged_files_are_named(made, name, what, numbers):
    whole = files(made)
    path = made / "train" / name
    read(made)  # what was found sound is not read again, unless it changed
    if what == "missing":
        path.unlink()
    else:
        data = bytearray(path.read_bytes())
        data[len(data) // 3] ^= 8
        path.write_bytes(data[:40] if name == "manifest.json" else data)
    with pytest.raises((ValueError, OSError)) as told:
        read(made)
    expected = "is not complete" if (name, what) == ("manifest.json", "missing") else name
    assert expected in str(told.value)
    assert "\n" not in str(told.value)
    path.unlink(missing_ok=True)
    make(made, numbers(10))
    assert files(made) == whole
    read(made)


def test_other_latents_are_not_mixed(made, numbers):
    for change in ({"autoencoder": "b" * 64}, {"size": 8}, {"dtype": "float16"}, {"mirrored": True}):
        with pytest.raises(ValueError, match=f"made otherwise .{next(iter(change))}"):
            make(made, numbers(10), dataclasses.replace(PLAN, **change))
    with pytest.raises(ValueError, match="other examples than the data have now"):
        make(made, numbers(11))
    (made / "latents.json").unlink()
    with pytest.raises(ValueError, match="holds other things than latents"):
        make(made, numbers(10))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 8}, "data.size is 8, and .* holds latents of 4"),
        ({"flip": True}, "holds no mirrored pictures"),
        ({"split": "test"}, "is not there; complete are: train"),
        ({"subset": "plain"}, "was made of 'all'"),
    ],
)
def test_a_config_that_asks_for_others_is_refused(made, options, message):
    with pytest.raises(ValueError, match=message):
        read(made, **options)


def test_a_plan_of_a_later_version_is_refused(made):
    plan = json.loads((made / "latents.json").read_text())
    (made / "latents.json").write_text(json.dumps({**plan, "tiles": 3}))
    with pytest.raises(ValueError, match=r"of a later version: unknown config field tiles"):
        read(made)
    (made / "latents.json").write_text(json.dumps({**plan, "shard_rows": 5}))
    with pytest.raises(ValueError, match="was not made with"):
        read(made)


def test_values_that_the_dtype_cannot_hold_are_refused(tmp_path, numbers):
    large = lambda examples: {**encode(examples), "moments": encode(examples)["moments"] * 1e6}
    with np.errstate(over="ignore"), pytest.raises(FloatingPointError, match="not finite in float16: try float32"):
        make(tmp_path / "out", numbers(3), dataclasses.replace(PLAN, dtype="float16"), encode=large)
    assert not [*(tmp_path / "out" / "train").iterdir()], "nothing unfinished stays"


class Shaped:
    """Pictures of many shapes; the one at i has the sides SIDES[i % 3]."""

    labels = ()
    sides_of = ((4, 4), (3, 9), (30, 20))

    def __len__(self):
        return 9

    def sides(self, index):
        return self.sides_of[index % 3]

    def shaped(self, index, height, width):
        return {"image": np.full((height, width, 3), index, np.uint8), "caption": f"number {index}", "label": 0}

    def captions(self):
        return [f"number {i}" for i in range(9)]


def test_batches_of_buckets_are_of_one_shape(tmp_path):
    plan = dataclasses.replace(PLAN, shapes=((4, 2), (4, 4), (2, 4)), labels=(), shard_rows=2)

    def encode(examples):
        image = np.stack([one["image"] for one in examples])[:, None, ::2, ::2]
        return {"moments": np.repeat(image, 2, -1).astype(np.float32), "small": image}

    make(tmp_path, Shaped(), plan, encode=encode)
    source = read(tmp_path)
    assert source.groups == (3, 3, 3)
    shapes = set()
    config = dataclasses.replace(CONFIG, name=str(tmp_path))
    example = lambda one, rng: {"moments": one["moments"][0]}
    with batches(source, config, batch_size=2, seed=0, example=example) as stream:
        for _ in range(20):
            shapes.add(next(stream)["moments"].shape[1:3])
        assert stream.get_state()["group_1"] == 3
    assert shapes == {(2, 1), (2, 2), (1, 2)}


def test_mirrored_ones_are_drawn_where_asked(tmp_path, numbers):
    plan = dataclasses.replace(PLAN, mirrored=True)

    def both(examples):
        one = encode(examples)
        return {name: np.concatenate([x, x[:, :, :, ::-1]], 1) for name, x in one.items()}

    make(tmp_path, numbers(4), plan, encode=both)
    assert read(tmp_path)[0]["small"].shape == (1, 2, 2, 3)
    assert read(tmp_path, flip=True)[0]["small"].shape == (2, 2, 2, 3)


def test_a_row_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="moments is of shape"):
        Layout(PLAN, 0).pack({"moments": np.zeros((1, 3, 2, 6))}, "", 0)
