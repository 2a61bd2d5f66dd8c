"""Webdataset's tars: the members of an example follow each other and have one name up to its first dot.

    KEY.jpg (or another suffix of a picture)   the picture, one an example
    KEY.txt, or KEY.json with "caption" or "text"   the caption; the former where there are both
    KEY.cls   the number of the class

Where each member begins is noted once in a hidden file beside a tar, `.NAME.tar.index.npz`, so that any example is read
by itself; where nothing can be written it is found anew at each start. Other members are left out, and said.
"""

import contextlib
import io
import json
import logging
import os
import tarfile
import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from jaxdiff.data import picture
from jaxdiff.data.shards import Files, ShardSource, class_names
from jaxdiff.data.text import listing

_FIELDS = ("picture", "picture_size", "text", "text_size", "is_json", "label")
"""The columns of the index: offset and length of picture and caption (-1: there is none), and the class (-1: none)."""
_FORMAT = 1
_UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)  # of an index
_REST = 2**20  # bytes behind the last member that are looked at: all have to be zero


class TarSource(ShardSource):
    """Pictures, captions and classes of tars.

    Raises:
      ValueError: if a tar is damaged, an example lacks what others have, or has something twice; names them.
    """

    def __init__(self, files: Files, size: int):
        super().__init__(size)
        self._files = files
        with ThreadPoolExecutor() as pool:
            found = list(pool.map(lambda path: _index(files, path), files.paths))
        self._ends = np.cumsum([len(one) for one in found])
        self._rows = np.concatenate(found)
        texts, classes = self._rows[:, 3] >= 0, self._rows[:, 5] >= 0
        for what, has in (("caption (.txt, or .json with caption or text)", texts), ("class (.cls)", classes)):
            if has.any() and not has.all():
                lacking = [self._name(int(i)) for i in np.flatnonzero(~has)[:11]]
                raise ValueError(f"{(~has).sum()} of {len(has)} examples have no {what}: {listing(lacking)}")
        if classes.any():
            self.labels = class_names(self._rows[:, 5], files.name)
        self._told = bool(texts.any())
        if not (self._told or self.labels):
            logging.getLogger(__name__).warning("%s has no captions and no classes: all captions are ''", files.name)

    def __len__(self) -> int:
        return len(self._rows)

    def encoded(self, index: int) -> tuple[bytes, str]:
        """Returns a picture as its file has it, and what errors call it."""
        start, count = self._rows[index, :2].tolist()
        return self._files.read(self._path(index), start, count), self._name(index)

    def caption(self, index: int) -> str:
        """Returns the caption of an example; where there are none, the number of its class."""
        if not self._told:
            return str(self.label(index)) if self.labels else ""
        start, count, is_json = self._rows[index, 2:5].tolist()
        return _caption(self._files.read(self._path(index), start, count), is_json, self._name(index))

    def label(self, index: int) -> int:
        """Returns the number of an example's class."""
        return int(self._rows[index, 5]) if self.labels else 0

    def _path(self, index: int) -> str:
        return self._files.paths[int(np.searchsorted(self._ends, index, "right"))]

    def _name(self, index: int) -> str:
        path = self._path(index)
        start = int(self._rows[index, 0])
        with self._files.open(path) as file, contextlib.suppress(OSError, tarfile.TarError):
            file.seek(start - tarfile.BLOCKSIZE)
            block = file.read(tarfile.BLOCKSIZE)
            name = tarfile.TarInfo.frombuf(block, "utf-8", "replace").name
            return f"{path}: {name}"
        return f"{path}, byte {start}"


def _index(files: Files, path: str) -> np.ndarray:
    """Returns where the examples of a tar lie, int64 [n, fields]; from the file beside it if that is of this tar."""
    folder, name = os.path.split(path)
    beside, stamp = os.path.join(folder, f".{name}.index.npz"), f"{_FORMAT} {files.stamp(path)}"
    if files.system is None:
        with contextlib.suppress(*_UNREADABLE), np.load(beside, allow_pickle=False) as noted:
            if str(noted["stamp"]) == stamp and noted["rows"].shape[1] == len(_FIELDS):
                rows: np.ndarray = noted["rows"].astype(np.int64)
                return rows
    rows = _scan(files, path)
    if files.system is None:
        with contextlib.suppress(OSError):  # a folder that cannot be written to is looked through anew each time
            part = f"{beside}.{os.getpid()}.part"
            content = io.BytesIO()
            np.savez(content, stamp=np.array(stamp), rows=rows)
            with open(part, "wb") as file:
                file.write(content.getvalue())
            os.replace(part, beside)
    return rows


def _scan(files: Files, path: str) -> np.ndarray:
    """Looks through a tar.

    Raises:
      ValueError: if it is damaged, or an example in it is not as the module says.
    """
    examples: dict[str, dict[str, Any]] = {}
    last, others = "", Counter[str]()
    with files.open(path) as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for member in tar:
                    base = os.path.basename(member.name)
                    if not member.isfile() or base.startswith("."):
                        continue
                    suffix = base.partition(".")[2].lower()
                    key = member.name[: len(member.name) - len(suffix) - 1] if suffix else member.name
                    if key != last and key in examples:
                        raise ValueError(f"{path}: the members of {key} do not follow each other, or it is there twice")
                    last, parts = key, examples.setdefault(key, {})
                    kind = "picture" if f".{suffix}" in picture.SUFFIXES else suffix
                    if kind not in ("picture", "txt", "json", "cls"):
                        others[suffix or "no ending"] += 1
                        continue
                    if kind in parts:
                        raise ValueError(f"{path}: {key} has a second {kind}, {base}: expected one")
                    parts[kind] = (member.offset_data, member.size)
                    if kind in ("json", "cls"):
                        content = tar.extractfile(member)
                        parts[f"{kind} read"] = content.read() if content else b""
                end = tar.offset
            file.seek(end)
            if len(rest := file.read(_REST)) < tarfile.BLOCKSIZE or rest.strip(tarfile.NUL):
                raise tarfile.ReadError(f"no member begins at byte {end}, nor does it end there")
        except tarfile.TarError as error:
            raise ValueError(f"{path} is no tar, or damaged: {error}") from error
    if others:
        left = listing(f"{count} .{suffix}" for suffix, count in sorted(others.items()))
        logging.getLogger(__name__).warning("members of %s that are left out: %s", path, left)
    if bare := [key for key, parts in examples.items() if "picture" not in parts]:
        raise ValueError(f"{path}: {len(bare)} of {len(examples)} examples have no picture: {listing(bare)}")
    rows = [_row(parts, f"{path}: {key}") for key, parts in examples.items()]
    return np.array(rows, np.int64).reshape(-1, len(_FIELDS))


def _row(parts: dict[str, Any], where: str) -> tuple[int, ...]:
    is_json = "txt" not in parts and "json" in parts and _told_caption(parts["json read"], where) is not None
    label = -1
    if "cls" in parts:
        try:
            label = int(parts["cls read"].decode())
        except ValueError:
            label = -1
        if label < 0:
            raise ValueError(f"{where}.cls is {parts['cls read'][:40]!r}: expected the number of a class")
    text = parts["json"] if is_json else parts.get("txt", (-1, -1))
    return (*parts["picture"], *text, int(is_json), label)


def _told_caption(content: bytes, where: str) -> str | None:
    """Returns the caption that a .json has, or None."""
    try:
        fields = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}.json is damaged: {error}") from error
    caption = (
        next((fields[name] for name in ("caption", "text") if name in fields), None) if type(fields) is dict else None
    )
    return caption if isinstance(caption, str) else None


def _caption(content: bytes, is_json: int, where: str) -> str:
    try:
        text = (_told_caption(content, where) or "") if is_json else content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: its caption is not UTF-8: {content[:40]!r}") from error
    return " ".join(text.split())
