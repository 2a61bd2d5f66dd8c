"""The chosen metrics of a made set against a real one, each with its interval."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxdiff.evaluation.networks import Features
from jaxdiff.metrics import statistics
from jaxdiff.metrics.bootstrap import Estimate, bootstrap
from jaxdiff.metrics.diversity import diversity, vendi
from jaxdiff.metrics.fid import frechet_distance, frechet_distance_of, least
from jaxdiff.metrics.inception_score import inception_score
from jaxdiff.metrics.kid import kid
from jaxdiff.metrics.neighbours import neighbours

_RANGES = {"precision": (0.0, 1.0), "recall": (0.0, 1.0), "coverage": (0.0, 1.0), "Vendi score": (1.0, np.inf)}
"""The ranges of true values; the other metrics of features are distances, and lie at 0 and above."""


def names(label: str, width: str) -> dict[str, str]:
    """Returns what the distances of features are called: FID and KID are InceptionV3's at 2048 alone."""
    if label.startswith("InceptionV3") and width == "2048":
        return {"frechet": f"FID ({label})", "kid": f"KID ({label})"}
    return {"frechet": f"Frechet distance ({label}, {width})", "kid": f"kernel distance ({label}, {width})"}


def check(
    metrics: tuple[str, ...], generated: int, real: int, width: str, widths: tuple[str, ...], k: int, resamples: int
) -> None:
    """Refuses sets that are too small, before anything is computed; `real` is 0 where a file does not say.

    Raises:
      ValueError: says the least number of pictures.
    """
    smallest = min(generated, real or generated)
    counts = f"{generated} made and {real or 'unknown'} real pictures"
    if "frechet" in metrics and smallest < (need := least(int(width))):
        fit = [w for w in widths if least(int(w)) <= smallest]
        other = f"take --width {max(fit, key=int)} (least {least(max(map(int, fit)))}), or " if fit else ""
        raise ValueError(
            f"{counts}: a Frechet distance over {width} features needs at least {need} of each, or its covariance is "
            f"singular; raise --num, {other}leave frechet out of --metrics (kid needs {_whole(2, resamples)})"
        )
    neighbours_ = "neighbours" in metrics
    if smallest < (need := _whole(k + 1 if neighbours_ else 2, resamples)):
        why = f"{k}-nearest neighbours need" if neighbours_ else "distances between pictures need"
        halves = " in every half that the intervals are drawn from" if resamples else ""
        raise ValueError(f"{counts}: {why} {k + 1 if neighbours_ else 2}{halves}, at least {need} of each in all")


def _whole(part: int, resamples: int) -> int:
    """Returns the least number of pictures that have `part` in a half, if halves are drawn."""
    return 2 * part - 1 if resamples else part


def compare(
    metrics: tuple[str, ...],
    generated: Features,
    real: Features,
    label: str,
    width: str,
    *,
    k: int = 5,
    resamples: int = 100,
    report: Callable[[str], None] = lambda name: None,
) -> dict[str, Estimate]:
    """Returns the metrics of features, by the names of reports.

    Args:
      metrics: metrics of `config.COMPARED`.
      generated: features of the made set; only its moments are needed where `resamples` is 0 and the metric is frechet.
      real: features of the real set, likewise.
      label: label of the network.
      width: width of its features.
      k: which neighbour.
      resamples: resamples of the bootstrap; 0 gives no intervals.
      report: called with each metric before it is computed.
    """
    called = names(label, width)
    result: dict[str, Estimate] = {}

    def of(name: str, statistic: Callable[..., dict[str, float]], *sets: Any, times: int = resamples) -> None:
        report(name)
        found = bootstrap(statistic, *sets, resamples=times)
        result.update({name: e.within(*_RANGES.get(name, (0.0, np.inf))) for name, e in found.items()})

    if "frechet" in metrics:
        name = called["frechet"]
        spread = Estimate(0.0, np.nan, np.nan)
        if resamples and generated.values is not None:
            times = min(resamples, 20)  # each takes matrices of [width, width] apart
            if real.values is not None:
                of(name, lambda x, y: {name: frechet_distance_of(x, y)}, generated.values, real.values, times=times)
            else:
                of(name, lambda x: {name: _to(statistics.moments(x), real.moments)}, generated.values, times=times)
            spread = result[name]
        value = _to(generated.moments, real.moments)
        moved = Estimate(value, value + spread.low - spread.value, value + spread.high - spread.value)
        result[name] = moved.within(0.0, np.inf)
    if "kid" in metrics:
        name = called["kid"]
        of(name, lambda x, y: {name: kid(x, y, subsets=10).mean}, generated.values, real.values)
    if "neighbours" in metrics:
        of("neighbours", lambda x, y: neighbours(y, x, k)._asdict(), generated.values, real.values)
    if "inception_score" in metrics:
        name = f"Inception score ({label})"
        of(name, lambda x: {name: inception_score(x, 1 if len(x) < 1000 else 10).mean}, generated.logits)
    if "diversity" in metrics:
        of("diversity", lambda x: {"pairwise distance": diversity(x), "Vendi score": vendi(x)}, generated.values)
    return result


def _to(a: statistics.Moments, b: statistics.Moments) -> float:
    return frechet_distance(a.mean, a.covariance, b.mean, b.covariance)


def mean(
    name: str, values: np.ndarray, resamples: int, least: float = -np.inf, most: float = np.inf
) -> dict[str, Estimate]:
    """Returns the mean of a number that each picture has by itself, which lies from `least` to `most`."""
    return {name: bootstrap(lambda x: {name: float(x.mean())}, values, resamples=resamples)[name].within(least, most)}


def as_json(estimates: Mapping[str, Estimate]) -> dict[str, dict[str, float | str | None]]:
    """Prepares a value for a file: NaN, which JSON lacks, becomes null, and infinity "inf"."""
    clean = lambda x: float(x) if np.isfinite(x) else None if np.isnan(x) else str(float(x))
    return {
        name: {"value": clean(e.value), "low": clean(e.low), "high": clean(e.high)} for name, e in estimates.items()
    }


def markdown(estimates: Mapping[str, Estimate]) -> str:
    """Returns a table."""
    rows = [
        f"| {name} | {e.value:.4g} | {f'{e.low:.4g} to {e.high:.4g}' if np.isfinite(e.low) else ''} |"
        for name, e in estimates.items()
    ]
    return "\n".join(["| metric | value | 95% interval |", "|---|---|---|", *rows])
