"""What takes more than one call of a pipeline: enlarging, editing by inversion, and walks between two noises."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from jaxdiff.pipelines import canvas
from jaxdiff.pipelines.latent import LatentPipeline
from jaxdiff.typing import Key


def hires(
    pipe: LatentPipeline,
    prompts: str | Sequence[str],
    *,
    key: Key,
    scale: float = 2.0,
    strength: float = 0.6,
    **options: Any,
) -> tuple[UInt8[np.ndarray, "b h w 3"], Float[np.ndarray, "b i j c"]]:
    """Larger pictures than a model can compose: made in its own size, enlarged as latents, and refined.

    Args:
      pipe: the model.
      prompts: what to show.
      key: one key, or keys [b]; each pass draws from its own part of them.
      scale: how much larger a side becomes.
      strength: how much is changed in the second pass; below about 0.5 the enlarged latents stay blurred.
      options: of both passes.

    Returns:
      The pictures and their latents.
    """
    again = _other(key)
    _, small = pipe(prompts, key=key, latents=True, **options)
    factor, (_, i, j, _) = pipe.model.factor, small.shape
    wanted = canvas.fit(round(i * scale * factor), round(j * scale * factor), pipe.model.unit)
    height, width = (side // factor for side in wanted)
    large = jax.image.resize(small, (len(small), height, width, small.shape[-1]), "bilinear")
    rest = {name: value for name, value in options.items() if name not in ("init_noise", "height", "width", "image")}
    return pipe(prompts, key=again, image=np.asarray(large), strength=strength, latents=True, **rest)


def invert_and_edit(
    pipe: LatentPipeline,
    image: UInt8[np.ndarray, "n y x 3"],
    prompts: str | Sequence[str],
    *,
    source: str = "",
    key: Key,
    steps: int = 50,
    grid: str = "trailing",
    guidance: float | None = 7.5,
    **options: Any,
) -> tuple[UInt8[np.ndarray, "b h w 3"], Float[np.ndarray, "b i j c"]]:
    """Another picture of the same composition: the noise that makes a picture, by DDIM backwards, under a new prompt.

    With guidance None and the prompt `source` it gives the picture back, the better the more steps.

    Args:
      pipe: the model.
      image: what to change.
      prompts: what to show instead.
      source: what `image` shows.
      key: of the sampler's noise, which has none unless `eta` is given.
      steps: of both ways.
      grid: of both ways.
      guidance: of the way down; the way up follows `source` without guidance.
      options: of the way down.

    Source: Song et al. 2021, arXiv 2010.02502, section 4.3.
    """
    again = _other(key)
    up = {name: options[name] for name in ("height", "width", "chunks", "lora_weights") if name in options}
    _, noise = pipe(
        source, image=image, key=key, steps=steps, sampler="ddim_inverse", grid=grid, guidance=None, latents=True, **up
    )
    return pipe(
        prompts,
        init_noise=noise,
        key=again,
        steps=steps,
        sampler="ddim",
        grid=grid,
        guidance=guidance,
        latents=True,
        **options,
    )


def _other(key: Key) -> Key:
    """Of the second call: other than the first call's, one for each where they are several."""
    fold = lambda key: jax.random.fold_in(key, 1)
    return jax.vmap(fold)(key) if key.ndim else fold(key)


def slerp(a: Float[Array, "*s"], b: Float[Array, "*s"], t: float) -> Float[Array, "*s"]:
    """The point at `t` in [0, 1] of the great circle from a to b: between two noises, all points are as noisy as they.

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
    """`frames` noises from a to b, both included: `init_noise` of a walk from picture to picture.

    Raises:
      ValueError: if there are fewer than two.
    """
    if frames < 2:
        raise ValueError(f"a walk of {frames} pictures: expected 2 or more, its ends included")
    return np.stack([np.asarray(slerp(a, b, t)) for t in np.linspace(0, 1, frames)])
