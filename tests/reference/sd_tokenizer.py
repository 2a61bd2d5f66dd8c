"""2,000 captions and their ids by transformers' CLIPTokenizer (5.23), with a vocabulary learned from half of them.

    python tests/reference/sd_tokenizer.py

The published vocabulary is not needed: any list of merges shows the same rules. Writes sd_tokenizer.npz, which holds
vocab.json, merges.txt, the captions and the ids.
"""

import json
import pathlib
import random

import emoji
import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer

HERE = pathlib.Path(__file__)
SCRIPTS = HERE.with_name("sd_captions.txt").read_text(encoding="utf-8").split("\n")[:-1]
ODD = [
    "",
    " ",
    "\t\n",
    "\u3000wide\u3000space\u00a0nbsp\u2028line\u0085next",
    "\x1c file \x1f separators \x00 nul",
    "it's they're we've I'm you'll he'd DON'T O'Neill's 'salt 'tis '' ''' 's's",
    '!!!???...--- (parenthesised) [bracketed] {braced} "quoted" `ticks`',
    "a_b under_score __init__ snake_case C++ C# 100% $5.00 #1 @home &amp; <b>bold</b> a/b\\c ~^|",
    "3.14159 1,000,000 1e-5 0xFF 2nd 4K 8k",
    "<|startoftext|>literal<|endoftext|> specials <|ENDOFTEXT|> <|endoftext|",
    "masterpiece, (best quality:1.2), ((detailed)), [ugly], <lora:style:0.8>",
    "x" * 700,
    "ab" * 300 + "é" * 100,
    "word " * 400,
    "!" * 333 + "?" * 21,
]


def captions():
    names = sorted(data["en"].strip(":").replace("_", " ") for data in emoji.EMOJI_DATA.values())
    names = list(dict.fromkeys(names))
    signs = sorted(emoji.EMOJI_DATA)
    rng = random.Random(0)
    kinds = [
        "a photo of {}",
        "{}, oil on canvas",
        "A {}!",
        "THE {} of {}",
        "{}: {} & {}",
        "'{}'s {}",
        "{} {}",
        "my {}...{}?",
    ]
    made = [
        f"{name} {sign}" if n % 3 == 0 else name
        for n, (name, sign) in enumerate(zip(names[::3], signs[::3], strict=False))
    ]
    made = made[:1200] + ODD + SCRIPTS
    while len(made) < 1950:
        kind = rng.choice(kinds)
        made.append(kind.format(*(rng.choice(names + SCRIPTS) for _ in range(kind.count("{}")))))
    while len(made) < 2000:
        made.append(
            "".join(chr(rng.choice([rng.randrange(32, 0x250), rng.randrange(0x370, 0x2000)])) for _ in range(30))
        )
    return made


def main():
    texts = captions()
    bare = CLIPTokenizer().backend_tokenizer
    trained = Tokenizer(models.BPE(end_of_word_suffix="</w>", continuing_subword_prefix=""))
    trained.normalizer, trained.pre_tokenizer = bare.normalizer, bare.pre_tokenizer
    trainer = trainers.BpeTrainer(vocab_size=1800, end_of_word_suffix="</w>", show_progress=False)
    trained.train_from_iterator(texts[::2], trainer)
    merges = [tuple(pair) for pair in json.loads(trained.to_str())["model"]["merges"]]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*letters, *(letter + "</w>" for letter in letters), *("".join(pair) for pair in merges)]
    words = [*dict.fromkeys(words), "<|startoftext|>", "<|endoftext|>"]
    vocab = {word: n for n, word in enumerate(words)}
    tokenizer = CLIPTokenizer(vocab=vocab, merges=merges)
    ids = [tokenizer(text)["input_ids"] for text in texts]
    print(len(texts), "captions", len(vocab), "tokens", sum(map(len, ids)), "ids, longest", max(map(len, ids)))
    as_bytes = lambda text: np.frombuffer(text.encode("utf-8"), np.uint8)
    np.savez_compressed(
        HERE.with_name("sd_tokenizer.npz"),
        vocab=as_bytes(json.dumps(vocab)),
        merges=as_bytes("#version: 0.2\n" + "\n".join(" ".join(pair) for pair in merges) + "\n"),
        captions=as_bytes(json.dumps(texts)),
        ids=np.concatenate([np.array(row, np.uint16) for row in ids]),
        lengths=np.array([len(row) for row in ids], np.uint16),
    )


if __name__ == "__main__":
    main()
