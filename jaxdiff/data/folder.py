"""A folder of pictures with captions or classes, in one of the forms of `data.captions`."""

import contextlib
import json
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from jaxdiff.data import captions, picture
from jaxdiff.data.config import DataConfig, Example
from jaxdiff.data.text import listing, write_text

_CHECKED = ".jaxdiff-checked.json"
_FORMAT = 2  # of that file, and of what `picture.decode` takes for sound
_MOST_DAMAGED = 0.01


class FolderSource:
    """Pictures under a folder, sorted by path, with the captions and classes that `captions.find` finds.

    Every picture is decoded once at opening. Damaged ones are named in a warning, left out, and listed in `skipped`;
    what was found sound is noted in a file in the folder, so that the next opening checks only what changed. Files
    that are left out, texts without a picture and empty captions are named in warnings too.

    Attributes:
      labels: the names of the classes; empty where pictures have captions.
      skipped: damaged picture -> what is wrong with it.

    Raises:
      ValueError: if there is no such split, the folder has none of the forms, a caption is missing or malformed, or
        more than 1% of the pictures are damaged; names them.
    """

    def __init__(self, config: DataConfig):
        root = Path(os.path.expanduser(config.name))
        folder = captions.split_folder(root, config.split)
        found = captions.find(folder, root)
        paths = sorted({item.path for item in found.items})
        self.labels = found.labels
        self.skipped, several = _check(folder, paths)
        log = logging.getLogger(__name__)
        for note in found.notes:
            log.warning("%s", note)
        if several:
            names = listing(path.name for path in several)
            log.warning("files in %s that hold several pictures, of which the first is taken: %s", folder, names)
        if self.skipped:
            report = f"{len(self.skipped)} of {len(paths)} pictures in {folder} are damaged"
            reasons = "; ".join(list(self.skipped.values())[:10]) + ("; ..." if len(self.skipped) > 10 else "")
            if len(self.skipped) > _MOST_DAMAGED * len(paths):
                raise ValueError(f"{report}, more than 1%; mend or remove them: {reasons}")
            log.warning("%s and skipped: %s", report, reasons)
        self._items = [item for item in found.items if item.path not in self.skipped]
        self._items = captions.repeated(self._items) if config.repeats else self._items
        self._size = config.size
        self._names = [os.path.relpath(item.path, folder) for item in self._items]

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Example:
        return self.shaped(index, self._size, self._size)

    def shaped(self, index: int, height: int, width: int) -> Example:
        """Returns an example whose picture is scaled and cut to another shape."""
        path, caption, label, hint = self._items[index]
        image = picture.decode(path, (height, width))
        one = Example(image=image, caption=caption, label=label, sides=self.sides(index), name=self.names()[index])
        return one if hint is None else Example(**one, hint=str(hint))

    def sides(self, index: int) -> tuple[int, int]:
        """Returns height and width of a picture as it is."""
        look = picture.look(self._items[index].path)
        return look.height, look.width

    def names(self) -> list[str]:
        """Returns the paths of all pictures below the folder, in order."""
        return self._names

    def hints(self) -> list[Path | None]:
        """Returns the picture that metadata.jsonl names beside each, in order."""
        return [item.hint for item in self._items]

    def captions(self) -> list[str]:
        """Returns all captions in order."""
        return [item.caption for item in self._items]


def _check(folder: Path, paths: list[Path]) -> tuple[dict[Path, str], list[Path]]:
    """Returns what is wrong with those pictures that do not decode, and which files hold several pictures."""
    file = folder / _CHECKED
    names = {path: os.path.relpath(path, folder) for path in paths}
    stamps = {path: [path.stat().st_size, path.stat().st_mtime_ns] for path in paths}
    known = _known(file)

    def look(path: Path) -> str | bool:
        """Returns what is wrong, or whether the file holds several pictures."""
        *stamp, several = known.get(names[path], [None])
        if stamp == stamps[path]:
            return several
        try:
            picture.decode(path, 1)
            return picture.look(path).several
        except OSError as error:
            return str(error)

    with ThreadPoolExecutor() as pool:
        seen = dict(zip(paths, pool.map(look, paths), strict=True))
    damaged = {path: why for path, why in seen.items() if isinstance(why, str)}
    sound = {names[path]: [*stamps[path], several] for path, several in seen.items() if path not in damaged}
    if sound != known:
        with contextlib.suppress(OSError):  # a folder that cannot be written to is checked anew each time
            write_text(file, json.dumps({"format": _FORMAT, "sound": sound}))
    return damaged, [path for path, several in seen.items() if several is True]


def _known(file: Path) -> dict[str, list[Any]]:
    """Returns the sound pictures of the last check; none if it was never made or its file is damaged."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        saved = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(saved, dict) and saved.get("format") == _FORMAT and isinstance(saved.get("sound"), dict):
            return {
                name: entry for name, entry in saved["sound"].items() if isinstance(entry, list) and len(entry) == 3
            }
    return {}
