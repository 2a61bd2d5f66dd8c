"""The U-Net of diffusion models, in pixels or latents: DDPM, ADM, Imagen's, unCLIP's, Stable Diffusion up to SDXL.

    y = unet(x_t, t, cond)

A stack of levels halves the resolution, a middle joins them, and a stack of levels doubles it again; each residual
block of the way down hands its output to one of the way up. Every residual block gets the time (and label, pooled text
and augmentation level) as one vector; attention lies after residual blocks at chosen levels. One module serves all
published shapes because they differ in numbers only; presets are the functions at the end.

Sources: Ho et al. 2020, arXiv 2006.11239, appendix B (DDPM); Dhariwal and Nichol 2021, arXiv 2105.05233, section 3
(ADM); Rombach et al. 2022, arXiv 2112.10752, appendix E (cross-attention); Nichol et al. 2021, arXiv 2112.10741,
section 4 (joint attention); Saharia et al. 2022, arXiv 2205.11487, appendix B (efficient U-Net); Podell et al. 2023,
arXiv 2307.01952 (SDXL).
"""

import dataclasses
import functools
from collections.abc import Sequence

import einops
import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdiff.models import unet_check
from jaxdiff.models.config import NetConfig
from jaxdiff.nn.condition import EmbedTokens, HintChannels, Projected, TextEmbedding
from jaxdiff.nn.conv import Conv
from jaxdiff.nn.embedding import Mlp, sinusoidal
from jaxdiff.nn.norm import ACTIVATIONS, normed
from jaxdiff.nn.remat import Remat, recomputed
from jaxdiff.nn.resnet import Downsample, ResnetBlock, Upsample
from jaxdiff.nn.transformer import AttentionBlock, JointAttentionBlock, SpatialTransformer
from jaxdiff.typing import Cond, Key


@dataclasses.dataclass(frozen=True, kw_only=True)
class UNetConfig(NetConfig):
    """The numbers of a U-Net; a tuple holds one entry for each level, from the highest resolution down.

    Attributes:
      out_channels: channels of the output.
      channels: width of each level.
      layers: residual blocks per level on the way down; the way up has one more.
      level_layers: residual blocks of each level, where they differ; empty: `layers` at each.
      attention: attention of each level: `none`; `self`, over the positions; `cross`, transformer blocks that see the
        context; `joint`, one softmax over positions and context; `context`, over the context alone.
      mid_attention: attention of the middle block, one of the same names.
      heads: attention heads of each level.
      depth: transformer blocks in each `cross` of a level.
      labels: number of classes; label `labels` itself means no class (for guidance). 0: the network has no classes.
      pooled: add a projection of `cond.pooled` to the time embedding.
      augment: add an embedding of `cond.augment` to the time embedding.
      addition: what else is added to the time embedding: `text`, the context pooled by attention; `image`,
        `cond.embed`; `text_image`, `cond.pooled` and `cond.embed`; `plain`, `cond.pooled` as it is.
      pool_heads: heads of the attention that pools the context, for `addition` text.
      tokens: what the context is made of: `text`, a projection of `cond.context`; `image`, 32 tokens of `cond.embed`;
        `text_image`, 10 of these before the projected text; empty: `cond.context` itself.
      context_width: width of the context that `tokens` makes.
      hint: reduce `cond.image`, a picture of 8 times the side, to four channels first.
      context_norm: normalise the context of `joint` and `context` first.
      patch: side of the squares that the picture is cut into first (space to depth).
      groups: groups of each group normalisation.
      eps: epsilon of each normalisation.
      rescale: number that residual sums are divided by.
      mid_rescale: number that residual sums of the middle block are divided by; 0: `rescale`.
      act: activation, `silu` or `gelu`.
      time_act: activation that is applied to the time embedding once, before the residual blocks; empty: none.
      bare_time: residual blocks apply no activation of their own to the time embedding.
      embed_width: width of the time embedding; 0: four times `channels[0]`.
      time_shift: shift of the frequencies of the time embedding; see `sinusoidal`.
      guidance_width: width of the waves of `cond.guidance`, a projection of which is added to those of time (students
        of latent consistency); 0: it takes none.
      sin_first: put the sines of the time embedding before its cosines; see `sinusoidal`.
      scale_shift: let the time embedding scale and shift after the normalisation (ADM).
      adm_resample: change the resolution in residual blocks (ADM).
      shifted: change the resolution before the blocks of a level on the way down and after those on the way up
        (Imagen's efficient U-Net).
      skip_scale: number that the skip connections are multiplied by.
      pad_after: pad strided convolutions below and to the right only (DDPM's code).
      self_attends_context: levels at which the first attention of a `cross` block sees the context too.
      dropout: dropout rate of residual blocks, where the network is called with keys [b].
      remat: what the backward pass computes again; see `nn.remat`.
      dtype: of the computation; parameters are float32 unless loaded otherwise. The output is float32.
    """

    out_channels: int = 3
    channels: tuple[int, ...] = (128, 256, 256, 256)
    layers: int = 2
    level_layers: tuple[int, ...] = ()
    attention: tuple[str, ...] = ("none", "self", "none", "none")
    mid_attention: str = "self"
    heads: tuple[int, ...] = (1, 1, 1, 1)
    depth: tuple[int, ...] = (1, 1, 1, 1)
    labels: int = 0
    pooled: bool = False
    augment: bool = False
    addition: str = ""
    pool_heads: int = 64
    tokens: str = ""
    context_width: int = 0
    hint: bool = False
    context_norm: bool = False
    patch: int = 1
    groups: int = 32
    eps: float = 1e-5
    rescale: float = 1.0
    mid_rescale: float = 0.0
    act: str = "silu"
    time_act: str = ""
    bare_time: bool = False
    embed_width: int = 0
    time_shift: float = 1.0
    sin_first: bool = True
    guidance_width: int = 0
    scale_shift: bool = False
    adm_resample: bool = False
    shifted: bool = False
    skip_scale: float = 1.0
    pad_after: bool = False
    self_attends_context: tuple[int, ...] = ()
    dropout: float = 0.0
    remat: Remat = "none"

    @property
    def unit(self) -> int:
        """Sides of pictures are multiples of it.

        Strided convolutions padded on all sides round an odd side up, and the way up gives it back; what else halves
        would lose its last row.
        """
        exact = self.adm_resample or self.pad_after or self.shifted
        return self.patch * 2 ** (len(self.channels) - 1 + self.shifted) if exact else self.patch

    @property
    def reads_context(self) -> bool:
        """Returns whether the network attends to tokens that it is given."""
        return bool({"cross", "joint", "context"} & {*self.attention, self.mid_attention}) and self.tokens != "image"

    @property
    def blocks(self) -> tuple[int, ...]:
        """Returns residual blocks of each level on the way down."""
        return self.level_layers or (self.layers,) * len(self.channels)

    def build(self) -> "UNet":
        """Makes the network."""
        return UNet(self)

    def check(self, *sides: int) -> None:
        """Refuses numbers that do not fit each other, or pictures with these sides.

        Raises:
          ValueError: names the fields, what they are, and what is expected.
        """
        unet_check.check(self, sides)


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
        """Returns the prediction.

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
        cond = with_tokens(net, cond)
        image = cond.image
        if net.hint:
            image = HintChannels(dtype=net.dtype, name="hint")(_needed(cond, "image"))
        x = x if image is None else jnp.concatenate([x, image.astype(x.dtype)], -1)
        p = net.patch
        x = einops.rearrange(x, "b (h p) (w q) c -> b h w (p q c)", p=p, q=p)
        x = Conv(net.channels[0], dtype=net.dtype, name="conv_in")(x)
        x, skips = encoder(net, x, emb, cond, keys, cond.features)
        if residuals:
            *skips, x = (y + more.astype(y.dtype) for y, more in zip([*skips, x], residuals, strict=True))
        skips = [net.skip_scale * y for y in skips] if net.skip_scale != 1 else skips
        for j, i in enumerate(reversed(range(len(net.channels)))):
            blocks = net.blocks[i] + 1
            taken, skips = skips[-blocks:], skips[:-blocks]
            size = skips[-1].shape[1:3] if skips else None
            x, _ = Level(net, i, "up", blocks, name=f"up_{j}")(x, emb, cond, taken, keys, size=size)

        x = normed(x, net.groups, net.eps, net.act, net.dtype, "norm_out")
        x = Conv(net.out_channels * p * p, zero=True, dtype=net.dtype, name="conv_out")(x)
        x = einops.rearrange(x, "b h w (p q c) -> b (h p) (w q) c", p=p, q=p)
        return x.astype(jnp.float32)


def embedding(net: UNetConfig, t: Float[Array, " b"], cond: Cond) -> Float[Array, "b e"]:
    """Returns time, and everything else that is one vector a picture, added.

    Its layers belong to the module that calls.
    """
    first, width = net.channels[0], net.embed_width or 4 * net.channels[0]
    mlp = functools.partial(Mlp, width, dtype=net.dtype)
    dense = functools.partial(nn.Dense, width, dtype=net.dtype)
    wave = functools.partial(sinusoidal, dim=first, shift=net.time_shift, sin_first=net.sin_first)
    added = net.addition
    takes = {
        "label": net.labels > 0,
        "pooled": net.pooled or added in ("plain", "text_image"),
        "augment": net.augment,
        "guidance": net.guidance_width > 0,
        "embed": added in ("image", "text_image") or net.tokens in ("image", "text_image"),
    }
    for name, wanted in takes.items():
        if wanted != (getattr(cond, name) is not None):
            raise ValueError(
                f"UNet: cond.{name} is {'missing' if wanted else 'given'}, but the network was built "
                f"{'with' if wanted else 'without'} it"
            )
    waves = wave(t)
    if cond.guidance is not None:
        # zeros, so that a student starts as its teacher; in thousandths above 1, as published ones take it
        project = nn.Dense(first, use_bias=False, kernel_init=nn.initializers.zeros, name="guidance_proj")
        waves += project(sinusoidal(1000 * (cond.guidance - 1), net.guidance_width))
    emb = mlp(act=net.act, name="time_mlp")(waves)
    if cond.label is not None:
        emb += nn.Embed(net.labels + 1, width, dtype=net.dtype, name="label_embed")(cond.label)
    if net.pooled:
        emb += mlp(name="pooled_mlp")(_needed(cond, "pooled"))
    if cond.augment is not None:
        emb += mlp(act=net.act, name="augment_mlp")(wave(cond.augment))
    if added == "text":
        text = TextEmbedding(width, net.pool_heads, net.dtype, name="text_embed")
        emb += text(_needed(cond, "context"), cond.context_mask)
    elif added == "image":
        emb += Projected(width, net.dtype, name="image_embed")(_needed(cond, "embed"))
    elif added == "text_image":
        text_vector = Projected(width, net.dtype, name="text_embed")(_needed(cond, "pooled"))
        emb += text_vector + dense(name="image_embed")(_needed(cond, "embed"))
    elif added == "plain":
        emb += _needed(cond, "pooled").astype(emb.dtype)
    return ACTIVATIONS[net.time_act](emb) if net.time_act else emb


def with_tokens(net: UNetConfig, cond: Cond) -> Cond:
    """Returns the condition with the context that the levels attend to; its layers belong to the module that calls."""
    if not net.tokens:
        return cond
    parts, mask = list[Array](), cond.context_mask
    if net.tokens != "text":
        count = 32 if net.tokens == "image" else 10
        embed = EmbedTokens(count, net.context_width, net.tokens == "image", net.dtype, name="context_image")
        parts.append(embed(_needed(cond, "embed")))
        mask = None if mask is None else jnp.pad(mask, ((0, 0), (count, 0)), constant_values=True)
    if net.tokens != "image":
        parts.append(nn.Dense(net.context_width, dtype=net.dtype, name="context_proj")(_needed(cond, "context")))
    return dataclasses.replace(cond, context=jnp.concatenate(parts, 1), context_mask=mask)


def _needed(cond: Cond, name: str) -> Array:
    """Returns a field of the condition that the network reads."""
    value: Array | None = getattr(cond, name)
    if value is None:
        raise ValueError(f"UNet: cond.{name} is missing, but the network was built with it")
    return value


def encoder(
    net: UNetConfig,
    x: Float[Array, "b h w c"],
    emb: Float[Array, "b e"],
    cond: Cond,
    keys: Key | None,
    features: Sequence[Array] = (),
) -> tuple[Float[Array, "b i j o"], list[Array]]:
    """Returns the way down and the middle: what comes out, and what is handed to the way up; belongs to the caller."""
    levels = len(net.channels)
    if features and len(features) not in (levels, levels + 1):
        raise ValueError(f"UNet: {len(features)} features for {levels} levels and the middle")
    skips = [] if net.shifted else [x]
    for i in range(levels):
        feature = features[i] if features else None
        x, more = Level(net, i, "down", net.blocks[i], name=f"down_{i}")(x, emb, cond, [], keys, feature)
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
        Block, Attend = recomputed(ResnetBlock, net.remat), recomputed(SpatialTransformer, net.remat)
        Look, Join = recomputed(AttentionBlock, net.remat), recomputed(JointAttentionBlock, net.remat)

        rescale = (self.way == "mid" and net.mid_rescale) or net.rescale
        fixed = (width, net.groups, net.eps, net.scale_shift, net.dropout, rescale)
        resnet_of = functools.partial(Block, *fixed, act=net.act, bare_time=net.bare_time, dtype=net.dtype)

        def resnet(name: str, x: Array, resample: str | None = None) -> Array:
            return resnet_of(resample=resample, name=name)(x, emb, keys)

        def attend(name: str, x: Array, kind: str) -> Array:
            heads, width = net.heads[self.index], x.shape[-1]
            if width % heads:
                raise ValueError(f"UNet: {width} channels of level {self.index} do not divide into {heads} heads")
            if kind == "self":
                return Look(heads, net.groups, net.eps, net.rescale, net.dtype, name=name)(x)
            if kind in ("joint", "context"):
                fixed = (heads, net.groups, kind == "context", net.context_norm, net.dtype)
                return Join(*fixed, name=name)(x, _needed(cond, "context"), cond.context_mask)
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

        def down(x: Array) -> Array:
            if net.adm_resample:
                return resnet("downsample", x, "down")
            return Downsample(width, net.pad_after, net.dtype, name="downsample")(x)

        crossed = net.attention[self.index] in ("cross", "joint", "context")
        if self.way == "down" and net.shifted:
            x = down(x)
            out.append(x)
        for j in range(self.blocks):
            if self.way == "up":
                x = jnp.concatenate([x, skips.pop()], -1)
            x = resnet(f"resnet_{j}", x)
            x = attend(f"attn_{j}", x, net.attention[self.index])
            if feature is not None and crossed and j == self.blocks - 1:
                x = x + feature.astype(x.dtype)
            out.append(x)
        if self.way == "down" and self.index < len(net.channels) - 1 and not net.shifted:
            x = down(x)
            out.append(x)
        if feature is not None and not crossed:  # levels without cross-attention take it last, after their resampling
            x = out[-1] = x + feature.astype(x.dtype)
        if self.way == "up" and (self.index or net.shifted):
            x = (
                resnet("upsample", x, "up")
                if net.adm_resample
                else Upsample(width, dtype=net.dtype, name="upsample")(x, size)
            )
        return x, out


def with_sizes(
    pooled: Float[Array, "b d"], sizes: Float[Array, "b n"], dim: int = 256, *, sin_first: bool = False
) -> Float[Array, "b e"]:
    """Returns SDXL's `cond.pooled`: the pooled text, then `dim` waves of each number that says how the picture was cut.

    `sizes`: original height, width, top and left of the crop, target height, width; the refiner has the aesthetic score
    instead of the last two.

    Source: Podell et al. 2023, arXiv 2307.01952, section 2.2.
    """
    waves = sinusoidal(sizes.reshape(-1), dim, shift=0.0, sin_first=sin_first)
    return jnp.concatenate([pooled.astype(jnp.float32), waves.reshape(len(sizes), -1)], -1)


def cifar10(dropout: float = 0.1, dtype: str = "float32") -> UNetConfig:
    """Returns the 35.7M-parameter U-Net of DDPM on CIFAR-10 (Ho et al. 2020, appendix B)."""
    return UNetConfig(pad_after=True, eps=1e-6, dropout=dropout, dtype=dtype)
