"""Keeps a class as it is while one of its members is learned: pictures of the class, made by the model itself.

    loss = loss of the member's picture + weight x loss of a class picture

Source: Ruiz et al. 2023, arXiv 2208.12242 (DreamBooth), section 3.2.
"""

import dataclasses
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxdiff.data import picture
from jaxdiff.data.config import Example
from jaxdiff.data.source import DataConfig
from jaxdiff.pipelines.diffusion import DiffusionPipeline
from jaxdiff.pretrained.read import Bundle
from jaxdiff.training.workdir import by_first

FOLDER = "class_pictures"


@dataclasses.dataclass(frozen=True)
class PriorConfig:
    """A class that is preserved.

    Attributes:
      prompt: what its pictures show, "a photo of a dog"; empty: nothing is preserved.
      folder: folder of its pictures; None: class_pictures in the run's directory. The model fills a folder that is
        missing.
      count: pictures that it makes.
      weight: weight of their loss.
      steps: steps of the sampler.
      guidance: 1 is off.
      batch: pictures made at once.
      seed: seed of the pictures.
    """

    prompt: str = ""
    folder: Path | None = None
    count: int = 200
    weight: float = 1.0
    steps: int = 30
    guidance: float = 7.5
    batch: int = 4
    seed: int = 0

    def check(self) -> None:
        """Refuses numbers out of range, and a folder without a prompt."""
        for name in ("count", "steps", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"task.prior.{name} is {getattr(self, name)}: expected 1 or more")
        if not 0 <= self.weight < math.inf or not math.isfinite(self.guidance):
            raise ValueError(
                f"task.prior.weight is {self.weight} and task.prior.guidance {self.guidance}: expected numbers, the "
                "first at least 0"
            )
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"task.prior.seed is {self.seed}: expected 0 to {2**32 - 1}")
        if self.folder is not None and not self.prompt:
            raise ValueError(f"task.prior.folder is {self.folder}: give task.prior.prompt, what its pictures show")


class ClassPictures:
    """The pictures of a folder, by number, without captions."""

    labels: tuple[str, ...] = ()

    def __init__(self, folder: Path, size: int):
        self._paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in picture.SUFFIXES)
        self._size = size
        if not self._paths:
            raise ValueError(
                f"task.prior: {folder} is there and has no picture: put pictures of the class in, or remove it and the "
                "model makes them"
            )

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Example:
        return Example(image=picture.decode(self._paths[index], self._size), caption="", label=0)

    def captions(self) -> list[str]:
        """Returns None: all of them show the same."""
        return [""] * len(self)


def opened(prior: PriorConfig, run: Path, data: DataConfig, bundle: Callable[[], Bundle]) -> ClassPictures:
    """Opens the pictures of the class, once the model has made them where their folder is missing.

    Args:
      prior: which.
      run: the run's directory.
      data: says their size.
      bundle: reads the model; called only where pictures are made.

    Raises:
      ValueError: if the folder is there and empty.
      OSError: if there is no room for the pictures.
    """
    folder = prior.folder or run / FOLDER
    if not folder.exists():
        by_first(lambda: _make(prior, folder, data.size, bundle))
    return ClassPictures(folder, data.size)


def _make(prior: PriorConfig, folder: Path, size: int, bundle: Callable[[], Bundle]) -> None:
    """Makes the pictures in a folder beside it, where a killed run left off, and renames that when all are there."""
    part = folder.with_name(f".{folder.name}.part")
    part.mkdir(parents=True, exist_ok=True)
    there = {file.name for file in part.glob("*.png")}
    lacking = prior.count - len(there)
    free, needed = shutil.disk_usage(part).free, lacking * size * size * 3
    if free < needed:
        room = f"{needed / 1e6:.0f} MB, and {free / 1e6:.0f} MB are free"
        raise OSError(f"{folder}: {lacking} pictures may take {room}: make room, or lower task.prior.count")
    left = [i for i in range(prior.count) if f"{i:05d}.png" not in there]
    pipe = DiffusionPipeline(bundle(), devices=jax.local_devices()[:1])
    guidance = None if prior.guidance == 1 else prior.guidance
    for start in range(0, len(left), prior.batch):
        chosen = left[start : start + prior.batch]
        numbers = np.array((chosen * prior.batch)[: prior.batch])  # the last batch is as large, so compiles nothing
        keys: Any = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(prior.seed), i))(numbers)
        images = pipe([prior.prompt] * prior.batch, key=keys, steps=prior.steps, guidance=guidance,
                      height=size, width=size)  # fmt: skip
        for i, image in zip(chosen, images, strict=False):
            file = part / f"{i:05d}.png"
            file.with_suffix(".tmp").write_bytes(picture.encode(image).getvalue())
            file.with_suffix(".tmp").rename(file)
    part.rename(folder)
