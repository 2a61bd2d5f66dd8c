"""A MADE of scikit-learn's digits is better than what counting gives: independent pixels, and a tree of pairs."""

import dataclasses
import pathlib

import jax
import numpy as np
import pytest

from jaxdiff import experiment, loading
from jaxdiff.cli.config import read_config
from jaxdiff.data import open_source

CONFIG = pathlib.Path(__file__).parents[2] / "configs" / "digits" / "digits_made.py"
LEVELS = 17


def by_pixels(seen, held_out):
    counts = np.stack([np.bincount(column, minlength=LEVELS) for column in seen.T]) + 0.1
    p = counts / counts.sum(1, keepdims=True)
    return -np.log2(p[np.arange(seen.shape[1]), held_out]).mean()


def by_pairs(seen, held_out, weight=30.0):
    """The tree of largest mutual information (Chow and Liu 1968), its tables drawn towards the single pixels'."""
    one = np.eye(LEVELS)[seen].reshape(len(seen), -1)
    counts = (one.T @ one).reshape(64, LEVELS, 64, LEVELS).transpose(0, 2, 1, 3)
    p = counts / len(seen)
    alone = p[np.arange(64), np.arange(64)].sum(1)
    ratio = p / np.maximum(alone[:, None, :, None] * alone[None, :, None, :], 1e-12)
    told = (p * np.log(np.where(p > 0, ratio, 1.0))).sum((2, 3))
    smooth = (alone * len(seen) + 0.1) / (len(seen) + 0.1 * LEVELS)
    total, inside = np.log2(smooth[0][held_out[:, 0]]), [0]
    while len(inside) < 64:
        outside = [i for i in range(64) if i not in inside]
        i, j = np.unravel_index(told[np.ix_(inside, outside)].argmax(), (len(inside), len(outside)))
        parent, child = inside[i], outside[j]
        table = counts[parent, child] + weight * smooth[child][None]
        total += np.log2(table / table.sum(1, keepdims=True))[held_out[:, parent], held_out[:, child]]
        inside.append(child)
    return -total.mean() / 64


@pytest.mark.heavy
def test_a_made_of_digits_is_better_than_a_tree_of_pairs(tmp_path):
    pytest.importorskip("sklearn")
    config = read_config(CONFIG)
    config = dataclasses.replace(
        config,
        task=dataclasses.replace(config.task, previews=0),
        held_out="",
        train=dataclasses.replace(config.train, steps=800, log_every=400),
        checkpoint=dataclasses.replace(config.checkpoint, every=800),
    )
    experiment.run(config, tmp_path)
    seen, source = (open_source(dataclasses.replace(config.data, split=split)) for split in ("train", "test"))
    levels = [
        np.rint(np.stack([split[i]["image"][..., 0] for i in range(len(split))]) * (16 / 255))
        for split in (seen, source)
    ]
    flat = [split.reshape(-1, 64).astype(int) for split in levels]
    pixels, pairs = by_pixels(*flat), by_pairs(*flat)
    images, keys = (
        np.stack([source[i]["image"] for i in range(len(source))]),
        jax.random.split(jax.random.key(0), len(source)),
    )
    made = loading.load(tmp_path).bits_per_dim(images, [""] * len(source), keys).mean()
    print(f"MADE {made:.3f}, tree {pairs:.3f}, pixels {pixels:.3f}")
    assert made < pairs < pixels
    assert pairs == pytest.approx(2.16, abs=0.01)
