"""The config that names data, the form of one example, and the protocol of every source of examples."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import NotRequired, Protocol, TypedDict, runtime_checkable

import numpy as np

from jaxdiff.data.subsets import SUBSETS

MOST_PIXELS_A_SIDE = 4096
_MOST_WORKERS = 1024
LATENTS = "latents.json"
"""The file by which a directory is known as one of latents."""
_LONGEST = 1000  # characters of a name or a path


class Example(TypedDict):
    """One record of a source; `image` is uint8 [size, size, 3] and read-only.

    Of a picture in a folder, `sides` are its height and width before it was scaled and cut, and `name` is its path
    below the folder; `hint` is the path of the picture that its line of metadata.jsonl names beside it.
    """

    image: np.ndarray
    caption: str
    label: int
    sides: NotRequired[tuple[int, int]]
    name: NotRequired[str]
    hint: NotRequired[str]


@runtime_checkable
class Source(Protocol):
    """Pictures by number; the same number always gives the same example.

    Attributes:
      labels: the names of the label ids; empty if the data set has no classes (every label is then 0).
    """

    labels: tuple[str, ...]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...

    def captions(self) -> list[str]:
        """Returns all captions in order, without decoding a picture."""
        ...


@dataclass(frozen=True)
class DataConfig:
    """The pictures of a run, and how they are read.

    Attributes:
      name: a TFDS name, with its config where it has several ('openmoji', 'cifar10', 'imagenet_resized/32x32'), or a
        folder of pictures with captions (metadata.jsonl, metadata.csv, captions.txt, or NAME.txt beside NAME.png) or
        with a subfolder for each class; or a directory that `jaxdiff latents` made; or webdataset tars (KEY.jpg with
        KEY.txt, .json or .cls) or parquet as the hub has it: a folder, a pattern ('data/train-*.tar'), or either in a
        bucket ('gs://bucket/folder'), read where they lie. Where a name is both, './NAME' is the folder and 'tfds:NAME'
        the data set.
      split: 'train', 'test', 'all', or what TFDS can read ('train[:10%]'); for a folder, a folder of that name in it;
        for tars and parquet, also the beginning of their names.
      size: pictures are scaled and cut to size x size pixels.
      subset: a part of openmoji, chosen by caption: 'plain' or 'quickstart'; 'all' is everything, of any data.
      flip: mirror half of the pictures, chosen anew each time one is drawn; not where captions tell left from right.
      articles: put "a" or "an" before half of the captions, chosen anew each time, where captions are bare names and
        prompts may not be; a caption that has an article keeps it.
      repeats: repeats of a folder: pictures in subfolders called N_NAME, such as 10_toy, come N times as often.
      dir: where prepared TFDS data lie; default: $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      workers: threads that load ahead; 0 loads when a batch is asked for.
    """

    name: str = "openmoji"
    split: str = "train"
    size: int = 32
    subset: str = "all"
    flip: bool = False
    articles: bool = False
    repeats: bool = False
    dir: str | None = None
    workers: int = 2


def is_latents(name: str) -> bool:
    """Returns whether data of this name are a directory that `jaxdiff latents` made."""
    return (Path(os.path.expanduser(name)) / LATENTS).is_file()


def check(config: DataConfig) -> None:
    """Refuses a config that cannot be meant, before anything is opened.

    Raises:
      ValueError: naming the field, what was given and what is expected.
    """
    for field in ("name", "split", "subset", "dir"):
        value = getattr(config, field)
        is_text = isinstance(value, str) and 0 < len(value) <= _LONGEST and "\0" not in value
        if not is_text and (field, value) != ("dir", None):
            raise ValueError(f"data.{field} is {repr(value)[:80]}: expected text of 1 to {_LONGEST} characters")
    for field, least, most in (("size", 1, MOST_PIXELS_A_SIDE), ("workers", 0, _MOST_WORKERS)):
        value = getattr(config, field)
        if type(value) is not int or not least <= value <= most:
            raise ValueError(f"data.{field} is {repr(value)[:80]}: expected a whole number from {least} to {most}")
    for field in ("flip", "articles", "repeats"):
        if not isinstance(value := getattr(config, field), bool):
            raise ValueError(f"data.{field} is {value!r}: expected True or False")
    if config.subset not in SUBSETS:
        raise ValueError(f"data.subset is {config.subset!r}: expected one of {', '.join(SUBSETS)}")
    parts = config.name.removeprefix("tfds:").partition("/")[0] == "openmoji" or is_latents(config.name)
    if config.subset != "all" and not parts:
        raise ValueError(
            f"data.subset is {config.subset!r}, a part of openmoji that {config.name!r} does not have: give "
            "data.subset 'all'"
        )
