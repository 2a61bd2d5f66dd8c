"""Parquet files with encoded pictures in a column, as data sets on the Hugging Face hub are.

The picture is the column `image`, or the first of its kind: bytes, or a struct with the field `bytes`. The caption is a
column of text called caption, text, description or title; the class a column of whole numbers called label, class or
cls, whose names the hub writes into the file's metadata. A group of rows is read whole where one of its rows is wanted,
and the last ones stay in memory: groups of about 100 pictures, as the hub makes them, are read fast.
"""

import json
import logging
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from jaxdiff.data.shards import Files, ShardSource, class_names
from jaxdiff.data.text import listing

_CAPTIONS = ("caption", "text", "description", "title")
_LABELS = ("label", "class", "cls")
_KEPT_BYTES = 512 * 2**20
_LARGE = 64 * 2**20


class _Group(NamedTuple):
    path: str
    number: int  # among the groups of the file
    metadata: Any  # the file's


class ParquetSource(ShardSource):
    """Pictures, captions and classes of parquet files.

    Raises:
      ValueError: if a file is damaged, has no column of pictures, or other columns than the first.
    """

    def __init__(self, files: Files, size: int):
        super().__init__(size)
        self._files, self._lock = files, threading.Lock()
        with ThreadPoolExecutor() as pool:
            footers = list(pool.map(self._footer, files.paths))
        schema = footers[0].schema.to_arrow_schema()
        self._image, self._text, self._class = _columns(schema, files.paths[0])
        read = [name for name in (self._image, self._text, self._class) if name]
        self._columns = [name for name in read if name != self._class]
        for path, footer in zip(files.paths, footers, strict=True):
            own = footer.schema.to_arrow_schema()
            if differ := [n for n in read if n not in own.names or own.field(n).type != schema.field(n).type]:
                raise ValueError(f"{path} has not the columns of {files.paths[0]}: {listing(differ)} differs")
        self._groups = [
            _Group(path, number, footer)
            for path, footer in zip(files.paths, footers, strict=True)
            for number in range(footer.num_row_groups)
        ]
        sizes = [group.metadata.row_group(group.number) for group in self._groups]
        self._ends = np.cumsum([0, *(one.num_rows for one in sizes)])[1:]
        if sizes and (largest := max(one.total_byte_size for one in sizes)) > _LARGE:
            logging.getLogger(__name__).warning(
                "%s has groups of rows of %d MiB, one of which is read for each picture: write it with row_group_size "
                "100, or as tars, to read it faster",
                files.name,
                largest >> 20,
            )
        self._kept: OrderedDict[int, Any] = OrderedDict()
        if self._class:
            classes = self._column(self._class)
            if None in classes:
                raise ValueError(f"{self._name(classes.index(None))} has no {self._class}: expected a number")
            self._classes = np.array(classes, np.int32)
            numbers = class_names(self._classes, files.name) if classes else ()
            self.labels = _told_names(schema, self._class) or numbers
            if len(numbers) > len(self.labels):
                raise ValueError(f"{files.name} names {len(self.labels)} classes, and has one of {numbers[-1]}")
        if not (self._text or self.labels):
            logging.getLogger(__name__).warning("%s has no captions and no classes: all captions are ''", files.name)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def encoded(self, index: int) -> tuple[bytes, str]:
        """Returns a picture as its file has it, and what errors call it."""
        value, name = self._value(index, self._image), self._name(index)
        content = value.get("bytes") if isinstance(value, dict) else value
        if not content:
            other = value.get("path") if isinstance(value, dict) else None
            beside = f", but names a file, {other}" if other else ""
            raise OSError(f"{name} has no picture in column {self._image}{beside}: write its bytes into the data set")
        return content, name

    def caption(self, index: int) -> str:
        """Returns the caption of an example; where there are none, the name of its class."""
        if not self._text:
            return self.labels[self.label(index)].replace("_", " ") if self.labels else ""
        return self._checked(self._value(index, self._text), index)

    def label(self, index: int) -> int:
        """Returns the number of an example's class."""
        return int(self._classes[index]) if self._class else 0

    def captions(self) -> list[str]:
        """Returns all captions in order, of which alone the column is read."""
        if self._text:
            return [self._checked(text, i) for i, text in enumerate(self._column(self._text))]
        return super().captions()

    def _checked(self, text: str | None, index: int) -> str:
        if text is None:
            raise ValueError(f"{self._name(index)} has no {self._text}: expected a text, which may be empty")
        return " ".join(text.split())

    def _find(self, index: int) -> tuple[int, int]:
        group = int(np.searchsorted(self._ends, index, "right"))
        return group, index - int(self._ends[group - 1] if group else 0)

    def _name(self, index: int) -> str:
        group, row = self._find(index)
        return f"{self._groups[group].path}, group {self._groups[group].number}, row {row}"

    def _value(self, index: int, column: str) -> Any:
        group, row = self._find(index)
        with self._lock:
            table = self._kept.get(group)
            if table is None:
                table = self._kept[group] = self._read(group, self._columns)
                while len(self._kept) > 1 and sum(one.nbytes for one in self._kept.values()) > _KEPT_BYTES:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(group)
        return table[column][row].as_py()

    def _column(self, name: str) -> list[Any]:
        return [value for i in range(len(self._groups)) for value in self._read(i, [name])[name].to_pylist()]

    def _read(self, group: int, columns: list[str]) -> Any:
        import pyarrow
        import pyarrow.parquet

        path, number, metadata = self._groups[group]
        try:
            with self._files.open(path) as file, pyarrow.parquet.ParquetFile(file, metadata=metadata) as opened:
                return opened.read_row_group(number, columns=columns, use_threads=False)
        except (pyarrow.ArrowException, OSError) as error:
            raise OSError(f"{path}, group {number} is damaged: {_one_line(error)}") from error

    def _footer(self, path: str) -> Any:
        import pyarrow
        import pyarrow.parquet

        try:
            with self._files.open(path) as file:
                return pyarrow.parquet.read_metadata(file)
        except (pyarrow.ArrowException, EOFError) as error:
            raise ValueError(f"{path} is no parquet, or damaged: {_one_line(error)}") from error


def _columns(schema: Any, path: str) -> tuple[str, str | None, str | None]:
    """Returns the columns of picture, caption and class."""
    from pyarrow import types

    def is_picture(kind: Any) -> bool:
        inner = kind.field("bytes").type if types.is_struct(kind) and kind.get_field_index("bytes") >= 0 else kind
        return types.is_binary(inner) or types.is_large_binary(inner)

    pictures = [field.name for field in schema if is_picture(field.type)]
    if not pictures:
        kinds = listing(f"{field.name} ({field.type})"[:60] for field in schema)
        raise ValueError(f"{path} has no column of encoded pictures (bytes, or a struct with bytes): it has {kinds}")
    is_text = lambda kind: types.is_string(kind) or types.is_large_string(kind)
    named = lambda names, kind: next((n for n in names if n in schema.names and kind(schema.field(n).type)), None)
    image = "image" if "image" in pictures else pictures[0]
    return image, named(_CAPTIONS, is_text), named(_LABELS, types.is_integer)


def _told_names(schema: Any, column: str) -> tuple[str, ...]:
    """Returns the names of the classes that the hub writes beside the columns."""
    try:
        names = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][column]["names"]
    except (KeyError, TypeError, ValueError):
        return ()
    return tuple(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else ()


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
