"""The SHA-256 of every file of a checkpoint, so that damage is found before anything is read.

The manifest is one of the checkpoint's files, in the form of `sha256sum`, which can check it too.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from jaxdiff.training import workdir

NAME = "manifest.sha256"
UNLISTED = {NAME, "_CHECKPOINT_METADATA", "commit_success.txt"}
"""Files at the top that are not listed: Orbax adds the last two after the manifest, and nothing is read from them."""


class DamagedError(OSError):
    """A checkpoint is not what was written; the message names its damaged files."""


def write(folder: Path) -> None:
    """Writes the manifest of a folder that is complete."""
    names = sorted(_files(folder))
    with _pool() as pool:
        digests = pool.map(lambda name: _digest(folder / name), names)
        workdir.replace(folder / NAME, "".join(f"{d}  {name}\n" for d, name in zip(digests, names, strict=True)))


def check(folder: Path, under: str = "") -> bool:
    """Compares the files of a checkpoint with its manifest.

    Args:
      folder: the checkpoint.
      under: look only at files whose name begins so, `ema_params/`.

    Returns:
      False if there is no manifest: runs made before there was one are not checked.

    Raises:
      DamagedError: if a file is missing, changed or unreadable, or the manifest itself is damaged.
    """
    try:
        text = (folder / NAME).read_bytes().decode()
    except FileNotFoundError:
        return False
    except (OSError, UnicodeDecodeError) as error:
        raise DamagedError(
            f"the checkpoint {folder} is damaged ({NAME} cannot be read: {first_line(error)})"
        ) from error
    expected = {name: digest for digest, _, name in (line.partition("  ") for line in text.splitlines())}
    found = set(_files(folder))
    faults = {
        "missing": expected.keys() - found,
        f"not in {NAME}": found - expected.keys(),
    }
    names = sorted(name for name in expected.keys() & found if name.startswith(under))
    with _pool() as pool:
        digests = pool.map(lambda name: _digest(folder / name), names)
        faults["changed"] = {n for n, digest in zip(names, digests, strict=True) if digest != expected[n]}
    if any(faults.values()):
        lists = "; ".join(f"{what}: {listed(names)}" for what, names in faults.items() if names)
        raise DamagedError(f"the checkpoint {folder} is damaged ({lists})")
    return True


def listed(names: Iterable[str], most: int = 10) -> str:
    """Returns the first names in order, and how many more there are."""
    names = sorted(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def first_line(error: BaseException) -> str:
    """Returns the beginning of an error's message, or its kind if it has none: others' errors may fill pages."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:1000]


def _files(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name not in UNLISTED and not path.name.startswith("."):
            yield name


def _digest(path: Path) -> str:
    """Returns the SHA-256 of a file, or why it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return str(error)


def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(8, os.cpu_count() or 1))
