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


class FolderSource:
    """Pictures under a folder, sorted by path, with their captions; label 0 for all.

    `metadata.jsonl` has a line a picture: {"file_name": "a/b.png", "text": "a red heart"}, or 'caption' for 'text'.
    Without it, every picture has its caption in a file of the same name that ends in .txt.

    Every picture is decoded once at opening. A damaged one is named in a warning, left out, and listed in `skipped`;
    what was found sound is written to a file in the folder, so that the next opening checks only what changed.

    Raises:
      ValueError: if there is no such split, a picture or caption is missing, or metadata.jsonl is not as above.
      RuntimeError: if more than 1% of the pictures are damaged; it lists them.
    """

    labels: tuple[str, ...] = ()

    def __init__(self, config: DataConfig):
        self._folder = _split_folder(Path(config.name).expanduser(), config.split)
        self._size = config.size
        found = _from_metadata(self._folder) or _from_text_files(self._folder)
        self.skipped = _damaged(self._folder, list(found))
        for name, why in self.skipped.items():
            logging.getLogger(__name__).warning("skipping %s: %s", self._folder / name, why)
        if len(self.skipped) > _MOST_DAMAGED * len(found):
            listing = "\n".join(f"  {self._folder / name}: {why}" for name, why in self.skipped.items())
            raise RuntimeError(
                f"{len(self.skipped)} of {len(found)} pictures in {self._folder} are damaged, more than 1%; "
                f"mend or remove them:\n{listing}"
            )
        self._items = [(name, caption) for name, caption in found.items() if name not in self.skipped]

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Example:
        name, caption = self._items[index]
        return Example(image=picture.decode(self._folder / name, self._size), caption=caption, label=0)

    def captions(self) -> list[str]:
        """All captions in order."""
        return [caption for _, caption in self._items]


def _split_folder(folder: Path, split: str) -> Path:
    if (folder / split).is_dir():
        return folder / split
    if split not in ("train", "all"):
        raise ValueError(f"data.split is {split!r}: expected a folder of that name in {folder}")
    return folder


def _from_metadata(folder: Path) -> dict[str, str]:
    """File name -> caption, sorted by name; empty if there is no metadata.jsonl."""
    path = folder / "metadata.jsonl"
    found = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines() if path.exists() else (), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            name, caption = row["file_name"], row["text"] if "text" in row else row["caption"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(
                f'{path}, line {number}: expected {{"file_name": ..., "text": ...}}, got {line[:80]!r}'
            ) from error
        if not (folder / name).is_file():
            raise ValueError(f"{path}, line {number}: there is no picture {folder / name}")
        found[name] = caption
    return dict(sorted(found.items()))


def _from_text_files(folder: Path) -> dict[str, str]:
    pictures = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
    bare = [str(path) for path in pictures if not path.with_suffix(".txt").is_file()]
    if bare:
        raise ValueError(
            f"{len(bare)} of {len(pictures)} pictures have no caption: expected a .txt beside each, or a "
            f"metadata.jsonl in {folder}; without one: {', '.join(bare[:5])}"
        )
    return {
        path.relative_to(folder).as_posix(): path.with_suffix(".txt").read_text(encoding="utf-8").strip()
        for path in pictures
    }


def _damaged(folder: Path, names: list[str]) -> dict[str, str]:
    """File name -> what is wrong with it, for those that do not decode."""
    file = folder / _CHECKED
    stamps = {name: [(stat := (folder / name).stat()).st_size, stat.st_mtime_ns] for name in names}
    known = {}
    with contextlib.suppress(OSError, json.JSONDecodeError):
        known = json.loads(file.read_text())

    def check(name: str) -> str | None:
        if known.get(name) == stamps[name]:
            return None
        try:
            picture.decode(folder / name, 1)
        except OSError as error:
            return str(error) or type(error).__name__
        return None

    with ThreadPoolExecutor() as pool:
        damaged = {name: why for name, why in zip(names, pool.map(check, names), strict=True) if why}
    sound = {name: stamp for name, stamp in stamps.items() if name not in damaged}
    if sound != known:
        with contextlib.suppress(OSError):  # a folder that cannot be written is checked anew each time
            part = file.with_suffix(f".{os.getpid()}")
            part.write_text(json.dumps(sound))
            part.replace(file)
    return damaged
