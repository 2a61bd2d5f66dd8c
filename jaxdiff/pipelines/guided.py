"""The denoiser of a pipeline: its network, given its conditions, guided, and bound to the known part of a picture."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdiff import sampling
from jaxdiff.diffusion import denoiser, prediction
from jaxdiff.models.controlnet import controlled
from jaxdiff.models.unet import UNet
from jaxdiff.pipelines.model import Model
from jaxdiff.pretrained.quantize import dequantize
from jaxdiff.sampling.kernel import Kernel
from jaxdiff.typing import Cond, Denoise, Estimate, Key, LearnedDenoise, Network, Params


def guided(
    model: Model, params: Params, conds: tuple[Cond, ...], weights: Mapping[str, Any], timesteps: Any = None
) -> Denoise | LearnedDenoise:
    """Returns the U-Net, with its ControlNets, as the denoiser that these conditions steer.

    One steers it without guidance.

    Args:
      model: which networks.
      params: by component.
      conds: see `conditions`.
      weights: weights of the ControlNets; see `Plan`.
      timesteps: see `Plan`; None: the timesteps of the schedule.
    """
    unet, controls = model.nets["unet"], model.named("controlnet")
    schedule, kind, says = model.process.schedule, model.process.kind, model.process.says
    if controls:
        network = controlled(unet, [model.nets[name] for name in controls])
        params = {
            "unet": params["unet"],
            "controls": [params[name] for name in controls],
            "scales": weights["control"],
        }
    else:
        network, params = _plain(unet), params["unet"]
    network = _from_8_bits(network if timesteps is None else _at_timesteps(network, timesteps), unet.dtype)
    if len(conds) == 3:
        return instruct_guidance(network, params, conds, schedule, kind)
    cond, null = (*conds, None)[:2]
    assert cond is not None
    if unet.guidance_width:
        return embedded_guidance(network, params, cond, schedule, kind, says)
    return denoiser.make(network, params, cond, null, schedule, kind, says)


def embedded_guidance(
    network: Network, params: Params, cond: Cond, schedule: Any, kind: str, says: denoiser.Says
) -> Denoise | LearnedDenoise:
    """Returns the denoiser of a network that is conditioned on the guidance scale, in one call.

    Source: Meng et al. 2023, arXiv 2210.03142, section 3.1.
    """

    def denoise(x: Array, t: Array, aux: Any) -> Any:
        scale = jnp.broadcast_to(jnp.asarray(aux.get("guidance", 1.0), jnp.float32), x.shape[:1])
        own = dataclasses.replace(cond, guidance=scale)
        return denoiser.make(network, params, own, None, schedule, kind, says)(x, t, aux)

    return denoise


def _plain(unet: Any) -> Network:
    def network(params: Params, x: Array, t: Array, cond: Cond) -> Any:
        return UNet(unet).apply({"params": params}, x, t, cond)

    return network


def _at_timesteps(network: Network, timesteps: Float[Array, "2 n"]) -> Network:
    """Returns the network, called with other timesteps than the schedule's (`Plan.timesteps`)."""
    return lambda params, x, t, cond: network(params, x, jnp.interp(t, *timesteps), cond)


def _from_8_bits(network: Network, dtype: str) -> Network:
    def call(params: Params, x: Array, t: Array, cond: Cond) -> Any:
        params, x = dequantize(params, dtype, x)
        return network(params, x, t, cond)

    return call


def instruct_guidance(network: Network, params: Params, conds: tuple[Cond, ...], schedule: Any, kind: str) -> Denoise:
    """Guides twice, all three conditions in one batch.

    y = y_0 + g (y_text - y_picture) + g_p (y_picture - y_0).

    Args:
      network: its output y is combined.
      params: the network's.
      conds: with instruction and picture, with the picture alone, with neither.
      schedule: the process.
      kind: what the network outputs.

    Source: Brooks et al. 2023, arXiv 2211.09800, equation 3.
    """
    prediction.check(kind, schedule)
    all_three = jax.tree.map(lambda *x: jnp.concatenate(x), *conds)

    def denoise(x_t: Array, t: Array, aux: Any) -> Array:
        x3, t3 = (jnp.concatenate([x] * 3) for x in (x_t, jnp.broadcast_to(t, x_t.shape[:1])))
        y = prediction.evaluate(network, params, x3, t3, all_three, schedule, kind)
        y_text, y_picture, y_0 = jnp.split(y, 3)
        over = functools.partial(prediction.over_pixels, x=x_t)
        text, picture = (over(jnp.asarray(aux[name], jnp.float32)) for name in ("guidance", "picture_guidance"))
        y = y_0 + text * (y_text - y_picture) + picture * (y_picture - y_0)
        return prediction.to_x0(y, x_t, over(schedule.alpha(t)), over(schedule.sigma(t)), kind)

    return denoise


def blend_known(kernel: Kernel, known: Array, noise: Array, mask: Float[Array, "b h w 1"]) -> Kernel:
    """Returns the kernel that, after each step, puts the known picture with noise where `mask` is 0."""

    def step(y: Array, row: sampling.Table, keys: Key | None) -> tuple[Array, Array]:
        y, D = kernel.step(y, row, keys)
        moment = row.aux["next_alpha"] * known + row.aux["next_sigma"] * noise
        return y.at[0].set(mask * y[0] + (1 - mask) * moment), D

    return Kernel(kernel.init, step, kernel.read)


def agreeing(
    denoise: Denoise | LearnedDenoise, known: Float[Array, "b h w c"], mask: Float[Array, "b h w 1"]
) -> Denoise | LearnedDenoise:
    """Returns the denoiser whose estimates are the known picture where `mask` is 0 (GLIDE)."""

    def agreed(x_t: Array, t: Array, aux: Any) -> Any:
        out = denoise(x_t, t, aux)
        if isinstance(out, Estimate):
            return out._replace(x0=mask * out.x0 + (1 - mask) * known)
        return mask * out + (1 - mask) * known

    return agreed
