"""Every kernel against the formula in float64; those of other platforms against their compilers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.nn.attention import attention

SHAPES = [(2, 64, 2, 16, 64), (1, 1100, 2, 8, 77), (2, 1024, 1, 8, 1024)]


def made(shape, dtype=jnp.float32):
    b, n, h, d, m = shape
    keys = jax.random.split(jax.random.key(0), 3)
    return [jax.random.normal(key, (b, length, h, d), dtype) for key, length in zip(keys, (n, m, m), strict=True)]


def formula(q, k, v, mask=None, causal=False):
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    scores = np.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(q.shape[-1])
    if mask is not None:
        scores = np.where(np.asarray(mask)[:, None, None], scores, -np.inf)
    if causal:
        scores = np.where(np.tril(np.ones(scores.shape[-2:], bool)), scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("bhqk,bkhd->bqhd", weights / weights.sum(-1, keepdims=True), v)


@pytest.mark.parametrize("kernel", ["plain", "blocked"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("masked", [False, True])
def test_kernels_compute_the_formula(kernel, shape, masked):
    q, k, v = made(shape)
    mask = jnp.arange(k.shape[1])[None] < jnp.array([[k.shape[1] // 2], [3]])[: q.shape[0]] if masked else None
    out = jax.jit(lambda q, k, v: attention(q, k, v, mask=mask, kernel=kernel))(q, k, v)
    np.testing.assert_allclose(out, formula(q, k, v, mask), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("kernel", ["plain", "blocked"])
def test_a_causal_query_sees_no_later_key(kernel):
    q, k, v = made((2, 1024, 2, 8, 1024))
    out = attention(q, k, v, causal=True, kernel=kernel)
    np.testing.assert_allclose(out, formula(q, k, v, causal=True), rtol=2e-5, atol=2e-6)


def test_gradients_of_the_blocked_kernel_are_those_of_the_plain_one():
    q, k, v = made((1, 1024, 2, 8, 77))

    def grads(kernel):
        return jax.grad(lambda *args: (attention(*args, kernel=kernel) ** 2).sum(), (0, 1, 2))(q, k, v)

    for ours, plain in zip(grads("blocked"), grads("plain"), strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-4, atol=1e-5)  # sums over 1024 queries in another order


def test_the_flash_kernel_compiles_for_tpu():
    args = made((1, 1024, 2, 40, 1024), jnp.bfloat16)
    lowered = jax.jit(lambda *a: attention(*a, kernel="flash")).trace(*args).lower(lowering_platforms=("tpu",))
    assert "tpu_custom_call" in lowered.as_text()
