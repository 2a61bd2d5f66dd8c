"""The file labels.txt of a run: the names of its classes, one a line, in the order of their ids."""

from collections.abc import Sequence
from pathlib import Path

from jaxdiff.data.text import listing, read_text, write_text


def write(path: Path | str, labels: Sequence[str]) -> None:
    """Writes the names, whole or not at all.

    Raises:
      ValueError: if a name is empty, has a line break, or comes twice.
    """
    _check(labels, f"cannot write {path}")
    write_text(path, "\n".join(labels))


def read(path: Path | str, count: int | None = None) -> tuple[str, ...]:
    """Reads what `write` wrote.

    Args:
      path: the file.
      count: how many classes the model has; None does not ask.

    Raises:
      ValueError: if the file is damaged or has another number of names; says which file.
      FileNotFoundError: if there is none.
    """
    labels = tuple(read_text(Path(path)).removesuffix("\n").split("\n"))
    _check(labels, f"{path} is damaged")
    if count is not None and len(labels) != count:
        raise ValueError(
            f"{path} has {len(labels)} class names, the model {count} classes: the file is cut off or of another run"
        )
    return labels


def _check(labels: Sequence[str], what: str) -> None:
    if not labels or not all(name.strip() and name.splitlines() == [name] for name in labels):
        raise ValueError(f"{what}: expected class names, one a line, none of them empty")
    if len({*labels}) < len(labels):
        twice = sorted({name for name in labels if list(labels).count(name) > 1})
        raise ValueError(f"{what}: class names come twice: {listing(twice)}")
