r"""Prompts for CLIP: words that count more or less, and prompts longer than one text of the encoder.

`(a red hat:1.3)` weighs the words in it by 1.3; weights inside one another multiply. A weight is written in decimal
digits, with a sign and a point where wanted (`-.5`); anything else after a colon, as `nan` or `1e3`, is text.
Parentheses without a weight, or without their partner, mean themselves, as do `\(` and `\)`. A prompt is cut into
chunks of as many tokens as the encoder takes, each with a start and an end of its own; their states lie one after
another in the context of the U-Net's cross-attention.
"""

import itertools
import re
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxdiff.data.tokenizer_clip import ClipTokenizer

_PIECE = re.compile(r"\\[()]|\(|\)|:\s*[+-]?(?:\d+(?:\.\d*)?|\.\d+)\s*\)|[^\\():]+|.", re.DOTALL)


class Encoded(NamedTuple):
    """A prompt in chunks.

    Attributes:
      tokens: ids of each chunk.
      weights: how much each token counts; 1 for start, end and padding.
    """

    tokens: Int[np.ndarray, "n l"]
    weights: Float[np.ndarray, "n l"]


def parse(prompt: str) -> list[tuple[str, float]]:
    """Returns the parts of a prompt with their weights; together, without the notation, they are the prompt.

    Raises:
      ValueError: if weights inside one another multiply to more than a float32 holds.
    """
    pieces = _PIECE.findall(prompt)
    opened: list[int] = []
    factors: dict[int, float] = {}  # by the piece that opens what they weigh: until a weight closes it, it is a letter
    closing: set[int] = set()
    for n, piece in enumerate(pieces):
        if piece == "(":
            opened.append(n)
        elif piece[0] == ":" and piece[-1] == ")" and opened:
            factors[opened.pop()] = float(piece[1:-1])
            closing.add(n)
        elif piece == ")" and opened:
            opened.pop()
    parts, weights = list[tuple[str, float]](), [1.0]
    for n, piece in enumerate(pieces):
        if n in factors:
            weights.append(weights[-1] * factors[n])
            if not abs(weights[-1]) <= float(np.finfo(np.float32).max):
                raise ValueError(f"the prompt weighs a part of it by {factors[n]:g}, {weights[-1]:g} in all: too much")
        elif n in closing:
            weights.pop()
        else:
            parts.append((piece.removeprefix("\\") if piece[1:] in ("(", ")") else piece, weights[-1]))
    groups = itertools.groupby(parts, key=lambda part: part[1])
    return [("".join(text for text, _ in group), weight) for weight, group in groups]


def encode(tokenizer: ClipTokenizer, prompt: str, chunks: int = 1, length: int = 77) -> Encoded:
    """Returns tokens and weights of a prompt in `chunks` chunks of `length` tokens.

    What exceeds them is cut (see `cut`).

    Raises:
      ValueError: if `chunks` is below 1.
    """
    if chunks < 1:
        raise ValueError(f"chunks is {chunks}: expected at least 1 chunk of {length} tokens")
    frame, room = tokenizer.encode("", length), length - 2
    ids, weights = list[int](), list[float]()
    for text, weight in parse(prompt):
        found = tokenizer.tokens(text)
        ids += found
        weights += [weight] * len(found)
    encoded = Encoded(np.tile(frame, (chunks, 1)), np.ones((chunks, length), np.float32))
    for n in range(chunks):
        part = ids[n * room : (n + 1) * room]
        encoded.tokens[n, 1 : 2 + len(part)] = [*part, frame[1]]
        encoded.weights[n, 1 : 1 + len(part)] = weights[n * room : n * room + len(part)]
    return encoded


def cut(tokenizer: ClipTokenizer, prompt: str, chunks: int = 1, length: int = 77) -> str:
    """Returns the end of a prompt that `encode` cuts off, '' if all fits."""
    return tokenizer.cut("".join(text for text, _ in parse(prompt)), chunks * (length - 2) + 2)[1]
