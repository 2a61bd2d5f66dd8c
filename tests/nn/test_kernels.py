"""TPU's attention kernel, interpreted on a CPU, against the plain product."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

from jaxdiff.nn.attention import attention


@pytest.mark.parametrize("causal", [False, True])
def test_the_flash_kernel_computes_the_plain_product(causal):
    q, k, v = (jax.random.normal(key, (1, 512, 1, 24)) for key in jax.random.split(jax.random.key(0), 3))
    with pltpu.force_tpu_interpret_mode():
        flash = attention(q, k, v, causal=causal, kernel="flash")
    plain = attention(q, k, v, causal=causal, kernel="plain")
    np.testing.assert_allclose(flash, plain, rtol=2e-5, atol=2e-6)


def test_mask_and_order_hide_keys_together():
    """A key that is both masked and later, or only one of them, is not seen; gradients to it are zero."""
    q, k, v = (jax.random.normal(key, (2, 520, 2, 8)) for key in jax.random.split(jax.random.key(0), 3))
    mask = jnp.arange(520)[None] != 3
    mask = jnp.concatenate([mask, mask])
    row = lambda kernel: lambda v: attention(q, k, v, mask=mask, causal=True, kernel=kernel)[:, 10].sum()
    for kernel in ("plain", "blocked"):
        seen = np.asarray(jnp.abs(jax.grad(row(kernel))(v)).sum((0, 2, 3)) > 0)
        np.testing.assert_array_equal(np.flatnonzero(seen), [0, 1, 2, 4, 5, 6, 7, 8, 9, 10])
