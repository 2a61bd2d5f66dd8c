"""Random text and its ids by transformers' CLIPTokenizer (5.24), with the vocabulary of sd_tokenizer.npz.

    python tests/reference/sd_tokenizer_odd.py

Letters, signs, emoji and control characters of all planes (those that Unicode 3.2 has, so that no later table matters),
among pieces that the rules treat apart. Writes sd_tokenizer_odd.npz: the texts and the ids.
"""

import json
import pathlib
import random
import unicodedata

import numpy as np
from transformers import CLIPTokenizer

HERE = pathlib.Path(__file__)
KNOWN = [chr(c) for c in range(0x110000) if unicodedata.ucd_3_2_0.category(chr(c)) not in ("Cn", "Cs", "Co")]
PIECES = [
    "<|endoftext|>",
    "<|startoftext|>",
    "<|END",
    "'s",
    "'S",
    "'ll",
    "n't",
    "a\u0301",
    "İ",
    "ΣΑΣ",
    "ß",
    "ﬁ",
    "Ⅷ",
    "½",
    "  ",
]


def text(rng):
    kind = rng.randrange(4)
    if kind == 0:
        return "".join(rng.choice(KNOWN) for _ in range(rng.randrange(1, 40)))
    if kind == 1:
        return "".join(chr(rng.randrange(256)) for _ in range(rng.randrange(1, 60)))
    if kind == 2:
        return "".join(rng.choice([*PIECES, rng.choice(KNOWN), chr(rng.randrange(128))]) for _ in range(20))
    return rng.choice("abcxyz") * rng.randrange(1, 3000)


def main():
    rng = random.Random(0)
    saved = np.load(HERE.with_name("sd_tokenizer.npz"))
    lines = bytes(saved["merges"]).decode().split("\n")[1:-1]
    tokenizer = CLIPTokenizer(vocab=json.loads(bytes(saved["vocab"])), merges=[tuple(x.split(" ")) for x in lines])
    texts = [text(rng) for _ in range(400)]
    ids = [tokenizer(one)["input_ids"] for one in texts]
    print(len(texts), "texts", sum(map(len, ids)), "ids, longest", max(map(len, ids)))
    np.savez_compressed(
        HERE.with_name("sd_tokenizer_odd.npz"),
        texts=np.frombuffer(json.dumps(texts).encode(), np.uint8),
        ids=np.concatenate([np.array(row, np.uint16) for row in ids]),
        lengths=np.array([len(row) for row in ids], np.uint16),
    )


if __name__ == "__main__":
    main()
