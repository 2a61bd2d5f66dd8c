"""Bits per dimension of real pictures under a model of this library's own training.

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

from jaxdiff.diffusion import bound, prediction
from jaxdiff.evaluation.pictures import Pictures
from jaxdiff.parallel.spread import Spread
from jaxdiff.pipelines.text_to_image import Pipeline
from jaxdiff.sampling import ode
from jaxdiff.tasks.picture import condition, network


def bits_per_dim(
    pipe: Pipeline,
    pictures: Pictures,
    prompts: Sequence[str],
    kind: Literal["bound", "ode"] = "bound",
    *,
    steps: int = 1000,
    seed: int = 0,
    batch_size: int = 16,
    report: Callable[[int], None] = lambda done: None,
) -> Float[np.ndarray, " n"]:
    """Of each picture, given its prompt.

    Args:
      pipe: a model on pixels.
      pictures: of the model's size.
      prompts: one for each.
      kind: the bound, or the likelihood by the probability-flow ODE (which needs the extra `ode`).
      steps: of the bound's chain, as many network calls; 0: the limit of many steps, estimated by two calls.
      seed: of the noise; picture i's depends on the seed and i alone.
      batch_size: pictures at once on each device.
      report: is told how many pictures are done.

    Raises:
      ValueError: if the pictures have another size than the model's.
    """
    model, side = pipe.model, pipe.model.size
    if pictures.shape != (side, side):
        raise ValueError(f"{pictures.name} is {pictures.shape[1]}x{pictures.shape[0]}, the model {side}x{side}")
    size = side * side * 3

    def function(params: Any, batch: Any) -> Any:
        cond = condition(model, params, batch["inputs"])
        denoise = prediction.denoiser(network(model), params, cond, pipe.schedule, model.process.prediction)
        x, keys = batch["image"].astype(jnp.float32), batch["keys"]
        if kind == "bound":
            estimate = functools.partial(bound.discrete, steps=steps) if steps else bound.continuous
            return estimate(denoise, pipe.schedule, x / 127.5 - 1, keys).total
        fold = lambda n: jax.vmap(lambda key: jax.random.fold_in(key, n))(keys)
        u = jax.vmap(lambda key: jax.random.uniform(key, x.shape[1:]) - 0.5)(fold(0))
        # the first trained step: below it a network was never asked
        nats = ode.log_likelihood(denoise, pipe.schedule, (x + u) / 127.5 - 1, fold(1), first=1e-3, tolerance=1e-4)
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
