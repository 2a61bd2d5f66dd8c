"""ControlNet: a second copy of a U-Net's way down that looks at a picture (edges, depth, pose) and adds to the first.

    residuals = controlnet(x_t, t, cond, hint),    y = unet(x_t, t, cond, residuals)

The hint is embedded by a few strided convolutions and added after the first convolution; each part of the way down,
and the middle, then hands its output through a 1x1 convolution that starts at zero. Several ControlNets add up.

Source: Zhang et al. 2023, arXiv 2302.05543, section 3.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from jaxdiff.models.unet import UNet, UNetConfig, embedding, encoder
from jaxdiff.nn.conv import Conv
from jaxdiff.nn.norm import silu
from jaxdiff.typing import Cond, Network, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class ControlNetConfig:
    """The numbers of a ControlNet.

    Attributes:
      net: the U-Net whose way down it has.
      hint_channels: widths of the hint's convolutions; each but the first halves the resolution.
      bgr: the hint's channels are taken in reverse.
    """

    net: UNetConfig
    hint_channels: tuple[int, ...] = (16, 32, 96, 256)
    bgr: bool = False


class ControlNet(nn.Module):
    """The network of a `ControlNetConfig`."""

    config: ControlNetConfig

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], t: Float[Array, " b"], cond: Cond, hint: Float[Array, "b i j d"]
    ) -> tuple[Array, ...]:
        """Returns what the U-Net's `residuals` takes.

        Args:
          x: the noisy latents.
          t: what the network calls time.
          cond: the U-Net's condition; its `image` is not looked at.
          hint: a picture in [0, 1], as many times larger than x as the hint's convolutions halve.

        Raises:
          ValueError: if the hint is of another size.
        """
        net = self.config.net
        net.check(*x.shape[1:3])
        factor = 2 ** (len(self.config.hint_channels) - 1)
        expected = (factor * x.shape[1], factor * x.shape[2])
        if hint.shape[1:3] != expected:
            raise ValueError(
                f"ControlNet: the hint is {hint.shape[1]}x{hint.shape[2]}, expected {expected[0]}x{expected[1]}"
            )
        emb = embedding(net, t, cond)
        x = Conv(net.channels[0], dtype=net.dtype, name="conv_in")(x)
        hint = hint[..., ::-1] if self.config.bgr else hint
        x = x + Hint(self.config.hint_channels, net.channels[0], net.dtype, name="hint")(hint)
        x, skips = encoder(net, x, emb, cond, None)
        names = [*(f"skip_{n}" for n in range(len(skips))), "skip_mid"]
        parts = zip(names, [*skips, x], strict=True)
        return tuple(Conv(y.shape[-1], 1, zero=True, dtype=net.dtype, name=name)(y) for name, y in parts)


class Hint(nn.Module):
    """Convolutions with SiLU between them; every second one halves the resolution."""

    channels: tuple[int, ...]
    features: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b i j d"]) -> Float[Array, "b h w c"]:
        x = silu(Conv(self.channels[0], dtype=self.dtype, name="conv_in")(x))
        for n, (width, after) in enumerate(zip(self.channels[:-1], self.channels[1:], strict=True)):
            x = silu(Conv(width, dtype=self.dtype, name=f"conv_{2 * n}")(x))
            x = silu(Conv(after, stride=2, dtype=self.dtype, name=f"conv_{2 * n + 1}")(x))
        return Conv(self.features, zero=True, dtype=self.dtype, name="conv_out")(x)


def controlled(unet: UNetConfig, controls: Sequence[ControlNetConfig]) -> Network:
    """Returns the U-Net with ControlNets: its hints are `cond.hints`, one for each.

    The parameters are {"unet": ..., "controls": [...], "scales": [n]}; a scale weighs what its ControlNet adds.
    """
    nets = [ControlNet(config) for config in controls]

    def network(params: Params, x: Array, t: Array, cond: Cond) -> Array:
        if len(cond.hints) != len(nets):
            raise ValueError(f"{len(nets)} ControlNets need as many hints, got {len(cond.hints)}")
        plain = dataclasses.replace(cond, hints=())
        seen = dataclasses.replace(plain, guidance=None)  # which ControlNets do not take
        total: list[Array] = []
        for net, weights, scale, hint in zip(nets, params["controls"], params["scales"], cond.hints, strict=True):
            more = [scale * y for y in net.apply({"params": weights}, x, t, seen, hint)]
            total = [a + b for a, b in zip(total, more, strict=True)] if total else more
        y: Any = UNet(unet).apply({"params": params["unet"]}, x, t, plain, residuals=total)
        return y

    return network
