"""Shared parts of tasks whose model looks at a picture beside the one that it makes: a hint, or one to edit.

Hints are made of the pictures on the way (`data.hints`), lie in another folder under the same names, or are named in
metadata.jsonl beside each picture.
"""

import dataclasses
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Array

from jaxdiff.data import hints
from jaxdiff.data.latents import LatentSource
from jaxdiff.data.source import DataConfig, Example, Source, names_of
from jaxdiff.diffusion import draws
from jaxdiff.tasks.published import Assets, PublishedConfig
from jaxdiff.training import OptimizerConfig
from jaxdiff.typing import Key


class More(NamedTuple):
    """Holds what such a run has beside the base.

    Attributes:
      files: files of hints, by the picture's name without its ending.
      shown: uint8 [n h w 3], hints for the previews.
    """

    files: dict[str, Path]
    shown: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class HintedConfig(PublishedConfig):
    """A model that looks at a picture.

    Attributes:
      hint: what it looks at: edges (canny) or a blurred picture (blur), made on the way, or pictures in files.
      folder: folder of hints, each under the name of its picture; None: metadata.jsonl names them, as `hint`.
      low: canny's lower threshold.
      high: canny's higher one.
      blur: deviation of the Gaussian, in pixels.
    """

    hint: Literal["canny", "blur", "files"] = "canny"
    folder: Path | None = None
    low: float = 100.0
    high: float = 200.0
    blur: float = 8.0

    def check(self, data: DataConfig, optimizer: OptimizerConfig) -> None:
        """Refuses numbers that do not fit each other."""
        if self.hint != "files" and self.folder is not None:
            raise ValueError(f"task.hint is {self.hint!r} and task.folder {self.folder}: only files lie in one")
        if self.hint == "files" and data.flip:
            raise ValueError("data.flip is True, and hints in files are not mirrored with their pictures: leave it out")
        if not 0 <= self.low <= self.high or not self.blur > 0:
            raise ValueError(
                f"task.low is {self.low}, task.high {self.high} and task.blur {self.blur}: expected 0 <= low <= high, "
                "and a blur above 0"
            )
        check_alone(self)
        super().check(data, optimizer)

    def _prepare(self, assets: Assets, folder: Path, data: DataConfig, source: Source | None, new: bool) -> Assets:
        if source is None:
            return assets
        refuse_latents(source, data)
        found: dict[str, Path] = {}
        if self.hint == "files":
            if self.folder is not None:
                found = hints.beside(self.folder, names_of(source), "task.folder")
            else:
                hints.check_named(source, "task.hint is 'files' and task.folder None")
        assets = assets._replace(more=More(found, np.zeros(0)))
        rows = [self._hint(assets, source[i]) for i in range(min(len(self.preview.prompts), len(source)))]
        return assets._replace(more=More(found, np.stack(rows))) if rows else assets

    def _hint(self, assets: Assets, one: Example) -> np.ndarray:
        if self.hint == "canny":
            return hints.canny(one["image"], self.low, self.high)
        if self.hint == "blur":
            return hints.blur(one["image"], self.blur)
        if "name" not in one or assets.more is None:  # what only tells a batch's shapes
            return np.zeros_like(one["image"])
        if "hint" in one:
            return hints.read(Path(one["hint"]), assets.size)
        return hints.read_beside(assets.more.files, one["name"], assets.size)

    def _row(self, assets: Assets, one: Example, rng: np.random.Generator) -> dict[str, np.ndarray]:
        return {**super()._row(assets, one, rng), "hint": self._hint(assets, one)}

    def _preview_inputs(self, assets: Assets) -> dict[str, Any]:
        return {"hints": assets.more.shown}


def check_alone(task: PublishedConfig) -> None:
    """Refuses a prior, which is of tasks that learn a word."""
    if task.prior.prompt:
        raise ValueError(
            "task.prior is for what learns a word or a style: a model that looks takes none, so leave it out"
        )


def refuse_latents(source: Source, data: DataConfig) -> None:
    """Refuses latents, of which no hint is made."""
    if isinstance(source, LatentSource):
        raise ValueError(f"hints are made of pictures, and {data.name} are latents: name the folder of the pictures")


def three_ways(keys: Key, rate: float) -> tuple[Array, Array]:
    """Returns which captions and which pictures are left out [b]: each alone, and both, with probability `rate`.

    Source: Brooks et al. 2023, arXiv 2211.09800, section 3.2.1.
    """
    u = draws.uniform(draws.fold(keys, draws.DROP))
    return u < 2 * rate, (rate <= u) & (u < 3 * rate)
