"""Edits that take more than one call of a pipeline: enlarging, inversion, and walks between two noises."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from jaxdiff.pipelines import canvas, inputs
from jaxdiff.pipelines.diffusion import DiffusionPipeline
from jaxdiff.pipelines.options import Options
from jaxdiff.typing import Key


def of_inversion(options: Options) -> Options:
    """Returns the options of an inversion's way down: DDIM on a trailing grid, where they leave that open."""
    return dataclasses.replace(options, sampler=options.sampler or "ddim", grid=options.grid or "trailing")


def hires(
    pipe: DiffusionPipeline,
    prompts: str | Sequence[str],
    *,
    key: Key,
    scale: float = 2.0,
    upscale_strength: float = 0.6,
    options: Any = None,
    **fields: Any,
) -> tuple[UInt8[np.ndarray, "b h w 3"], Float[np.ndarray, "b i j c"]]:
    """Makes larger pictures than a model can compose: in its own size, enlarged as latents, and refined.

    Args:
      pipe: the model.
      prompts: what to show.
      key: one key, or keys [b]; each pass draws from its own part of them.
      scale: how much larger a side becomes.
      upscale_strength: how much is changed in the second pass; below about 0.5 the enlarged latents stay blurred.
      options: options of the first pass; of the second too, but for what they say of the first picture.
      fields: options by name.

    Returns:
      The pictures and their latents.

    Raises:
      ValueError: if the enlarged pictures have no size, or the model does not start from latents.
    """
    options_of_first, unit, factor = pipe.options(options, **fields), pipe.model.unit, pipe.model.factor
    if pipe.model.extra:
        raise ValueError("this model starts from a picture of its own kind: it enlarges none that it has made")
    if not 0 < scale <= canvas.LARGEST:
        raise ValueError(f"pictures cannot be made {scale} times larger: expected a number above 0")
    again = _other(inputs.check_key(key))
    h, w = pipe.size_of(options_of_first)
    height, width = (side // factor for side in canvas.fit(round(h * scale), round(w * scale), unit))
    _, small = pipe(prompts, key=key, options=options_of_first, latents=True)
    large = jax.image.resize(small, (len(small), height, width, small.shape[-1]), "bilinear")
    second = dataclasses.replace(
        options_of_first,
        image=np.asarray(large),
        strength=upscale_strength,
        mask=None,
        init_noise=None,
        height=None,
        width=None,
    )
    return pipe(prompts, key=again, options=second, latents=True)


def invert_and_edit(
    pipe: DiffusionPipeline,
    image: UInt8[np.ndarray, "n y x 3"],
    prompts: str | Sequence[str],
    *,
    source: str = "",
    key: Key,
    options: Any = None,
    **fields: Any,
) -> tuple[UInt8[np.ndarray, "b h w 3"], Float[np.ndarray, "b i j c"]]:
    """Makes another picture of the same composition: the noise of a picture, by DDIM backwards, under a new prompt.

    With guidance None and the prompt `source` it gives the picture back, the better the more steps; 50 serve.

    Args:
      pipe: the model.
      image: what to change.
      prompts: what to show instead.
      source: what `image` shows.
      key: key of the sampler's noise, which has none unless `eta` is given.
      options: options of the way down; the way up has its steps and grid, and follows `source` without guidance. See
        `of_inversion`.
      fields: options by name.

    Raises:
      ValueError: for options that an inversion does not take.

    Source: Song et al. 2021, arXiv 2010.02502, section 4.3.
    """
    asked = {**({} if options is None else vars(options)), **fields}
    wrong = [name for name in ("init_noise", "image", "mask", "strength") if asked.get(name) is not None]
    if wrong or pipe.model.extra:
        what = ", ".join(wrong) or "models that start from a picture of their own kind"
        raise ValueError(f"an inversion finds the noise of a whole picture: it does not go with {what}")
    call = of_inversion(pipe.options(options, **fields))
    again = _other(inputs.check_key(key))
    names = ("steps", "grid", "height", "width", "chunks", "lora_weights", "hints", "hint_weights", "picture")
    up = {name: getattr(call, name) for name in (*names, "picture_weight")}
    _, noise = pipe(source, image=image, key=key, sampler="ddim_inverse", guidance=None, latents=True, **up)
    down = dataclasses.replace(call, init_noise=noise, height=None, width=None)
    return pipe(prompts, key=again, options=down, latents=True)


def _other(key: Key) -> Key:
    """Returns keys for the second call, independent of `key`, same shape."""
    fold = lambda key: jax.random.fold_in(key, 1)
    return jax.vmap(fold)(key) if key.ndim else fold(key)


def slerp(a: Float[Array, "*s"], b: Float[Array, "*s"], t: float) -> Float[Array, "*s"]:
    """Returns the point at `t` in [0, 1] of the great circle from a to b; between noises, all are as noisy as they.

    sin((1 - t) w) / sin(w) a + sin(t w) / sin(w) b, with w the angle between them; the straight line where that is 0.
    """
    cosine = (a * b).sum() / (jnp.linalg.norm(a) * jnp.linalg.norm(b))
    angle = jnp.arccos(jnp.clip(cosine, -1, 1))
    sine = jnp.where(angle < 1e-4, 1.0, jnp.sin(angle))
    near, far = (
        jnp.where(angle < 1e-4, part, jnp.sin(part * angle) / sine) for part in (jnp.float32(1 - t), jnp.float32(t))
    )
    return near * a + far * b


def between(a: Float[Array, "h w c"], b: Float[Array, "h w c"], frames: int) -> Float[np.ndarray, "n h w c"]:
    """Returns `frames` noises from a to b, both included: `init_noise` of a walk from picture to picture.

    Raises:
      ValueError: if there are fewer than two.
    """
    if frames < 2:
        raise ValueError(f"a walk of {frames} pictures: expected 2 or more, its ends included")
    return np.stack([np.asarray(slerp(a, b, t)) for t in np.linspace(0, 1, frames)])
