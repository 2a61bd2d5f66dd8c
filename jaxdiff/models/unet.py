"""The U-Net of diffusion models, in pixels or latents: DDPM, ADM, GLIDE's kind, and Stable Diffusion up to SDXL.

    y = unet(x_t, t, cond)

A stack of levels halves the resolution, a middle joins them, and a stack of levels doubles it again; each residual
block of the way down hands its output to one of the way up. Every residual block gets the time (and label, pooled text
and augmentation level) as one vector; attention lies after residual blocks at chosen levels. One module serves all
published shapes because they differ in numbers only; presets are the functions at the end.

Sources: Ho et al. 2020, arXiv 2006.11239, appendix B (DDPM); Dhariwal and Nichol 2021, arXiv 2105.05233, section 3
(ADM); Rombach et al. 2022, arXiv 2112.10752, appendix E (cross-attention); Podell et al. 2023, arXiv 2307.01952 (SDXL).
"""

import dataclasses
import functools
import math
from collections.abc import Sequence

import einops
import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdiff.models.config import NetConfig, check_dtype
from jaxdiff.nn.conv import Conv
from jaxdiff.nn.embedding import Mlp, sinusoidal
from jaxdiff.nn.norm import GroupNorm
from jaxdiff.nn.resnet import Downsample, ResnetBlock, Upsample
from jaxdiff.nn.transformer import AttentionBlock, SpatialTransformer
from jaxdiff.typing import Cond, Key


@dataclasses.dataclass(frozen=True, kw_only=True)
class UNetConfig(NetConfig):
    """The numbers of a U-Net; a tuple holds one entry for each level, from the highest resolution down.

    Attributes:
      out_channels: channels of the output.
      channels: width of each level.
      layers: residual blocks a level on the way down (one more on the way up).
      attention: `none`, `self` (one attention over the positions) or `cross` (transformer blocks that see the context).
      mid_attention: the same for the middle.
      heads: attention heads.
      depth: transformer blocks in each `cross`.
      labels: number of classes; label `labels` itself means none (for guidance). 0: no label.
      pooled: whether `cond.pooled` is used; augment: whether `cond.augment` is.
      patch: the picture is cut into patch x patch squares first (space to depth).
      groups, eps: of the normalisation; rescale: residual sums are divided by this.
      time_shift, sin_first: see `sinusoidal`.
      scale_shift: time scales and shifts (ADM); adm_resample: residual blocks change the resolution (ADM).
      pad_after: strided convolutions are padded below and to the right only (DDPM's code).
      self_attends_context: levels at which the first attention of a `cross` block looks at the context too.
      dropout: rate in residual blocks, where the network is called with keys [b].
      remat: recompute each block in the backward pass: less memory, a third more time.
      dtype: of the computation; parameters are float32 unless loaded otherwise. The output is float32.
    """

    out_channels: int = 3
    channels: tuple[int, ...] = (128, 256, 256, 256)
    layers: int = 2
    attention: tuple[str, ...] = ("none", "self", "none", "none")
    mid_attention: str = "self"
    heads: tuple[int, ...] = (1, 1, 1, 1)
    depth: tuple[int, ...] = (1, 1, 1, 1)
    labels: int = 0
    pooled: bool = False
    augment: bool = False
    patch: int = 1
    groups: int = 32
    eps: float = 1e-5
    rescale: float = 1.0
    time_shift: float = 1.0
    sin_first: bool = True
    scale_shift: bool = False
    adm_resample: bool = False
    pad_after: bool = False
    self_attends_context: tuple[int, ...] = ()
    dropout: float = 0.0
    remat: bool = False

    @property
    def unit(self) -> int:
        """Sides of pictures are multiples of it.

        Strided convolutions padded on all sides round an odd side up, and the way up gives it back; what else halves
        would lose its last row.
        """
        exact = self.adm_resample or self.pad_after
        return self.patch * 2 ** (len(self.channels) - 1) if exact else self.patch

    def build(self) -> "UNet":
        """Makes the network."""
        return UNet(self)

    def check(self, *sides: int) -> None:
        """Refuses numbers that do not fit each other, or pictures with these sides.

        Raises:
          ValueError: names the fields, what they are, and what is expected.
        """
        levels = len(self.channels)
        if not levels:
            raise ValueError("UNet: channels is empty: expected the width of each level")
        for name in ("attention", "heads", "depth"):
            if len(getattr(self, name)) != levels:
                raise ValueError(
                    f"UNet: {name} is {getattr(self, name)}: expected one entry for each of the {levels} levels of "
                    f"channels {self.channels}"
                )
        attends = [kind != "none" for kind in self.attention]
        attends[-1] |= self.mid_attention != "none"
        for name in ("channels", "heads", "depth", "out_channels", "layers", "patch", "groups"):
            value = getattr(self, name)
            counted = {"heads": attends, "depth": [kind == "cross" for kind in self.attention]}.get(name)
            many = value if isinstance(value, tuple) else (value,)
            if any(number < 1 for number, used in zip(many, counted or [True] * len(many), strict=True) if used):
                raise ValueError(f"UNet: {name} is {value}: expected 1 or more")
        if wrong := {*self.attention, self.mid_attention} - {"none", "self", "cross"}:
            raise ValueError(f"UNet: attention {sorted(wrong)}: expected none, self or cross")
        if self.labels < 0:
            raise ValueError(f"UNet: labels is {self.labels}: expected 0 or more")
        for name in ("eps", "rescale"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"UNet: {name} is {getattr(self, name)}: expected a number above 0")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"UNet: dropout is {self.dropout}: expected at least 0 and less than 1")
        check_dtype("UNet", self.dtype)
        for width, heads, used in zip(self.channels, self.heads, attends, strict=True):
            if width % self.groups or (used and width % heads):
                raise ValueError(
                    f"UNet: channels has {width}, which does not divide by groups {self.groups} or by {heads} heads"
                )
        if any(side % self.unit for side in sides):
            raise ValueError(
                f"UNet: a picture of {'x'.join(map(str, sides))} does not cut into patches of {self.patch}"
                + (f" and halve {levels - 1} times" if self.unit > self.patch else "")
                + f": both sides must be multiples of {self.unit}"
            )


Config = UNetConfig


class UNet(nn.Module):
    """The network of a `UNetConfig`: (x[b h w c], t[b], cond) -> y[b h w o] in float32."""

    config: UNetConfig

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w c"],
        t: Float[Array, " b"],
        cond: Cond | None = None,
        keys: Key | None = None,
        residuals: Sequence[Array] = (),
    ) -> Float[Array, "b h w o"]:
        """The prediction.

        Args:
          x: the noisy picture.
          t: what the network calls time.
          cond: what steers it.
          keys: [b], for dropout; None: no dropout.
          residuals: added to what each part of the way down hands on, and the last to the middle's (a ControlNet's).
        """
        net = self.config
        net.check(*x.shape[1:3])
        cond = cond or Cond()
        if cond.hints:
            raise ValueError("UNet: cond.hints are for ControlNets: call controlnet.controlled(...)")
        emb = embedding(net, t, cond)
        x = x if cond.image is None else jnp.concatenate([x, cond.image.astype(x.dtype)], -1)
        p = net.patch
        x = einops.rearrange(x, "b (h p) (w q) c -> b h w (p q c)", p=p, q=p)
        x = Conv(net.channels[0], dtype=net.dtype, name="conv_in")(x)
        x, skips = encoder(net, x, emb, cond, keys, cond.features)
        if residuals:
            *skips, x = (y + more.astype(y.dtype) for y, more in zip([*skips, x], residuals, strict=True))
        for j, i in enumerate(reversed(range(len(net.channels)))):
            taken, skips = skips[-net.layers - 1 :], skips[: -net.layers - 1]
            size = skips[-1].shape[1:3] if skips else None
            x, _ = Level(net, i, "up", net.layers + 1, name=f"up_{j}")(x, emb, cond, taken, keys, size=size)

        x = GroupNorm(net.groups, net.eps, silu=True, dtype=net.dtype, name="norm_out")(x)
        x = Conv(net.out_channels * p * p, zero=True, dtype=net.dtype, name="conv_out")(x)
        x = einops.rearrange(x, "b h w (p q c) -> b (h p) (w q) c", p=p, q=p)
        return x.astype(jnp.float32)


def embedding(net: UNetConfig, t: Float[Array, " b"], cond: Cond) -> Float[Array, "b e"]:
    """Time, and everything else that is one vector a picture, added; its layers belong to the module that calls."""
    first = net.channels[0]
    mlp = functools.partial(Mlp, 4 * first, dtype=net.dtype)
    wave = functools.partial(sinusoidal, dim=first, shift=net.time_shift, sin_first=net.sin_first)
    emb = mlp(name="time_mlp")(wave(t))
    for name, wanted in (("label", net.labels > 0), ("pooled", net.pooled), ("augment", net.augment)):
        if wanted != (getattr(cond, name) is not None):
            raise ValueError(
                f"UNet: cond.{name} is {'missing' if wanted else 'given'}, but the network was built "
                f"{'with' if wanted else 'without'} it"
            )
    if cond.label is not None:
        emb += nn.Embed(net.labels + 1, 4 * first, dtype=net.dtype, name="label_embed")(cond.label)
    if cond.pooled is not None:
        emb += mlp(name="pooled_mlp")(cond.pooled)
    if cond.augment is not None:
        emb += mlp(name="augment_mlp")(wave(cond.augment))
    return emb


def encoder(
    net: UNetConfig,
    x: Float[Array, "b h w c"],
    emb: Float[Array, "b e"],
    cond: Cond,
    keys: Key | None,
    features: Sequence[Array] = (),
) -> tuple[Float[Array, "b i j o"], list[Array]]:
    """The way down and the middle: what comes out, and what is handed to the way up; belongs to the caller."""
    levels = len(net.channels)
    if features and len(features) not in (levels, levels + 1):
        raise ValueError(f"UNet: {len(features)} features for {levels} levels and the middle")
    skips = [x]
    for i in range(levels):
        feature = features[i] if features else None
        x, more = Level(net, i, "down", net.layers, name=f"down_{i}")(x, emb, cond, [], keys, feature)
        skips += more
    x, _ = Level(net, levels - 1, "mid", 1, name="mid")(x, emb, cond, [], keys)
    return (x + features[-1].astype(x.dtype) if len(features) > levels else x), skips


class Level(nn.Module):
    """One resolution on the way down or up, or the middle: residual blocks, attention, change of resolution."""

    net: UNetConfig
    index: int
    way: str
    blocks: int

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w c"],
        emb: Float[Array, "b e"],
        cond: Cond,
        skips: list[Array],
        keys: Key | None,
        feature: Array | None = None,
        size: tuple[int, ...] | None = None,
    ) -> tuple[Float[Array, "b i j o"], list[Array]]:
        net, width, out = self.net, self.net.channels[self.index], list[Array]()
        wrap = nn.remat if net.remat else lambda block: block
        Block, Attend = wrap(ResnetBlock), wrap(SpatialTransformer)

        def resnet(name: str, x: Array, resample: str | None = None) -> Array:
            block = Block(
                width, net.groups, net.eps, net.scale_shift, net.dropout, net.rescale, resample, net.dtype, name=name
            )
            return block(x, emb, keys)

        def attend(name: str, x: Array, kind: str) -> Array:
            heads, width = net.heads[self.index], x.shape[-1]
            if width % heads:
                raise ValueError(f"UNet: {width} channels of level {self.index} do not divide into {heads} heads")
            if kind == "self":
                return AttentionBlock(heads, net.groups, net.eps, net.rescale, net.dtype, name=name)(x)
            if kind == "cross":
                depth = net.depth[self.index]
                to_context = self.way != "mid" and self.index in net.self_attends_context
                block = Attend(heads, width // heads, depth, net.groups, to_context, net.dtype, name=name)
                return block(x, cond.context, cond.context_mask, cond.picture, cond.picture_weight)
            return x

        if self.way == "mid":
            x = resnet("resnet_0", x)
            x = attend("attn_0", x, net.mid_attention)
            return resnet("resnet_1", x), out

        crossed = net.attention[self.index] == "cross"
        for j in range(self.blocks):
            if self.way == "up":
                x = jnp.concatenate([x, skips.pop()], -1)
            x = resnet(f"resnet_{j}", x)
            x = attend(f"attn_{j}", x, net.attention[self.index])
            if feature is not None and crossed and j == self.blocks - 1:
                x = x + feature.astype(x.dtype)
            out.append(x)
        if self.way == "down" and self.index < len(net.channels) - 1:
            down = Downsample(width, net.pad_after, net.dtype, name="downsample") if not net.adm_resample else None
            x = down(x) if down else resnet("downsample", x, "down")
            out.append(x)
        if feature is not None and not crossed:  # levels without cross-attention take it last, after their resampling
            x = out[-1] = x + feature.astype(x.dtype)
        if self.way == "up" and self.index:
            x = (
                resnet("upsample", x, "up")
                if net.adm_resample
                else Upsample(width, dtype=net.dtype, name="upsample")(x, size)
            )
        return x, out


def with_sizes(
    pooled: Float[Array, "b d"], sizes: Float[Array, "b n"], dim: int = 256, *, sin_first: bool = False
) -> Float[Array, "b e"]:
    """SDXL's `cond.pooled`: the pooled text, then `dim` waves of each of the numbers that say how the picture was cut.

    `sizes`: original height, width, top and left of the crop, target height, width; the refiner has the aesthetic score
    instead of the last two.

    Source: Podell et al. 2023, arXiv 2307.01952, section 2.2.
    """
    waves = sinusoidal(sizes.reshape(-1), dim, shift=0.0, sin_first=sin_first)
    return jnp.concatenate([pooled.astype(jnp.float32), waves.reshape(len(sizes), -1)], -1)


def cifar10(dropout: float = 0.1, dtype: str = "float32") -> UNetConfig:
    """The 35.7M-parameter U-Net of DDPM on CIFAR-10 (Ho et al. 2020, appendix B)."""
    return UNetConfig(pad_after=True, eps=1e-6, dropout=dropout, dtype=dtype)
