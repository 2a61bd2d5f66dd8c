"""Networks that pictures are compared by, and the features of a set under one of them.

A network plugs in as one more `FeatureNetwork`. What is computed is named after it: only InceptionV3's 2048 features
make an FID.
"""

import dataclasses
import difflib
import hashlib
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float32

from jaxdiff.evaluation.pictures import Pictures
from jaxdiff.metrics import statistics
from jaxdiff.models import efficientnet, inception
from jaxdiff.parallel.spread import Spread
from jaxdiff.pretrained import features as weights
from jaxdiff.typing import Params


@dataclasses.dataclass(frozen=True)
class FeatureNetwork:
    """A network with its weights, ready to look at pictures.

    Attributes:
      label: what it is called in reports.
      widths: widths of the features it has, the usual one last.
      apply: (params, uint8 pictures) -> features by width, and perhaps `logits_unbiased`.
      params: its weights.
      origin: origin of the weights, for reports.
    """

    label: str
    widths: tuple[str, ...]
    apply: Callable[[Params, Any], Any]
    params: Params
    origin: Mapping[str, str]


def _inception(path: Path | None, resize: str) -> FeatureNetwork:
    found = weights.find(weights.INCEPTION, path)
    return FeatureNetwork(
        f"InceptionV3, {resize} resizing",
        inception.WIDTHS,
        lambda p, x: inception.InceptionV3().apply({"params": p}, inception.prepare(x, resize)),
        weights.inception_params(found),
        {"weights": str(found), "sha256": weights.checksum(found)},
    )


def _efficientnet(path: Path | None, resize: str) -> FeatureNetwork:
    found = weights.find(weights.EFFICIENTNET, path)
    return FeatureNetwork(
        "EfficientNet-Lite0",
        efficientnet.WIDTHS,
        lambda p, x: efficientnet.EfficientNetLite0().apply({"params": p}, efficientnet.prepare(x)),
        weights.efficientnet_params(found),
        {"weights": str(found), "sha256": weights.checksum(found)},
    )


NETWORKS: dict[str, Callable[[Path | None, str], FeatureNetwork]] = {
    "efficientnet_lite0": _efficientnet,
    "inception": _inception,
}


def network(name: str, path: Path | None = None, resize: str = "tensorflow") -> FeatureNetwork:
    """Returns a network by name, with its weights.

    Args:
      name: a key of `NETWORKS`.
      path: its weights; None looks where `pretrained.features` says.
      resize: how InceptionV3's pictures are scaled, one of `inception.RESIZES`.

    Raises:
      ValueError: for an unknown name, or another file than the published one.
      FileNotFoundError: if the weights are missing; says which file, its checksum, and where to put it.
    """
    if name not in NETWORKS:
        near = difflib.get_close_matches(name, NETWORKS, 1)
        raise ValueError(
            f"unknown feature network {name!r}: expected one of {', '.join([*near, *(NETWORKS.keys() - {*near})])}"
        )
    if resize not in inception.RESIZES:
        raise ValueError(f"resize is {resize!r}: expected one of {', '.join(inception.RESIZES)}")
    return NETWORKS[name](path, resize)


@dataclasses.dataclass(frozen=True)
class Features:
    """The features of a set of pictures.

    Attributes:
      moments: mean and covariance, streamed.
      values: all of them, [n, d], or None where only the moments were wanted.
      logits: [n, classes] without the last bias, or None.
    """

    moments: statistics.Moments
    values: Float32[np.ndarray, "n d"] | None = None
    logits: Float32[np.ndarray, "n c"] | None = None


class FeatureExtractor:
    """A network, spread over all devices; compiled once."""

    def __init__(self, of: FeatureNetwork, width: str, logits: bool = False, batch_size: int = 16):
        """Takes one of the network's widths as `width`; `batch_size` is of each device."""
        if width not in of.widths:
            raise ValueError(f"{of.label} has features of width {', '.join(of.widths)}, not {width}")
        names = self._names = (width, "logits_unbiased") if logits else (width,)
        self.of, self.width, self._batch = of, width, batch_size * jax.device_count()
        apply = lambda params, x: {name: of.apply(params, x)[name] for name in names}
        self._run = Spread(apply, "pmap", multiple=self._batch)

    def __call__(
        self,
        pictures: Pictures,
        keep: bool = True,
        report: Callable[[int], None] = lambda done: None,
        folder: Path | None = None,
    ) -> Features:
        """Returns the features of a set.

        Args:
          pictures: the set.
          keep: all features; else moments alone.
          report: called with how many pictures are done.
          folder: features are kept there, and taken from there if they are of the same pictures and weights.
        """
        what = repr((pictures.stamp, pictures.count, pictures.shape, self.of.label, self.of.origin, self._names, keep))
        file = folder / f"{hashlib.sha256(what.encode()).hexdigest()[:16]}.npz" if folder else None
        if file and file.is_file() and (kept := _load(file)):
            report(pictures.count)
            return kept
        features = self._look(pictures, keep, report)
        if file:
            file.parent.mkdir(parents=True, exist_ok=True)
            part = file.with_suffix(".part.npz")
            _save(part, features)
            part.replace(file)
        return features

    def _look(self, pictures: Pictures, keep: bool, report: Callable[[int], None]) -> Features:
        moments, kept, done = None, [], 0
        for batch in pictures.batches(self._batch):
            out = self._run(self.of.params, batch)
            part = statistics.moments(out[self.width])
            moments = part if moments is None else statistics.merge(moments, part)
            if keep:
                kept.append(out)
            report(done := done + len(batch))
        assert moments is not None
        features = {name: np.concatenate([one[name] for one in kept]) for name in (kept[0] if kept else ())}
        return Features(moments, features.get(self.width), features.get("logits_unbiased"))


def _save(file: Path, features: Features) -> None:
    arrays = {name: x for name in ("values", "logits") if (x := getattr(features, name)) is not None}
    np.savez(file, **arrays, **dataclasses.asdict(features.moments))


def _load(file: Path) -> Features | None:
    """Returns what `_save` wrote; nothing if the file is damaged, so that it is made anew."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            moments = statistics.Moments(int(arrays["count"]), arrays["mean"], arrays["covariance"])
            return Features(moments, arrays.get("values"), arrays.get("logits"))
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error):
        return None
