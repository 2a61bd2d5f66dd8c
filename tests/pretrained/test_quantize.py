"""Eight bits keep a weight to within half a step of its channel's scale."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.pretrained.quantize import Quantized, dequantize, is_quantized, quantize

RNG = np.random.default_rng(0)
SPREAD = np.exp(RNG.normal(size=256)).astype(np.float32)
KERNEL = RNG.normal(size=(3, 3, 64, 256)).astype(np.float32) * SPREAD
PARAMS = {
    "conv": {"kernel": jnp.asarray(KERNEL), "bias": jnp.ones(256)},
    "small": {"kernel": jnp.ones((4, 8))},
    "conv_out": {"kernel": jnp.ones((3, 3, 64, 64))},
    "empty": {"kernel": jnp.zeros((128, 256))},
}
LARGEST = np.abs(KERNEL).max((0, 1, 2))
# int8 is off by half a step of the channel's largest; fp8 by 2^-4 of the number, or half of its least step
LIMITS = {"int8": LARGEST / 254, "fp8": np.maximum(2.0**-4 * np.abs(KERNEL), LARGEST / 448 * 2.0**-10)}


@pytest.mark.parametrize("kind", LIMITS)
def test_large_kernels_take_a_byte_and_keep_their_channels(kind):
    small = quantize(PARAMS, kind)
    kernel = small["conv"]["kernel"]
    assert isinstance(kernel, Quantized)
    assert kernel.values.dtype.itemsize == 1
    assert kernel.scale.shape == (1, 1, 1, 256)
    assert isinstance(small["small"]["kernel"], jax.Array)
    assert isinstance(small["conv_out"]["kernel"], jax.Array)
    assert [is_quantized(small), is_quantized(PARAMS)] == [True, False]
    back = jax.jit(lambda p: dequantize(p, jnp.float32, jnp.ones(2))[0])(small)
    assert jax.tree.structure(back) == jax.tree.structure(PARAMS)
    assert (np.abs(back["conv"]["kernel"] - KERNEL) <= 1.001 * LIMITS[kind]).all()
    np.testing.assert_array_equal(back["empty"]["kernel"], 0)
    assert dequantize(small, jnp.bfloat16, jnp.ones(2))[0]["conv"]["kernel"].dtype == jnp.bfloat16


def test_within_a_loop_no_whole_copy_lives_on():
    """The largest array that the loop carries is in 8 bits."""
    small = quantize({"kernel": jnp.ones((512, 512))}, "int8")

    def call(x, params):
        plain, x = dequantize(params, jnp.float32, x)
        return jnp.tanh(x @ plain["kernel"])

    run = lambda params, x: jax.lax.scan(lambda x, _: (call(x, params), None), x, length=9)[0]
    text = jax.jit(run).lower(small, jnp.ones((2, 512))).compile().as_text()
    carried = next(line for line in text.splitlines() if " while(" in line).split(" while(")[0]
    assert "s8[512,512]" in carried
    assert "f32[512,512]" not in carried


def test_another_kind_is_refused():
    with pytest.raises(ValueError, match="expected one of int8, fp8"):
        quantize(PARAMS, "int4")
