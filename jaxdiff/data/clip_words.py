"""The rules of CLIP's tokenizer that need no vocabulary: how text is split, and how pairs of tokens are merged.

Source: Radford et al. 2021, arXiv 2103.00020, section 2.4, and its released code.
"""

import heapq
import itertools
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping

START, END = "<|startoftext|>", "<|endoftext|>"
_WHOLE = (START, END, "'s", "'t", "'re", "'ve", "'m", "'ll", "'d")
_SPACES = frozenset([*"\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000", *map(chr, range(0x2000, 0x200B))])
_SPACE_RUN = re.compile("[" + "".join(sorted(_SPACES)) + "]+")


def words(text: str) -> Iterator[str]:
    """Splits a text into the pieces that are encoded by themselves."""
    text = unicodedata.normalize("NFC", text)
    text = "".join(letter.lower() for letter in _SPACE_RUN.sub(" ", text))  # 'ΣΑΣ' becomes 'σασ', not 'σας'
    start = 0
    while start < len(text):
        special = next((w for w in _WHOLE if text.startswith(w, start)), None)
        of, end = kind(text[start]), start + 1
        if special:
            end = start + len(special)
        elif of in "LO":
            while end < len(text) and kind(text[end]) == of:
                end += 1
        if special in (START, END):  # lower case made it look like one; the reference splits it by kind once more
            yield from ("<|", special[2:-2], "|>")
        elif of != "Z":
            yield text[start:end]
        start = end


def kind(letter: str) -> str:
    """Returns the kind of a character: L for letters, N for numbers, Z for white space, O for others."""
    if letter in _SPACES:
        return "Z"
    category = unicodedata.category(letter)[0]
    return category if category in "LN" else "O"


def letters(word: str) -> list[str]:
    """Writes a word as its bytes, one printable letter each, the last with `</w>`."""
    parts = [LETTER[b] for b in word.encode(errors="replace")]
    return [*parts[:-1], parts[-1] + "</w>"]


def merge(parts: list[str], rank: Mapping[tuple[str, str], int]) -> list[str]:
    """Joins adjacent parts, always the pair of the lowest rank and of those the first, until no pair has a rank.

    The work grows as n log n: a heap holds the pairs, some of them outdated since a neighbour has been joined.
    """
    parts, after, before = [*parts], [*range(1, len(parts) + 1)], [*range(-1, len(parts) - 1)]
    heap: list[tuple[int, int, tuple[str, str]]] = []

    def offer(i: int) -> None:
        if i >= 0 and after[i] < len(parts) and (pair := (parts[i], parts[after[i]])) in rank:
            heapq.heappush(heap, (rank[pair], i, pair))

    for i in range(len(parts) - 1):
        offer(i)
    while heap:
        _, i, pair = heapq.heappop(heap)
        j = after[i]
        if j == len(parts) or (parts[i], parts[j]) != pair:
            continue
        parts[i], parts[j], after[i] = pair[0] + pair[1], "", after[j]
        if after[i] < len(parts):
            before[after[i]] = i
        offer(before[i])
        offer(i)
    return [part for part in parts if part]


def spell(parts: Iterable[str]) -> str:
    """Writes tokens as text again."""
    text = "".join(parts).replace("</w>", " ").strip()
    return b"".join(bytes([_BYTE[c]]) if c in _BYTE else c.encode(errors="replace") for c in text).decode(
        errors="ignore"
    )


def _letters() -> list[str]:
    """Returns a printable letter for each byte: itself where it is printable, else one from U+0100 on."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = itertools.count(256)
    return [chr(b) if b in printable else chr(next(others)) for b in range(256)]


LETTER = _letters()
"""The letter that stands for each byte."""
_BYTE = {letter: b for b, letter in enumerate(LETTER)}
