"""Files of many examples each, tars or parquet, on this machine or in a bucket: which there are, and parts of them.

A name is a folder, a file, or a pattern (`data/train-*.tar`), with `gs://`, `s3://` or another scheme that fsspec knows
in front where it is a bucket. Files are taken in the order of their paths, so that every process numbers the examples
alike. Nothing is downloaded: of a tar each example is read where it lies, of parquet the group of rows that it is in.
"""

import abc
import glob
import logging
import os
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from jaxdiff.data.config import Example
from jaxdiff.data.text import listing

SUFFIXES = (".tar", ".parquet")
_SPLITS = ("train", "test", "val", "valid", "validation", "dev")
_PATTERN = re.compile(r"[*?\[]")
_T = TypeVar("_T")


def names_shards(name: str) -> bool:
    """Tells whether a name of data is of shards: in a bucket, a pattern, a tar or parquet, or a folder of such."""
    folder = Path(os.path.expanduser(name))
    if "://" in name or not folder.is_dir():
        return "://" in name or bool(_PATTERN.search(name)) or name.endswith(SUFFIXES)
    return any(next(folder.glob(form + suffix), None) for form in ("*", "*/*") for suffix in SUFFIXES)


@dataclass(frozen=True)
class Files:
    """The files of a split.

    Attributes:
      name: as the config has it, for errors.
      paths: sorted.
      system: system of fsspec; None: this machine.
    """

    name: str
    paths: tuple[str, ...]
    system: Any = None

    def open(self, path: str) -> Any:
        """Returns one as a file object."""
        return self._told(lambda: self.system.open(path, "rb") if self.system else open(path, "rb"))

    def read(self, path: str, start: int, count: int) -> bytes:
        """Returns some bytes of one.

        Raises:
          OSError: if they cannot be read, or the file is shorter now.
        """
        if self.system:
            found = self._told(lambda: self.system.cat_file(path, start=start, end=start + count))
        else:
            with open(path, "rb") as file:
                file.seek(start)
                found = file.read(count)
        if len(found) != count:
            raise OSError(f"{path} is cut off: it ends before byte {start + count}")
        return bytes(found)

    def stamp(self, path: str) -> str:
        """Returns what changes whenever a file does: its size and time."""
        if not self.system:
            stat = os.stat(path)
            return f"{stat.st_size} {stat.st_mtime_ns}"
        info = self._told(lambda: self.system.info(path))
        keys = ("size", "etag", "ETag", "md5Hash", "generation", "mtime", "LastModified", "updated", "created")
        return " ".join(f"{key}={info[key]}" for key in keys if key in info)

    def _told(self, do: Callable[[], _T]) -> _T:
        """Gives errors of a bucket, which are of many kinds, the form of one line."""
        try:
            return do()
        except Exception as error:
            if self.system is None:
                raise
            raise OSError(_no_access(self.name, error)) from error


def find(name: str, split: str) -> Files:
    """Finds the files of a split.

    A file is of a split if its name begins with that of the split, or a folder on the way has it; where no file says
    of which it is, all are of 'train'.

    Raises:
      ValueError: if there are none, both kinds, none of the split, or a bucket cannot be listed.
    """
    system, root = _system(name) if "://" in name else (None, os.path.expanduser(name))
    everything = _list(name, system, root)
    if packed := [path for path in everything if re.search(r"\.(tar\.\w+|tgz)$", path)]:
        raise ValueError(f"{listing(packed)}: a compressed tar cannot be read at random: unpack it to .tar")
    found = [path for path in everything if path.endswith(SUFFIXES)]
    if not found:
        others = Counter(os.path.splitext(path)[1] or "no ending" for path in everything)
        there = listing(f"{count} with {suffix}" for suffix, count in sorted(others.items())) or "nothing"
        raise ValueError(f"data.name is {name!r}: no .tar and no .parquet is there, but {there}")
    if len(kinds := {path.rpartition(".")[2] for path in found}) > 1:
        raise ValueError(f"data.name is {name!r}, which has {' and '.join(sorted(kinds))}: give a pattern of one kind")
    of = lambda path, split: bool(
        re.search(rf"(^|/){re.escape(split)}(?![a-zA-Z0-9])", path.removeprefix(_PATTERN.split(root)[0]))
    )
    mine = found if split == "all" else [path for path in found if of(path, split)]
    if not mine and split == "train" and not any(of(path, other) for path in found for other in _SPLITS):
        mine = found
    if not mine:
        said = [other for other in _SPLITS if any(of(path, other) for path in found)]
        raise ValueError(f"data.split is {split!r}: {name} has {listing(said) or 'no splits'}, and 'all'")
    return Files(name, tuple(sorted(mine)), system)


def _list(name: str, system: Any, root: str) -> list[str]:
    """Returns the files that a name may mean, without hidden ones."""
    if system is None:
        where = os.path.join(glob.escape(root), "**") if os.path.isdir(root) else root
        paths = [path for path in glob.glob(where, recursive=True) if os.path.isfile(path)]
    else:
        try:
            paths = list(system.glob(root) if _PATTERN.search(root) else system.find(root))
        except Exception as error:  # each bucket has errors of its own for what may not be read
            raise ValueError(f"data.name is {name!r}: {_no_access(name, error)}") from error
    return [path for path in paths if not os.path.basename(path).startswith(".")]


def _system(name: str) -> tuple[Any, str]:
    scheme = name.partition("://")[0]
    try:
        import fsspec

        for package in ("gcsfs", "s3fs", "google.auth"):  # they log what their errors say too, with a traceback
            logging.getLogger(package).setLevel(logging.CRITICAL)
        system, root = fsspec.core.url_to_fs(name)
    except ImportError as error:
        raise ValueError(
            f"data.name is {name!r}: {scheme}:// needs a package that is not installed ({error}): pip install "
            "'jaxdiff[buckets]'"
        ) from error
    except Exception as error:  # of the package of that bucket; ValueError for a scheme that there is not
        raise ValueError(f"data.name is {name!r}: {_no_access(name, error)}") from error
    return system, root


def _no_access(name: str, error: Exception) -> str:
    how = {"gs": "gcloud auth application-default login", "gcs": "gcloud auth application-default login"}
    scheme = name.partition("://")[0]
    login = how.get(scheme, "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or aws configure")
    what = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    return f"the bucket cannot be read ({what}): does it exist, and are there credentials ({login})?"


class ShardSource(abc.ABC):
    """The examples of shards by number; a kind of shard says where pictures, captions and classes lie.

    Attributes:
      labels: the names of the classes, or none.
    """

    labels: tuple[str, ...] = ()

    def __init__(self, size: int):
        """Takes the side of the pictures."""
        self._size = size

    @abc.abstractmethod
    def __len__(self) -> int:
        """Returns the number of examples."""

    @abc.abstractmethod
    def encoded(self, index: int) -> tuple[bytes, str]:
        """Returns a picture as its file has it, and what errors call it."""

    @abc.abstractmethod
    def caption(self, index: int) -> str:
        """Returns the caption of an example."""

    @abc.abstractmethod
    def label(self, index: int) -> int:
        """Returns the number of an example's class."""

    def __getitem__(self, index: int) -> Example:
        return self.shaped(index, self._size, self._size)

    def shaped(self, index: int, height: int, width: int) -> Example:
        """Returns an example whose picture is scaled and cut to another shape."""
        encoded, name = self.encoded(index)
        from jaxdiff.data import picture  # brings Pillow

        image = picture.decode(encoded, (height, width), name)
        return Example(image=image, caption=self.caption(index), label=self.label(index))

    def sides(self, index: int) -> tuple[int, int]:
        """Returns height and width of a picture as it is."""
        from jaxdiff.data import picture  # brings Pillow

        look = picture.look(*self.encoded(index))
        return look.height, look.width

    def captions(self) -> list[str]:
        """Returns all captions in order, without decoding a picture."""
        return [self.caption(index) for index in range(len(self))]


def class_names(labels: Any, where: str) -> tuple[str, ...]:
    """Returns names of classes that are numbers alone: '0', '1' and so on.

    Raises:
      ValueError: if a number is negative, or above a million.
    """
    least, most = int(labels.min()), int(labels.max())
    if least < 0 or most >= 10**6:
        raise ValueError(f"{where}: a class is {least if least < 0 else most}: expected numbers from 0 to 999999")
    return tuple(map(str, range(most + 1)))
