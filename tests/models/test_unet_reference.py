"""Our U-Net against diffusers' with the same weights; tests/reference/ has what made the fixtures."""

import dataclasses
import pathlib
import re
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pipelines import small
from reference.sd_weights import noise

from jaxdiff.models.controlnet import controlled
from jaxdiff.models.unet import UNet, UNetConfig
from jaxdiff.typing import Cond

FIXTURE = np.load(pathlib.Path(__file__).parents[1] / "reference" / "unet_ddpm.npz")
CONFIG = UNetConfig(
    channels=(8, 16), attention=("none", "self"), heads=(1, 1), depth=(1, 1), groups=4, eps=1e-6, pad_after=True
)
THEIRS = (
    (r"\bup_(\d)/upsample\b", r"up_blocks.\1.upsamplers.0.conv"),
    (r"\bdown_(\d)/downsample/conv\b", r"down_blocks.\1.downsamplers.0.conv"),
    (r"\b(up|down)_(\d)/", r"\1_blocks.\2."),
    (r"\bmid/", "mid_block."),
    (r"\bresnet_(\d)/time\b", r"resnets.\1.time_emb_proj"),
    (r"\bresnet_(\d)/shortcut\b", r"resnets.\1.conv_shortcut"),
    (r"\bresnet_(\d)/", r"resnets.\1."),
    (r"\battn_(\d)/norm\b", r"attentions.\1.group_norm"),
    (r"\battn_(\d)/attn/out\b", r"attentions.\1.to_out.0"),
    (r"\battn_(\d)/attn/(q|k|v)\b", r"attentions.\1.to_\2"),
    (r"\btime_mlp/fc(\d)", r"time_embedding.linear_\1"),
    (r"\bnorm_out\b", "conv_norm_out"),
    (r"/(kernel|scale)$", ".weight"),
    (r"/", "."),
)


def weight(path, leaf):
    """The maker's formula under the other library's name, turned from its layout [out, in, h, w] into ours."""
    name = jax.tree_util.keystr(path[1:], simple=True, separator="/")
    for pattern, theirs in THEIRS:
        name = re.sub(pattern, theirs, name)
    order = {1: (0,), 2: (1, 0), 4: (3, 2, 0, 1)}[leaf.ndim]
    shape = tuple(leaf.shape[i] for i in order)
    wave = np.sin(np.arange(leaf.size) * 1.7 + zlib.crc32(name.encode()) % 1000).reshape(shape)
    if "norm" in name and name.endswith("weight"):
        value = 1 + 0.3 * wave
    else:
        value = wave * (1.5 / np.sqrt(np.prod(shape[1:])) if leaf.ndim > 1 else 0.2)
    return jnp.asarray(value.transpose(np.argsort(order)), jnp.float32)


def test_the_ddpm_network_computes_what_diffusers_does():
    x, t, y = FIXTURE["x"], FIXTURE["t"], FIXTURE["y"]
    shapes = jax.eval_shape(UNet(CONFIG).init, jax.random.key(0), x, t)
    params = jax.tree_util.tree_map_with_path(weight, shapes)
    ours = jax.jit(UNet(CONFIG).apply)(params, x, t)
    assert np.std(y) > 0.1  # all of the network is heard in it: a wrong weight changes it by more than 1e-3
    np.testing.assert_allclose(ours, y, rtol=1e-4, atol=1e-4 * np.std(y))


def test_a_network_that_is_told_the_scale_of_guidance_computes_what_diffusers_does():
    part, x = small.part("unet_told"), noise("x", (2, 4, 8, 8)).transpose(0, 2, 3, 1)
    assert part.config.guidance_width == 16
    cond, t = Cond(context=jnp.asarray(noise("context", (2, 5, 8)))), jnp.array([17.0, 801.0])
    apply = jax.jit(UNet(part.config).apply)
    told = lambda scales: apply({"params": part.params}, x, t, dataclasses.replace(cond, guidance=jnp.array(scales)))
    theirs = small.TOLD_OUTPUTS["unet_told/y"].transpose(0, 2, 3, 1)
    np.testing.assert_allclose(told([1.0, 8.5]), theirs, rtol=0, atol=1e-4 * np.abs(theirs).max())
    assert float(jnp.abs(told([1.0, 4.0])[1] - theirs[1]).max()) > 1e-2
    with pytest.raises(ValueError, match=r"UNet: cond\.guidance is missing, but the network was built with it"):
        apply({"params": part.params}, x, t, cond)


def test_sides_that_do_not_halve_make_what_diffusers_does():
    net, control = small.part("unet_uneven"), small.part("control_uneven")
    x, hint = noise("x", (2, 4, 9, 11)).transpose(0, 2, 3, 1), noise("hint", (2, 3, 18, 22)).transpose(0, 2, 3, 1)
    cond, t = Cond(context=jnp.asarray(noise("context", (2, 5, 24)))), jnp.array([17.0, 801.0])
    plain = jax.jit(UNet(net.config).apply)({"params": net.params}, x, t, cond)
    params = {"unet": net.params, "controls": [control.params], "scales": jnp.ones(1)}
    cond = dataclasses.replace(cond, hints=(jnp.asarray(hint),))
    with_control = jax.jit(controlled(net.config, [control.config]))(params, x, t, cond)
    for name, y in (("y", plain), ("controlled", with_control)):
        theirs = small.UNEVEN_OUTPUTS[f"unet_uneven/{name}"].transpose(0, 2, 3, 1)
        np.testing.assert_allclose(y, theirs, rtol=0, atol=1e-4 * np.abs(theirs).max())
