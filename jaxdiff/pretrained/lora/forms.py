r"""The forms of a change to a weight W, from the factors in a file; o, i, k, l are W's outputs, inputs and window.

    LoRA         s B A                                    down = A [r, i k l], up = B [o, r]
    LoCon        s \sum_mn B_om T_mnkl A_ni               with a core, mid = T [r, r, k, l] (Tucker)
    LoHa         s (w1_a w1_b) * (w2_a w2_b)              elementwise product; [o, r] and [r, i k l]
                 each \sum_mn t_mnkl w_a_mo w_b_ni        with cores t1, t2 [r, r, k, l]; then w_a is [r, o]
    LoKr         s w1 (x) w2                              Kronecker's product; w1 [a, c], w2 [o / a, i / c, k, l]
                 either as w_a w_b; w2 with a core t2     as LoHa's
    full         diff                                     also of biases and norms
    IA3          s W * v                                  v [o] or [i]

with s = alpha / r, or 1 where there is no rank. DoRA takes any such D and sets the length of each column of W + D (of
each output, or of each input, as the magnitude's shape says):

    W' = m (W + D) / |W + D|,    change = W' - W

`change` is what a weight of 1 adds to W. A DoRA's weight scales W' - W, as ComfyUI does: 0 leaves W as it is. (PEFT
scales D instead, and at 0 still sets the lengths.)

Sources: Hu et al. 2021, arXiv 2106.09685, section 4.1; Yeh et al. 2023, arXiv 2309.14859, section 3; Liu et al. 2024,
arXiv 2402.09353, equation 5; Liu et al. 2022, arXiv 2205.05638, section 3.3.
"""

from collections.abc import Mapping, Set
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Factors = Mapping[str, Any]
"""The factors of one parameter, `scale` among them; "down" [.., i, r] and "up" [r, o] lie as ours do, cores, LoHa's and
LoKr's as theirs; "magnitude", "diff" and "ia3" fit the parameter's shape."""

_W1 = ({"lokr_w1"}, {"lokr_w1_a", "lokr_w1_b"})
_W2 = ({"lokr_w2"}, {"lokr_w2_a", "lokr_w2_b"}, {"lokr_w2_a", "lokr_w2_b", "lokr_t2"})
_HADA = {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"}
FORMS: tuple[tuple[str, set[str]], ...] = (
    ("LoRA", {"down", "up"}),
    ("LoCon", {"down", "up", "mid"}),
    ("LoHa", _HADA),
    ("LoHa", _HADA | {"hada_t1", "hada_t2"}),
    *(("LoKr", w1 | w2) for w1 in _W1 for w2 in _W2),
    ("full", {"diff"}),
    ("IA3", {"ia3", "on_input"}),
)
"""Each form, and the factors that it has."""
MATRICES = frozenset().union(*(roles for _, roles in FORMS)) - {"diff", "ia3", "on_input"}
"""The factors that are multiplied as matrices, whatever more dimensions they have."""


def change(factors: Factors, weight: jax.Array) -> jax.Array:
    """Returns what the factors add to a weight, at weight 1: float32, of the weight's shape."""
    base = weight.astype(jnp.float32)
    if "ia3" in factors:
        return factors["scale"] * base * jnp.broadcast_to(factors["ia3"].astype(jnp.float32), base.shape)
    delta = factors["scale"] * _delta({name: x.astype(jnp.float32) for name, x in factors.items()}, weight.shape)
    for name, axis in (("magnitude", -1), ("magnitude_in", -2)):
        if name in factors:
            total = base + delta
            axes = tuple(n for n in range(base.ndim) if n != base.ndim + axis)
            length = jnp.sqrt(jnp.sum(total**2, axes, keepdims=True))
            # in training, lengths are constants of the gradient: Liu et al. 2024, section 4.3
            length = jax.lax.stop_gradient(jnp.maximum(length, 1e-12))
            new = jnp.broadcast_to(factors[name].astype(jnp.float32) / length, total.shape)
            return total * new - base
    return delta


def _delta(f: Factors, shape: tuple[int, ...]) -> jax.Array:
    if "diff" in f:
        return f["diff"]
    if "mid" in f:
        return _ours(_tucker(f["mid"], f["up"].T, f["down"]), shape)
    if "down" in f:
        return _product(f["down"], f["up"])
    if "hada_w1_a" in f:
        first, second = (
            _tucker(f[f"hada_t{n}"], f[f"hada_w{n}_a"], f[f"hada_w{n}_b"])
            if f"hada_t{n}" in f
            else _product(f[f"hada_w{n}_a"], _rows(f[f"hada_w{n}_b"]))
            for n in (1, 2)
        )
        return _ours(first * second, shape)
    w1 = f["lokr_w1"] if "lokr_w1" in f else _product(f["lokr_w1_a"], f["lokr_w1_b"])
    window = shape[:-2]
    if "lokr_w2" in f:
        w2 = f["lokr_w2"]
    elif "lokr_t2" in f:
        w2 = _tucker(f["lokr_t2"], f["lokr_w2_a"], f["lokr_w2_b"])
    else:
        w2 = _product(f["lokr_w2_a"], _rows(f["lokr_w2_b"]))
    w2 = w2.reshape(w2.shape[0], -1, *window)
    return _ours(jnp.kron(w1.reshape(*w1.shape, *(1 for _ in window)), w2), shape)


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision="highest")


def _tucker(core: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    """Builds the change [o, i, k, l] from a core [m, n, k, l] and [m, o], [n, i]."""
    return jnp.einsum("mn...,mo,ni->oi...", core, a, b, precision="highest")


def _rows(x: jax.Array) -> jax.Array:
    return x.reshape(x.shape[0], -1)


def _ours(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Theirs, [o, i, k, l] or [o, i k l], as ours, [k, l, i, o] or [i, o]."""
    *window, i, o = shape
    return jnp.moveaxis(x.reshape(o, i, *window), (0, 1), (-1, -2))


def factors(tensors: Mapping[str, np.ndarray], scale: float, shape: tuple[int, ...]) -> dict[str, jax.Array]:
    """Returns the factors of a parameter of this shape, from a file's tensors by their role.

    Raises:
      ValueError: if they do not fit it; says how.
    """
    found: dict[str, np.ndarray] = {}
    for role, x in tensors.items():
        if role == "on_input":
            continue
        if role in ("dora_scale", "magnitude"):
            name, made_shape = _magnitude(role, x, shape)
            found[name] = x.reshape(made_shape)
        elif role == "ia3":
            found[role] = x.reshape(_along(shape, -2 if tensors["on_input"].any() else -1))
        elif role == "diff":
            found[role] = _ours_diff(x, shape)
        else:
            found[role] = x
    if "down" in found:
        rank, ranks = found["down"].shape[0], found["up"].shape[1] if found["up"].ndim > 1 else 0
        if rank != ranks:
            raise ValueError(f"its down has rank {rank}, its up {ranks}")
        if "mid" in found:
            found["down"], found["up"] = found["down"].reshape(rank, -1), found["up"].reshape(-1, rank)
        else:
            down = np.moveaxis(found["down"], (0, 1), (-1, -2)) if found["down"].ndim > 2 else found["down"].T
            found["down"], found["up"] = down.reshape(*shape[:-1], rank), found["up"].reshape(shape[-1], rank).T
    arrays = {name: jnp.asarray(np.ascontiguousarray(x)) for name, x in found.items()} | {"scale": jnp.float32(scale)}
    result = jax.eval_shape(change, arrays, jax.ShapeDtypeStruct(shape, np.float32))
    if result.shape != shape:
        raise ValueError(f"they make {result.shape}")
    return arrays


def lacking(roles: Set[str]) -> str:
    """Returns what these factors lack to be one of `FORMS`, or what is too much; "" where they are one."""
    if any(roles == own for _, own in FORMS):
        return ""
    nearest = max((own for _, own in FORMS), key=lambda own: (len(own & roles), -len(own)))
    if lost := " and ".join(sorted(nearest - roles)):
        return lost
    return f"nothing that goes with {' and '.join(sorted(roles - nearest))}"


def rank(tensors: Mapping[str, np.ndarray]) -> int | None:
    """Returns the rank that alpha is divided by; None where the form has none."""
    inner = ("down", "hada_w1_b", "lokr_w2_b", "lokr_w1_b")
    return next((tensors[role].shape[0] for role in inner if role in tensors), None)


def _along(shape: tuple[int, ...], axis: int) -> list[int]:
    return [n if at == len(shape) + axis else 1 for at, n in enumerate(shape)]


def _magnitude(role: str, x: np.ndarray, shape: tuple[int, ...]) -> tuple[str, list[int]]:
    """Returns the magnitude of each output, [o, 1, ..] or PEFT's [o] and [1, o, ..]; or of each input, [1, i, ..]."""
    *_, i, o = shape
    if x.size == o and (role == "magnitude" or x.shape[0] == o):
        return "magnitude", _along(shape, -1)
    if x.size == i and role == "dora_scale" and x.ndim > 1 and x.shape[1] == i:
        return "magnitude_in", _along(shape, -2)
    raise ValueError(f"its magnitude is {x.shape}")


def _ours_diff(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if len(shape) < 2 or x.ndim < 2:
        return x.reshape(shape)
    *window, i, o = shape
    return np.moveaxis(x.reshape(o, i, *window), (0, 1), (-1, -2))
