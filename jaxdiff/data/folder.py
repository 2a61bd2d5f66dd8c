"""A folder of pictures with captions: `metadata.jsonl`, or `NAME.txt` beside `NAME.png`."""

import contextlib
import json
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from jaxdiff.data import picture
from jaxdiff.data.source import DataConfig, Example

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_CHECKED = ".jaxdiff-checked.json"
_MOST_DAMAGED = 0.01

Items = list[tuple[Path, str]]


class FolderSource:
    """Pictures under a folder, sorted by path, with their captions; label 0 for all.

    A line of `metadata.jsonl` is {"file_name": "a/b.png", "text": "a red heart"}, or 'caption' for 'text', with names
    relative to that file. Without it, every picture has its caption in a file of its name that ends in .txt.

    Every picture is decoded once at opening. Damaged ones are named in a warning, left out, and listed in `skipped`;
    what was found sound is noted in a file in the folder, so that the next opening checks only what changed.

    Attributes:
      skipped: damaged picture -> what is wrong with it.

    Raises:
      ValueError: if there is no such split, a picture or caption is missing, metadata.jsonl is not as above, or more
        than 1% of the pictures are damaged, which are then listed.
    """

    labels: tuple[str, ...] = ()

    def __init__(self, config: DataConfig):
        folder = _split_folder(Path(config.name).expanduser(), config.split)
        items = _from_metadata(folder) or _from_text_files(folder)
        self.skipped = _damaged(folder, sorted({path for path, _ in items}))
        if self.skipped:
            listing = "\n".join(f"  {why}" for why in self.skipped.values())
            report = f"{len(self.skipped)} of {len(items)} pictures in {folder} are damaged"
            if len(self.skipped) > _MOST_DAMAGED * len(items):
                raise ValueError(f"{report}, more than 1%; mend or remove them:\n{listing}")
            logging.getLogger(__name__).warning("%s and skipped:\n%s", report, listing)
        self._items = [(path, caption) for path, caption in items if path not in self.skipped]
        self._size = config.size

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Example:
        path, caption = self._items[index]
        return Example(image=picture.decode(path, self._size), caption=caption, label=0)

    def captions(self) -> list[str]:
        """All captions in order."""
        return [caption for _, caption in self._items]


def _split_folder(folder: Path, split: str) -> Path:
    if (folder / split).is_dir():
        return folder / split
    if split != "all" and (split != "train" or (folder / "test").is_dir()):
        raise ValueError(f"data.split is {split!r}: expected a folder of that name in {folder}")
    return folder


def _from_metadata(folder: Path) -> Items:
    items = []
    for metadata in folder.rglob("metadata.jsonl"):
        for number, line in enumerate(_text(metadata).split("\n"), 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                caption = row["text"] if "text" in row else row["caption"]
                path = metadata.parent / row["file_name"]
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f'{metadata}, line {number}: expected {{"file_name": ..., "text": ...}}, got {line[:80]!r}'
                ) from error
            if not isinstance(caption, str):
                raise ValueError(f"{metadata}, line {number}: expected a caption in quotes, got {caption!r}")
            if not path.is_file():
                raise ValueError(f"{metadata}, line {number}: there is no picture {path}")
            items.append((path, caption))
    return sorted(items)


def _from_text_files(folder: Path) -> Items:
    pictures = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
    bare = [str(path) for path in pictures if not path.with_suffix(".txt").is_file()]
    if bare:
        raise ValueError(
            f"{len(bare)} of {len(pictures)} pictures have no caption: expected a .txt beside each, or a "
            f"metadata.jsonl in {folder}; without one: {', '.join(bare[:5])}"
        )
    return [(path, _text(path.with_suffix(".txt")).strip()) for path in pictures]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: {error}") from error


def _damaged(folder: Path, paths: list[Path]) -> dict[Path, str]:
    """What is wrong with those pictures that do not decode."""
    file = folder / _CHECKED
    names = {path: os.path.relpath(path, folder) for path in paths}
    stamps = {path: [path.stat().st_size, path.stat().st_mtime_ns] for path in paths}
    known = {}
    with contextlib.suppress(OSError, ValueError):
        known = json.loads(file.read_text())

    def complaint(path: Path) -> str | None:
        if known.get(names[path]) == stamps[path]:
            return None
        try:
            picture.decode(path, 1)
        except OSError as error:
            return str(error)
        return None

    with ThreadPoolExecutor() as pool:
        damaged = {path: why for path, why in zip(paths, pool.map(complaint, paths), strict=True) if why}
    sound = {names[path]: stamps[path] for path in paths if path not in damaged}
    if sound != known:
        with contextlib.suppress(OSError):  # a folder that cannot be written to is checked anew each time
            part = file.with_suffix(f".{os.getpid()}")
            part.write_text(json.dumps(sound))
            part.replace(file)
    return damaged
