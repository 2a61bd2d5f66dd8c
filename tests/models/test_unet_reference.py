"""Our U-Net against diffusers' UNet2DModel with the same weights; tests/reference/unet_ddpm.py made the fixture."""

import pathlib
import re
import zlib

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.models.unet import UNet, UNetConfig

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
