"""GLIDE's checkpoints: the names of tensors, and the numbers of its networks by their shapes.

What three or two products share one tensor is separated first (`split`), and put together again (`joined`): their
queries, keys and values lie head by head, 64 channels each.

Source: Nichol et al. 2021, arXiv 2112.10741, section 4.1 and its released code.
"""

import functools
import re
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.models.text import TextConfig, TextTransformer
from jaxdiff.models.unet import UNet, UNetConfig
from jaxdiff.pretrained.rules import Rule, Rules, Stored, compvis, few, under
from jaxdiff.typing import Cond, Params

HEAD = 64
"""The width of a head, in the published U-Nets and their text encoders; no tensor tells it."""
CHANNELS = {3: "base", 6: "upsample", 7: "base-inpaint", 10: "upsample-inpaint"}
"""The channels that the U-Net of each published model takes."""
_PARTS = {"qkv": ("q", "k", "v"), "c_qkv": ("q", "k", "v"), "encoder_kv": ("k_context", "v_context")}
_SHARED = re.compile(r"(.*)\.(qkv|c_qkv|encoder_kv)\.(weight|bias)")
_LAST = re.compile(r".*\.proj_out\.weight")

_ATTENTION = (
    Rule("norm", "norm", "norm"),
    *(Rule(name, f"attn/{name}", "dense") for name in ("q", "k", "v", "k_context", "v_context")),
    Rule("proj_out", "attn/out", "dense"),
)
_BLOCK = (
    Rule("ln_1", "norm1", "norm"),
    *(Rule(f"attn.{name}", f"attn/{name}", "dense") for name in ("q", "k", "v")),
    Rule("attn.c_proj", "attn/out", "dense"),
    Rule("ln_2", "norm2", "norm"),
    Rule("mlp.c_fc", "fc1", "dense"),
    Rule("mlp.c_proj", "fc2", "dense"),
)
TEXT: Rules = (
    Rule("token_embedding", "token_embed", "embed"),
    Rule("positional_embedding", "position_embed", "same"),
    Rule("padding_embedding", "padding_embed", "same"),
    *under("transformer.resblocks.{}", "block_{}", _BLOCK),
    Rule("final_ln", "norm_out", "norm"),
    Rule("transformer_proj", "projection", "dense"),
)
"""The names of the text encoder, which lie beside the U-Net's."""


def unet_rules(net: UNetConfig) -> Rules:
    """Returns the table of the U-Net, after `split`."""
    return compvis.numbered(net, _ATTENTION)


def is_text(name: str) -> bool:
    """Returns whether a tensor is of the text encoder."""
    return name.split(".")[0] in {rule.theirs.split(".")[0] for rule in TEXT}


def configs(tensors: Mapping[str, Stored]) -> tuple[UNetConfig, TextConfig]:
    """Returns the numbers of a checkpoint's networks.

    Raises:
      ValueError: if they are not GLIDE's.
    """
    shape = lambda name: _shape(tensors, name)
    width, channels = shape("time_embed.0.weight")[1], shape("input_blocks.0.0.weight")[1]
    if channels not in CHANNELS or shape("out.2.weight")[0] != 6:
        raise ValueError(
            f"a U-Net that takes {channels} channels and gives {shape('out.2.weight')[0]}: GLIDE's take "
            f"{', '.join(f'{n} ({name})' for n, name in CHANNELS.items())} and give 6"
        )
    ups = sorted({int(m[1]) for m in map(re.compile(r"output_blocks\.(\d+)\.[12]\.in_layers\..*").match, tensors) if m})
    if not ups:
        raise ValueError("a U-Net of one resolution, or without residual blocks that change it: it is not GLIDE's")
    each, levels = ups[0] + 1, len(ups) + 1
    first = [each * j for j in range(levels)]  # the first block of each level, from the lowest resolution up
    out = [shape(f"output_blocks.{n}.0.out_layers.3.weight")[0] for n in first]
    looks = [f"output_blocks.{n}.1.qkv.weight" in tensors for n in first]
    if wrong := [c for c, looked in zip(out, looks, strict=True) if looked and c % HEAD]:
        raise ValueError(f"attention over {wrong[0]} channels: GLIDE's heads have {HEAD} each")
    unet = UNetConfig(
        out_channels=6,
        channels=tuple(out[::-1]),
        layers=each - 1,
        attention=tuple("joint" if looked else "none" for looked in looks[::-1]),
        mid_attention="joint",
        heads=tuple(max(c // HEAD, 1) for c in out[::-1]),
        depth=(1,) * levels,
        addition="plain",
        embed_width=shape("time_embed.0.weight")[0],
        scale_shift=True,
        adm_resample=True,
        time_shift=0.0,
        sin_first=False,
    )
    if unet.channels[0] != width:
        raise ValueError(f"a time embedding of {width} waves before {unet.channels[0]} channels: it is not GLIDE's")
    vocabulary, states = shape("token_embedding.weight")
    if states % HEAD:
        raise ValueError(f"text states of {states} channels: GLIDE's heads have {HEAD} each")
    blocks = {m[1] for m in map(re.compile(r"transformer\.resblocks\.(\d+)\..*").match, tensors) if m}
    text = TextConfig(
        vocabulary=vocabulary,
        length=shape("positional_embedding")[0],
        width=states,
        layers=len(blocks),
        heads=states // HEAD,
        pad=-1,
        filled=True,
        projection=shape("transformer_proj.weight")[0],
        eps=1e-5,
        exact_gelu=True,
    )
    return unet, text


def _shape(tensors: Mapping[str, Stored], name: str) -> tuple[int, ...]:
    if name not in tensors or len(tensors[name].shape) < 2:
        actual = f"of shape {tensors[name].shape}" if name in tensors else "missing"
        raise ValueError(f"{name} is {actual}: a checkpoint of GLIDE has it; there is {few(sorted(tensors), 3)}")
    return tensors[name].shape


@functools.cache
def shapes(unet: UNetConfig, text: TextConfig, channels: int) -> tuple[Params, Params]:
    """Returns the parameters of both, as shapes; `channels` are what the U-Net takes."""
    side = unet.unit

    def init() -> tuple[Params, Params]:
        key, zeros = jax.random.key(0), functools.partial(jnp.zeros, dtype=jnp.float32)
        cond = Cond(context=zeros((1, 2, text.width)), pooled=zeros((1, text.projection)))
        params = UNet(unet).init(key, zeros((1, side, side, channels)), zeros(1), cond)["params"]
        return params, TextTransformer(text).init(key, jnp.zeros((1, 2), jnp.int32))["params"]

    return jax.eval_shape(init)


def split(tensors: Mapping[str, Stored]) -> dict[str, Stored]:
    """Gives each product a tensor of its own: [o, i] for weights."""
    parts: dict[str, Stored] = {}
    for name, x in tensors.items():
        match = _SHARED.fullmatch(name)
        if match:
            own = _PARTS[match[2]]
            rows = x.shape[0] // len(own)
            for n, part in enumerate(own):
                read = functools.partial(_one, x, n, len(own))
                parts[f"{match[1]}.{part}.{match[3]}"] = Stored((rows, *x.shape[1:2]), x.dtype, read)
        elif _LAST.fullmatch(name):
            parts[name] = Stored(x.shape[:2], x.dtype, functools.partial(_flat, x))
        else:
            parts[name] = x
    return parts


def _one(x: Stored, n: int, parts: int) -> np.ndarray:
    y = np.asarray(x)
    y = y.reshape(y.shape[:2])
    return y.reshape(-1, parts, HEAD, *y.shape[1:])[:, n].reshape(-1, *y.shape[1:])


def _flat(x: Stored) -> np.ndarray:
    y = np.asarray(x)
    return y.reshape(y.shape[:2])


def joined(tensors: Mapping[str, Stored]) -> dict[str, Stored]:
    """Undoes `split`."""
    out: dict[str, Stored] = {}
    for name, x in tensors.items():
        above, part, leaf = [*name.rsplit(".", 2), "", ""][:3]
        inside = not is_text(name)
        shared = next((s for s, own in _PARTS.items() if part in own and (s == "c_qkv") != inside), None)
        tail = (1,) if inside and leaf == "weight" else ()  # convolutions over a sequence
        if shared is not None:
            own = [tensors[f"{above}.{one}.{leaf}"] for one in _PARTS[shared]]
            shape = (len(own) * x.shape[0], *x.shape[1:], *tail)
            out[f"{above}.{shared}.{leaf}"] = Stored(shape, x.dtype, _together(own, shape))
        elif _LAST.fullmatch(name):
            out[name] = Stored((*x.shape, 1), x.dtype, _together([x], (*x.shape, 1)))
        else:
            out[name] = x
    return out


def _together(parts: list[Stored], shape: tuple[int, ...]) -> Callable[[], np.ndarray]:
    def read() -> np.ndarray:
        rows = [np.asarray(x).reshape(-1, HEAD, *x.shape[1:]) for x in parts]
        return np.stack(rows, 1).reshape(shape)

    return read
