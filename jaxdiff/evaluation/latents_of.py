"""Measures what the latents of a variational autoencoder say: its bound with more draws, and known factors."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxdiff import data, experiment
from jaxdiff.data.shapes import ShapesSource
from jaxdiff.metrics import disentanglement
from jaxdiff.objectives import likelihood
from jaxdiff.tasks import vae

DRAWS = (1, 2, 4, 8, 16, 32, 64)


def measure(workdir: Path, num: int = 256, batch: int = 64) -> dict[str, float]:
    """Returns bits/dim by each number of draws, and of a run on `shapes` the two scores.

    Args:
      workdir: workdir of a run of a VAE.
      num: pictures whose bound is measured, of the split that the run held out, or else that it was trained on.
      batch: pictures at once.

    Raises:
      FileNotFoundError, ValueError: if it is no run of a VAE.
    """
    run = experiment.open_run(workdir)
    task, config = run.config.task, run.config
    if not isinstance(task, vae.Config):
        raise ValueError(f"{workdir} is a run of {type(task).__module__.rsplit('.')[-1]}: expected one of a VAE")
    of = experiment.DataConfig(**{**vars(config.data), "split": config.held_out or config.data.split, "flip": False})
    source = data.open_source(of)
    params = run.weights.params
    found: dict[str, float] = {}
    images = np.stack([source[i]["image"] for i in range(min(num, len(source)))])
    key = jax.random.key(0)
    for count in DRAWS:

        @jax.jit
        def bits(image: Any, keys: Any, count: int = count) -> Any:
            x = task.read(image)
            return likelihood.bits(task.bound(params, x, keys, count), x[0].size)

        parts = [images[i : i + batch] for i in range(0, len(images), batch)]
        measured = [bits(part, jax.random.split(jax.random.fold_in(key, i), len(part))) for i, part in enumerate(parts)]
        found[f"bits/dim, {count} draws"] = float(np.mean(np.concatenate(measured).astype(np.float64)))
    if config.data.name == "shapes":
        everything = ShapesSource(experiment.DataConfig(**{**vars(config.data), "split": "all"}))
        encode = jax.jit(lambda image: task.encode(params, task.read(image))[0])
        pictures = np.stack([everything[i]["image"] for i in range(len(everything))])
        parts = [encode(pictures[i : i + 256]) for i in range(0, len(pictures), 256)]
        z = np.concatenate(parts).reshape(len(everything), -1).astype(np.float64)
        found["MIG"] = disentanglement.mig(z, everything.factors)
        found["beta-VAE score"] = disentanglement.beta_vae_score(z, everything.factors)
    return found
