"""InceptionV3 as the FID network has it: TensorFlow's of December 2015, not the paper's, oddities included.

Average pools leave the padding out of the count, the last block takes a maximum where all others take a mean, and there
are 1008 classes. Batch norms are folded into the convolutions (`pretrained.rules.features`): a unit here is a
convolution with a bias, then ReLU.

Sources: Szegedy et al. 2015, arXiv 1512.00567, table 1; Heusel et al. 2017, arXiv 1706.08500, for the network's use.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from jaxdiff.nn.conv import conv

SIZE = 299
WIDTHS = ("64", "192", "768", "2048")
RESIZES = ("tensorflow", "pytorch", "clean")

# A step of a branch is a convolution "features window", a pool, or two convolutions side by side. Windows keep the
# size, or shrink it: "v" fits inside, "/2" also takes every other place.
Step = str | tuple[str, str]


def _a(pool: int) -> dict[str, list[Step]]:
    double: list[Step] = ["64 1x1", "96 3x3", "96 3x3"]
    return {"1x1": ["64 1x1"], "5x5": ["48 1x1", "64 5x5"], "3x3dbl": double, "_pool": ["mean", f"{pool} 1x1"]}


def _c(w: int) -> dict[str, list[Step]]:
    single: list[Step] = [f"{w} 1x1", f"{w} 1x7", "192 7x1"]
    double: list[Step] = [f"{w} 1x1", f"{w} 7x1", f"{w} 1x7", f"{w} 7x1", "192 1x7"]
    return {"1x1": ["192 1x1"], "7x7": single, "7x7dbl": double, "_pool": ["mean", "192 1x1"]}


def _e(pool: str) -> dict[str, list[Step]]:
    fork = ("384 1x3", "384 3x1")
    double: list[Step] = ["448 1x1", "384 3x3", fork]
    return {"1x1": ["320 1x1"], "3x3": ["384 1x1", fork], "3x3dbl": double, "_pool": [pool, "192 1x1"]}


_B: dict[str, list[Step]] = {"3x3": ["384 3x3/2"], "3x3dbl": ["64 1x1", "96 3x3", "96 3x3/2"], "_pool": ["max/2"]}
_D: dict[str, list[Step]] = {
    "3x3": ["192 1x1", "320 3x3/2"],
    "7x7x3": ["192 1x1", "192 1x7", "192 7x1", "192 3x3/2"],
    "_pool": ["max/2"],
}
# a unit, a pool, a block of branches, or the end of a stage, named by its width
NETWORK: tuple[tuple[str, Any], ...] = (
    ("conv2d_1a_3x3", "32 3x3/2"),
    ("conv2d_2a_3x3", "32 3x3v"),
    ("conv2d_2b_3x3", "64 3x3"),
    ("pool", "max/2"),
    ("64", None),
    ("conv2d_3b_1x1", "80 1x1"),
    ("conv2d_4a_3x3", "192 3x3v"),
    ("pool", "max/2"),
    ("192", None),
    ("mixed_5b", _a(32)),
    ("mixed_5c", _a(64)),
    ("mixed_5d", _a(64)),
    ("mixed_6a", _B),
    ("mixed_6b", _c(128)),
    ("mixed_6c", _c(160)),
    ("mixed_6d", _c(160)),
    ("mixed_6e", _c(192)),
    ("768", None),
    ("mixed_7a", _D),
    ("mixed_7b", _e("mean")),
    ("mixed_7c", _e("max")),
    ("2048", None),
)


class Unit(nn.Module):
    """A convolution "features window", bias and ReLU."""

    spec: str

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b i j o"]:
        features, window = self.spec.split()
        height, width = (int(n) for n in window.removesuffix("/2").removesuffix("v").split("x"))
        shape = (height, width, x.shape[-1], int(features))
        kernel = self.param("kernel", nn.initializers.he_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, shape[-1:])
        inside = window[-1] in "v2"
        pad = ((0, 0), (0, 0)) if inside else ((height // 2,) * 2, (width // 2,) * 2)
        return nn.relu(conv(x, kernel, 2 if window.endswith("/2") else 1, pad) + bias[None, None, None])


class Mixed(nn.Module):
    """Branches side by side."""

    branches: dict[str, list[Step]]

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b i j o"]:
        outputs = []
        for branch, steps in self.branches.items():
            y = [x]
            alone = len([step for step in steps if step not in _POOLS]) == 1
            number = 0
            for step in steps:
                if step in _POOLS:
                    y = [_POOLS[step](y[0])]
                    continue
                number += 1
                name = f"branch{branch}" if alone else f"branch{branch}_{number}"
                parts = (
                    {name: step} if isinstance(step, str) else dict(zip((name + "a", name + "b"), step, strict=True))
                )
                y = [Unit(spec, name=part)(y[0]) for part, spec in parts.items()]
            outputs += y
        return jnp.concatenate(outputs, -1)


_POOLS: dict[Any, Any] = {
    "mean": lambda x: nn.avg_pool(x, (3, 3), (1, 1), "SAME", count_include_pad=False),
    "max": lambda x: nn.max_pool(x, (3, 3), (1, 1), "SAME"),
    "max/2": lambda x: nn.max_pool(x, (3, 3), (2, 2), "VALID"),
}


class InceptionV3(nn.Module):
    """The FID network.

    Returns the mean over places after each stage, by width ("64", "192", "768", "2048"), `logits`, and
    `logits_unbiased`, without the last layer's bias, of which the Inception score is taken. What is not used of it is
    not computed under jit.
    """

    @nn.compact
    def __call__(self, x: Float[Array, "b 299 299 3"]) -> dict[str, Float[Array, "b _"]]:
        out = {}
        for name, part in NETWORK:
            if part is None:
                out[name] = x.mean((1, 2))
            elif name == "pool":
                x = _POOLS[part](x)
            else:
                x = Unit(part, name=name)(x) if isinstance(part, str) else Mixed(part, name=name)(x)
        fc = nn.Dense(1008, name="fc")
        out["logits"] = fc(out["2048"])
        out["logits_unbiased"] = out["logits"] - fc(jnp.zeros_like(out["2048"][:1]))
        return out


def prepare(pictures: UInt8[Array | np.ndarray, "b h w 3"], resize: str = "tensorflow") -> Float[Array, "b 299 299 3"]:
    """Resizes pictures for the network, in one of the ways in use; FIDs by different ones do not compare.

    tensorflow  bilinear between the two pixels at and after i h / 299, as the original FID, torch-fidelity and most
                papers have it
    pytorch     bilinear about pixel centres, without antialiasing, as pytorch-fid
    clean       bicubic with antialiasing, as clean-fid (Parmar et al. 2022, arXiv 2104.11222)

    Raises:
      ValueError: for another name.
    """
    if resize not in RESIZES:
        raise ValueError(f"resize is {resize!r}: expected one of {', '.join(RESIZES)}")
    x = jnp.asarray(pictures).astype(jnp.float32)
    shape = (len(x), SIZE, SIZE, 3)
    if resize == "pytorch":
        return jax.image.resize(x, shape, "linear", antialias=False) / 127.5 - 1
    if resize == "clean":
        x = jnp.clip(jax.image.resize(x, shape, "cubic", antialias=True), 0, 255)
    else:
        rows, columns = (_between(n) for n in x.shape[1:3])
        x = jnp.einsum("ih,bhwc,jw->bijc", rows, x, columns, precision=jax.lax.Precision.HIGHEST)
    return (x - 128) / 128


def _between(size: int) -> np.ndarray:
    """Returns the weights [299, size] of TensorFlow 1's bilinear resizing, whose float32 positions they share."""
    place = np.arange(SIZE, dtype=np.float32) * np.float32(size / SIZE)
    low = place.astype(np.int64)
    part = place - low.astype(np.float32)
    weights = np.zeros((SIZE, size), np.float32)
    np.add.at(weights, (np.arange(SIZE), low), 1 - part)
    np.add.at(weights, (np.arange(SIZE), np.minimum(low + 1, size - 1)), part)
    return weights
