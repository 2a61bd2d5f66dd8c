"""Distances of pictures from those they should be: PSNR, SSIM and LPIPS of pairs."""

from pathlib import Path
from typing import Literal

import jax
import numpy as np

from jaxdiff.data.text import listing
from jaxdiff.evaluation.pictures import Pictures
from jaxdiff.evaluation.report import mean
from jaxdiff.metrics import pixels
from jaxdiff.metrics.bootstrap import Estimate
from jaxdiff.models import lpips
from jaxdiff.parallel.spread import Spread
from jaxdiff.pretrained import features as weights


def find(network: Literal["alex", "vgg"]) -> tuple[Path, Path]:
    """Returns the files of LPIPS's classifier and of its channels' weights.

    Raises:
      FileNotFoundError: says which is missing, and where to put it.
    """
    return weights.find(weights.TRUNKS[network]), weights.find(weights.LINEAR[network])


def check(generated: Pictures, real: Pictures) -> None:
    """Refuses sets that are not pairs.

    Raises:
      ValueError: says which names are in one set only.
    """
    if generated.shape != real.shape or generated.count != real.count:
        sizes = [f"{x.count} of {x.shape[1]}x{x.shape[0]} in {x.name}" for x in (generated, real)]
        raise ValueError(f"{' and '.join(sizes)}: pairs need as many pictures, of the same size")
    if alone := sorted({*generated.names} ^ {*real.names}):
        raise ValueError(f"pairs need the same file names in both folders; in one only: {listing(alone)}")


def compare(
    metrics: tuple[str, ...],
    generated: Pictures,
    real: Pictures,
    *,
    network: Literal["alex", "vgg"] = "alex",
    batch_size: int = 16,
    resamples: int = 100,
) -> dict[str, Estimate]:
    """Returns the means over all pairs of those of `config.PAIRED` that are asked for."""
    check(generated, real)
    at_once = batch_size * jax.device_count()
    run, params = None, None
    if "lpips" in metrics:
        params = weights.lpips_params(network, *find(network))
        apply = lpips.Lpips(network).apply
        look = lambda p, xy: apply({"params": p}, lpips.prepare(xy[0]), lpips.prepare(xy[1]))
        run = Spread(look, "pmap", multiple=at_once)
    found: dict[str, list[np.ndarray]] = {name: [] for name in metrics}
    for x, y in zip(generated.batches(at_once), real.batches(at_once), strict=True):
        if "psnr" in metrics:
            found["psnr"].append(pixels.psnr(x, y))
        if "ssim" in metrics:
            found["ssim"].append(pixels.ssim(x, y))
        if run:
            found["lpips"].append(run(params, (x, y)))
    called = {"psnr": "PSNR", "ssim": "SSIM", "lpips": f"LPIPS ({network})"}
    ranges = {"psnr": (0.0, np.inf), "ssim": (-1.0, 1.0), "lpips": (0.0, np.inf)}
    result: dict[str, Estimate] = {}
    for name, values in found.items():
        result.update(mean(called[name], np.concatenate(values), resamples, *ranges[name]))
    return result
