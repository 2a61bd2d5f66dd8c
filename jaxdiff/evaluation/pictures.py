"""Sets of pictures to compare: a folder, a data set by name, or those that a model made."""

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from jaxdiff.data import captions, picture
from jaxdiff.data.config import DataConfig, is_latents
from jaxdiff.data.source import open_source

_MOST_AT_ONCE = 2**27  # pixels: networks take them as float32, 1.6 GB


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Pictures of one size, read when they are asked for.

    Attributes:
      name: name of the set, for reports.
      shape: height and width.
      count: how many.
      read: number -> uint8 [h, w, 3].
      names: names of the files, or empty.
      captions: gives a caption for each, or none at all.
      stamp: changes when the pictures do.
      notes: what was converted.
    """

    name: str
    shape: tuple[int, int]
    count: int
    read: Callable[[int], np.ndarray]
    names: Sequence[str] = ()
    captions: Callable[[], Sequence[str]] = tuple
    stamp: str = ""
    notes: tuple[str, ...] = ()

    def batches(self, size: int, threads: int = 2) -> Iterator[UInt8[np.ndarray, "b h w 3"]]:
        """Returns all pictures in order, `size` at a time; the last batch may be smaller.

        Raises:
          ValueError: if a batch has more pixels than memory is likely to hold.
        """
        height, width = self.shape
        if min(size, self.count) * height * width > _MOST_AT_ONCE:
            raise ValueError(
                f"{size} pictures of {width}x{height} from {self.name} at once are over {_MOST_AT_ONCE:,} pixels: "
                "lower --batch-size, or scale them with --size"
            )
        with ThreadPoolExecutor(threads) as pool:
            for first in range(0, self.count, size):
                yield np.stack(list(pool.map(self.read, range(first, min(first + size, self.count)))))


def folder(path: Path, size: int = 0, split: str = "all") -> Pictures:
    """Returns the pictures under a folder, in the order of their paths, with the captions that are found there.

    Args:
      path: the folder.
      size: they are scaled and cut to size x size; 0 takes them as they are, and then all must have one size.
      split: takes the folder of that name in it; 'all' takes the whole.

    Raises:
      FileNotFoundError: if there is no such folder.
      ValueError: if it has no such split, no pictures, or pictures of several sizes.
      OSError: if one is damaged or too large; the message names it.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"no folder of pictures at {path}")
    root, path = path, captions.split_folder(path, split)
    paths = [one for one in captions.files(path) if one.suffix.lower() in picture.SUFFIXES]
    if not paths:
        raise ValueError(f"no pictures in {path}: expected files that end in {', '.join(picture.SUFFIXES)}")
    looks = [picture.look(one) for one in paths]
    sizes = Counter((look.width, look.height) for look in looks)
    stamp = hashlib.sha256(str(size).encode())
    for one in paths:
        status = one.stat()
        stamp.update(f"{one}\0{status.st_size}\0{status.st_mtime_ns}\n".encode(errors="surrogateescape"))
    if len(sizes) > 1 and not size:
        listed = ", ".join(f"{w}x{h} ({n})" for (w, h), n in sizes.most_common(5)) + (", ..." if len(sizes) > 5 else "")
        raise ValueError(f"the pictures in {path} have {len(sizes)} sizes: {listed}; bring them to one with --size")
    kinds = {
        "grey: brought to RGB": sum(look.grey for look in looks),
        "transparent in places: put on white": sum(look.transparent for look in looks),
        "the first of several in their file: the others are left out": sum(look.several for look in looks),
    }
    notes = [f"{n} of {len(paths)} pictures in {path} are {what}" for what, n in kinds.items() if n]
    width, height = (size, size) if size else next(iter(sizes))
    if size and set(sizes) != {(size, size)}:
        notes.append(f"pictures in {path} are scaled and cut to {size}x{size}")
    return Pictures(
        str(path),
        (height, width),
        len(paths),
        lambda i: picture.decode(paths[i], size or None),
        [one.relative_to(path).as_posix() for one in paths],
        lambda: _captions(root, path, paths),
        stamp=stamp.hexdigest(),
        notes=tuple(notes),
    )


def _captions(root: Path, path: Path, paths: Sequence[Path]) -> list[str]:
    """Returns the first caption of each picture, '' where a list has none.

    None at all if the folder has no captions.
    """
    try:
        items = captions.find(path, root).items
    except captions.NoCaptionsError:
        return []
    caption_of = {item.path: item.caption for item in reversed(items)}
    return [caption_of.get(one, "") for one in paths]


def data_set(config: DataConfig) -> Pictures:
    """Returns the pictures of a data set by name, with its captions.

    Raises:
      ValueError: as `open_source`.
    """
    if is_latents(config.name):
        raise ValueError(f"{config.name} holds latents, no pictures: give --reference, the data that they were made of")
    source = open_source(config)
    name = f"{config.name} {config.split}" + (f" {config.subset}" if config.subset != "all" else "")
    shape = (config.size, config.size)
    return Pictures(name, shape, len(source), lambda i: source[i]["image"], captions=source.captions, stamp=name)


def first(pictures: Pictures, count: int) -> Pictures:
    """Returns the first `count` of a set; all, if it has no more."""
    count = min(count, pictures.count)
    return dataclasses.replace(
        pictures,
        count=count,
        names=pictures.names[:count],
        captions=lambda: pictures.captions()[:count],
        stamp=f"{count} {pictures.stamp}",
    )
