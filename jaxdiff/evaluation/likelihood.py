"""Bits per dimension of real pictures under a diffusion model on pixels.

The bound is that of the chain of `steps` (`diffusion.bound`); the ODE gives the likelihood itself of dequantised
pictures: with u uniform in [-1/2, 1/2) added to each of the 256 levels, which lie 1 / 127.5 apart,

    bits/dim = -log2 p((pixel + u) / 127.5 - 1) / d + log2 127.5,

an upper bound for pictures that are integers. Source: Song et al. 2021, arXiv 2011.13456, section 4.3.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxdiff.diffusion import bound
from jaxdiff.evaluation.pictures import Pictures
from jaxdiff.parallel.spread import Spread
from jaxdiff.pipelines.diffusion import DiffusionPipeline
from jaxdiff.pipelines.pipeline import HasLikelihood
from jaxdiff.sampling import ode


def bits_per_dim(
    pipe: DiffusionPipeline,
    pictures: Pictures,
    prompts: Sequence[str],
    kind: Literal["bound", "ode"] = "bound",
    *,
    steps: int = 1000,
    seed: int = 0,
    batch_size: int = 16,
    report: Callable[[int], None] = lambda done: None,
) -> Float[np.ndarray, " n"]:
    """Measures the bits/dim of each picture, given its prompt.

    Args:
      pipe: a model on pixels.
      pictures: pictures of the model's size.
      prompts: one for each.
      kind: the bound, or the likelihood by the probability-flow ODE (which needs the extra `ode`).
      steps: steps of the bound's chain, as many network calls; 0: the limit of many steps, estimated by two calls.
      seed: seed of the noise; picture i's depends on the seed and i alone.
      batch_size: pictures at once on each device.
      report: called with how many pictures are done.

    Raises:
      ValueError: if the model works on latents, or the pictures have another size than the model's.
    """
    schedule, (height, width) = pipe.model.process.schedule, pipe.size
    if "vae" in pipe.model.nets:
        raise ValueError(f"{kind}: bits/dim are of pixels, and this model works on latents: leave this metric out")
    if pictures.shape != (height, width):
        raise ValueError(f"{pictures.name} is {pictures.shape[1]}x{pictures.shape[0]}, the model {width}x{height}")
    if pipe.model.process.says == "consistency":
        raise ValueError(
            f"{kind}: a few-step model says where a trajectory starts and no density: leave this metric out"
        )
    size, has_signal = height * width * 3, bool(schedule.alpha(np.float64(1)) > 0)

    def function(params: Any, batch: Any) -> Any:
        denoise: Any = pipe.denoiser(params, batch["inputs"])
        x, keys = batch["image"].astype(jnp.float32), batch["keys"]
        if kind == "bound":
            estimate = functools.partial(bound.discrete, steps=steps) if steps else bound.continuous
            return estimate(denoise, schedule, x / 127.5 - 1, keys).total
        fold = lambda n: jax.vmap(lambda key: jax.random.fold_in(key, n))(keys)
        u = jax.vmap(lambda key: jax.random.uniform(key, x.shape[1:]) - 0.5)(fold(0))
        nats = ode.log_likelihood(
            denoise,
            schedule,
            (x + u) / 127.5 - 1,
            fold(1),
            first=float(schedule.first),  # below it a network was never asked
            last=1.0 if has_signal else 1 - 1e-3,
            tolerance=1e-4,
        )
        return -nats / (size * np.log(2)) + np.log2(127.5)

    root = jax.random.key(seed)
    at_once = batch_size * jax.device_count()
    run = Spread(function, "pmap", multiple=at_once)
    done: list[np.ndarray] = []
    for batch in pictures.batches(at_once):
        first = sum(map(len, done))
        rows = np.arange(first, first + len(batch))
        out = run(
            pipe.params,
            {
                "image": batch,
                "inputs": pipe.inputs(prompts[first : first + len(batch)]),
                "keys": jax.vmap(lambda i: jax.random.fold_in(root, i))(rows),
            },
        )
        done.append(out)
        report(first + len(batch))
    return np.concatenate(done)


def own_bits(
    pipe: HasLikelihood,
    pictures: Pictures,
    prompts: Sequence[str],
    *,
    seed: int = 0,
    batch_size: int = 16,
    report: Callable[[int], None] = lambda done: None,
) -> Float[np.ndarray, " n"]:
    """Bits/dim of each picture, given its prompt, as the model itself says it; arguments as of `bits_per_dim`."""
    root, at_once = jax.random.key(seed), batch_size * jax.device_count()
    done: list[np.ndarray] = []
    for batch in pictures.batches(at_once):
        first = sum(map(len, done))
        rows = np.minimum(np.arange(at_once), len(batch) - 1)  # one shape: one program
        keys = jax.vmap(lambda i: jax.random.fold_in(root, i))(first + rows)
        out = pipe.bits_per_dim(batch[rows], [prompts[first + row] for row in rows], keys)
        done.append(out[: len(batch)])
        report(first + len(batch))
    return np.concatenate(done)
