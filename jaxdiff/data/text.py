"""Text files that others wrote, and small files of our own, written whole or not at all."""

import codecs
import os
from collections.abc import Iterable
from pathlib import Path

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, ""),  # before UTF-16's, which it begins with
    (codecs.BOM_UTF32_BE, ""),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def read_text(path: Path) -> str:
    r"""Reads a text file: UTF-8, with or without a byte order mark, or UTF-16 with one.

    The mark is dropped, and each of the line ends \r\n, \r and \n becomes \n.

    Raises:
      ValueError: if the file is in another encoding; names it and says what to do.
      OSError: if the file cannot be read.
    """
    data = path.read_bytes()
    mark, encoding = next((pair for pair in _MARKS if data.startswith(pair[0])), (b"", "utf-8"))
    if not encoding:
        raise ValueError(f"{path} is UTF-32: save it as UTF-8")
    try:
        text = data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        at = error.start + len(mark)
        raise ValueError(
            f"{path} is not {encoding.upper()}: byte {at} is {data[at]:#04x}; save it as UTF-8 (UTF-16 needs a byte "
            "order mark)"
        ) from error
    if "\0" in text:
        raise ValueError(f"{path} holds NUL characters: save it as UTF-8 (UTF-16 needs a byte order mark)")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def write_text(path: Path | str, text: str) -> None:
    """Writes a file as UTF-8, whole or not at all: another process sees the old one or the new one, never a part.

    Raises:
      OSError: if the file cannot be written.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def listing(names: Iterable[object], most: int = 10) -> str:
    """Lists names in one line: at most `most` of them, and how many more there are."""
    texts = [str(name) for name in names]
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")
