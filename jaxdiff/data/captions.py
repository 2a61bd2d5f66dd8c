r"""Finds the pictures of a folder with their captions or classes.

A folder, with all below it, has one of these forms:

    metadata.jsonl   lines {"file_name": "a/b.png", "text": "a red heart"}; 'caption' serves where there is no 'text',
                     and "hint": "c/d.png" (or "conditioning_image", "original_image") names a picture beside it
    metadata.csv     a header with the columns file_name and text (or caption), then a row for each picture
    captions.txt     lines NAME, a tab, CAPTION
    NAME.txt         beside each picture NAME.png, the caption
    class folders    no captions: a picture's class is the name of the folder that it lies in; its caption too, with
                     spaces for underscores

The first three may lie in any subfolder, or above those of the splits, and name pictures relative to it; they may name
a picture several times, and their other columns are not read. Class ids follow the sorted names. Text is UTF-8, or
UTF-16 with a byte order mark, with any line ends; several lines of a caption are joined by spaces. Files and folders
whose names begin with a dot are passed over. What else is left out is said.
"""

import csv
import io
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from jaxdiff.data.picture import SUFFIXES
from jaxdiff.data.text import listing, read_text

FORMS = "a metadata.jsonl, metadata.csv or captions.txt, a .txt beside each picture, or a subfolder for each class"
_TEXTS = (".txt", ".json", ".jsonl", ".csv", ".md")
_SPLITS = {"train", "test", "val", "valid", "validation"}

Rows = Iterator[tuple[int, object, object, object]]
_HINTS = ("hint", "conditioning_image", "original_image")
_REPEATED = re.compile(r"(\d+)_(.+)")


class Item(NamedTuple):
    """A picture, its caption, the number of its class (0 where there are none), and the picture named beside it."""

    path: Path
    caption: str
    label: int = 0
    hint: Path | None = None


class NoCaptionsError(ValueError):
    """A folder has pictures, and no caption for any of them."""


class Found(NamedTuple):
    """All pictures of a folder, sorted by path; the names of the classes, or none; and what a user should know."""

    items: list[Item]
    labels: tuple[str, ...]
    notes: list[str]


def find(folder: Path, root: Path | None = None) -> Found:
    """Finds the pictures of a folder; the module says in which forms.

    Args:
      folder: where to look.
      root: what has `folder` for one of its splits, if it is one; the classes are then those of all splits, and a file
        of captions may lie there.

    Raises:
      NoCaptionsError: if the folder has pictures and none of the forms.
      ValueError: if some captions are missing, or a file of captions is malformed; names file and line.
      OSError: if something cannot be read.
    """
    paths = files(folder)
    pictures = [path for path in paths if path.suffix.lower() in SUFFIXES]
    stems = {path.with_suffix("") for path in pictures}
    lists = [path for path in paths if path.name in _LISTS and path.with_suffix("") not in stems]
    if root and root != folder and not lists:  # one list for all splits
        lists = [root / name for name in _LISTS if (root / name).is_file()]
    if len(kinds := sorted({path.name for path in lists})) > 1:
        raise ValueError(f"{folder} has {' and '.join(kinds)}: keep one of them")
    texts = [path for path in paths if path.suffix.lower() == ".txt" and path not in lists]
    notes, labels = _unread(folder, paths, pictures), tuple[str, ...]()
    if lists:
        listed = (item for path in lists for item in _listed(path, _LISTS[path.name]))
        items = sorted(item for item in listed if folder in item.path.parents)
        named = {path for item in items for path in (item.path, item.hint)}
        if alone := sorted({*pictures} - named):
            notes.append(f"pictures in {folder} that {kinds[0]} does not name: {_names(folder, alone)}")
    elif not {path.with_suffix("") for path in texts} & stems and _are_classes(folder, pictures):
        labels = _classes(folder, root or folder)
        number = {name: i for i, name in enumerate(labels)}
        items = [Item(path, path.parent.name.replace("_", " "), number[path.parent.name]) for path in pictures]
    else:
        items = _beside(folder, pictures, texts)
        if alone := [path for path in texts if path.with_suffix("") not in stems]:
            notes.append(f"texts in {folder} that have no picture: {_names(folder, alone)}")
    if empty := [item.path for item in items if not item.caption]:
        notes.append(f"empty captions in {folder} ({len(empty)} of {len(items)}): {_names(folder, empty)}")
    return Found(items, labels, notes)


def repeated(items: list[Item]) -> list[Item]:
    """Returns pictures of folders called N_NAME so many times, as kohya's scripts do; a caption of such a name loses N.

    Raises:
      ValueError: if no folder is called so, or one says 0 times.
    """
    found, counts = [], set()
    for item in items:
        match = _REPEATED.fullmatch(item.path.parent.name)
        count, name = (int(match[1]), match[2].replace("_", " ")) if match else (1, "")
        if not count:
            raise ValueError(f"{item.path.parent} says 0 times: expected 1 or more, or put it elsewhere")
        bare = match is not None and item.caption == item.path.parent.name.replace("_", " ")
        found += [item._replace(caption=name) if bare else item] * count
        counts.add(match is not None)
    if True not in counts:
        raise ValueError("data.repeats is True, and no folder is called 10_NAME, for 10 times: leave it out")
    return found


def split_folder(folder: Path, split: str) -> Path:
    """Returns the folder of a split: of its name; or the whole for 'all', and for 'train' without a test split.

    Raises:
      ValueError: if there is no such split.
    """
    if Path(split).name == split and (folder / split).is_dir():
        return folder / split
    if split != "all" and (split != "train" or (folder / "test").is_dir()):
        raise ValueError(f"data.split is {split!r}: expected a folder of that name in {folder}, or 'all'")
    return folder


def files(folder: Path) -> list[Path]:
    """Returns all files under a folder, sorted, but those whose name, or a folder's on the way, begins with a dot.

    Raises:
      OSError: if a folder cannot be read.
    """
    found: list[Path] = []
    seen = set()

    def stop(error: OSError) -> None:
        raise error

    for place, folders, names in os.walk(folder, onerror=stop, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if (real := os.path.realpath(place)) in seen:  # a link back
            folders.clear()
            continue
        seen.add(real)
        found += [Path(place, name) for name in names if not name.startswith(".")]
    return sorted(found)


def _listed(path: Path, rows: Callable[[Path], Rows]) -> list[Item]:
    """Returns what a file of captions names."""
    items = []
    for number, name, caption, hint in rows(path):
        where = f"{path}, line {number}"
        if not isinstance(caption, str):
            raise ValueError(f"{where}: expected a caption in quotes, got {repr(caption)[:80]}")
        beside = None if hint is None else _picture(path, hint, where)
        items.append(Item(_picture(path, name, where), _one_line(caption, where), hint=beside))
    if not items:
        raise ValueError(f"{path} names no picture")
    return items


def _picture(path: Path, name: object, where: str) -> Path:
    """Returns the picture that a line names."""
    if not isinstance(name, str) or not name or "\0" in name:
        raise ValueError(f"{where}: expected the name of a file, got {repr(name)[:80]}")
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError(f"{where}: {name!r} is outside the folder: expected a name relative to it, without '..'")
    if not (path.parent / name).is_file():
        raise ValueError(f"{where}: there is no picture {path.parent / name}")
    return path.parent / name


def _json_lines(path: Path) -> Rows:
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            hint = next((row[name] for name in _HINTS if name in row), None)
            yield number, row["file_name"], row["text"] if "text" in row else row["caption"], hint
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(
                f'{path}, line {number}: expected {{"file_name": ..., "text": ...}}, got {line[:80]!r}'
            ) from error


def _table(path: Path) -> Rows:
    rows = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        header = next(rows, [])
        caption = "text" if "text" in header else "caption"
        if header.count("file_name") != 1 or header.count(caption) != 1:
            raise ValueError(
                f"{path}, line 1: expected a header with file_name and text, got {','.join(header)[:80]!r}"
            )
        for row in rows:
            if len(row) not in (0, len(header)):
                raise ValueError(f"{path}, line {rows.line_num}: {len(row)} columns, not the header's {len(header)}")
            if row:
                yield rows.line_num, row[header.index("file_name")], row[header.index(caption)], None
    except csv.Error as error:
        raise ValueError(f"{path}, line {rows.line_num}: {error}") from error


def _tabbed(path: Path) -> Rows:
    for number, line in enumerate(read_text(path).split("\n"), 1):
        name, tab, caption = line.partition("\t")
        if tab:
            yield number, name, caption, None
        elif line.strip():
            raise ValueError(f"{path}, line {number}: expected NAME, a tab, CAPTION, got {line[:80]!r}")


_LISTS: dict[str, Callable[[Path], Rows]] = {
    "metadata.jsonl": _json_lines,
    "metadata.csv": _table,
    "captions.txt": _tabbed,
}


def _beside(folder: Path, pictures: list[Path], texts: list[Path]) -> list[Item]:
    caption_of: dict[Path, Path] = {}
    for text in texts:
        if text.with_suffix("") in caption_of:
            raise ValueError(f"{caption_of[text.with_suffix('')]} and {text.name} are one caption: remove one")
        caption_of[text.with_suffix("")] = text
    if bare := [path for path in pictures if path.with_suffix("") not in caption_of]:
        raise (NoCaptionsError if len(bare) == len(pictures) else ValueError)(
            f"{len(bare)} of {len(pictures)} pictures in {folder} have no caption: {_names(folder, bare)}; expected "
            f"{FORMS}"
        )
    count = Counter(path.with_suffix("") for path in pictures)
    if twice := [path for path in pictures if count[path.with_suffix("")] > 1]:
        raise ValueError(f"pictures in {folder} share one caption: {_names(folder, twice)}; rename or remove some")
    texts = [caption_of[path.with_suffix("")] for path in pictures]
    return [Item(path, _one_line(read_text(text), str(text))) for path, text in zip(pictures, texts, strict=True)]


def _are_classes(folder: Path, pictures: list[Path]) -> bool:
    names = {path.parent.name for path in pictures}
    return bool(pictures) and all(path.parent != folder for path in pictures) and not names <= _SPLITS


def _classes(folder: Path, root: Path) -> tuple[str, ...]:
    """Returns the names of the folders that pictures of all splits lie in."""
    folders = {path.parent for path in files(root) if path.suffix.lower() in SUFFIXES} - {root, folder}
    return tuple(sorted({one.name for one in folders if folder == root or one.parent != root}))


def _one_line(text: str, where: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{where}: {text[error.start]!r} is half of a character: expected whole ones") from error
    return " ".join(line.strip() for line in text.split("\n") if line.strip())


def _unread(folder: Path, paths: list[Path], pictures: list[Path]) -> list[str]:
    """Says which kinds of files are left out."""
    other = Counter(
        path.suffix.lower() or path.name for path in {*paths} - {*pictures} if path.suffix.lower() not in _TEXTS
    )
    if not other:
        return []
    kinds = listing(f"{count} {suffix}" for suffix, count in sorted(other.items()))
    return [f"files in {folder} that are left out: {kinds}; pictures end in {', '.join(SUFFIXES)}"]


def _names(folder: Path, paths: list[Path]) -> str:
    return listing(path.relative_to(folder).as_posix() for path in paths)
