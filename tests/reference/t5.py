"""T5 encoders and a unigram tokenizer of transformers 5 (torch 2.13): t5.npz.

    python tests/reference/t5.py

Weights are by formula; the vocabulary is trained on 2,000 captions, of which the file keeps the ids. spiece.model is
written by hand, as SentencePiece lays it out.
"""

import itertools
import json
import pathlib
import struct
import tempfile

import numpy as np
import tokenizers
import torch
from sd_weights import take
from transformers import T5Config, T5EncoderModel, T5Tokenizer

HERE = pathlib.Path(__file__)
TINY = {"vocab_size": 64, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 3}
CASES = {
    "t5": {**TINY, "feed_forward_proj": "relu"},
    "t5 v1.1": {**TINY, "feed_forward_proj": "gated-gelu"},
    "near": {**TINY, "relative_attention_num_buckets": 8, "relative_attention_max_distance": 20},
}


def captions():
    """The 2,000 that CLIP's tokenizer is tested with, some made odder."""
    texts = json.loads(bytes(np.load(HERE.with_name("sd_tokenizer.npz"))["captions"]))
    odd = {3: "  {}\t ", 5: "{} </s> {}", 7: "{}<extra_id_3>", 11: "\ufb01ne \uff21rt {}", 13: "{}\n{}"}
    return [odd.get(n % 17, "{}").format(text, text) for n, text in enumerate(texts)]


def varint(n):
    out = b""
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def field(number, value):
    if isinstance(value, float):
        return varint(number * 8 + 5) + struct.pack("<f", value)
    if isinstance(value, int):
        return varint(number * 8) + varint(value)
    return varint(number * 8 + 2) + varint(len(value)) + value


def spiece(vocabulary):
    kinds = {"<pad>": 3, "</s>": 3, "<unk>": 2}
    pieces = [
        field(1, field(1, piece.encode()) + field(2, float(np.float32(score))) + field(3, kinds.get(piece, 1)))
        for piece, score in vocabulary
    ]
    trained = field(2, field(3, 1) + field(40, 2))
    return b"".join(pieces) + trained + field(3, field(1, b"identity"))


def train(texts):
    made = tokenizers.Tokenizer(tokenizers.models.Unigram())
    made.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(prepend_scheme="always")
    special = ["<pad>", "</s>", "<unk>"]
    trainer = tokenizers.trainers.UnigramTrainer(vocab_size=290, special_tokens=special, unk_token="<unk>")
    made.train_from_iterator([t for t in texts if "<" not in t and t.isascii()], trainer)
    return [(piece, float(np.float32(score))) for piece, score in json.loads(made.to_str())["model"]["vocab"]]


@torch.no_grad()
def main():
    arrays, index = {}, {}
    ids = torch.tensor([[5, 9, 33, 2, 63, 17, 8, 41, 40, 3, 7, 1], [4, 6, 1] + [0] * 9])
    for name, config in CASES.items():
        model = take(T5EncoderModel(T5Config(**config)))
        shapes = {n: list(v.shape) for n, v in model.state_dict().items()}
        index[name] = {"config": model.config.to_diff_dict(), "shapes": shapes}
        arrays[name] = model(ids, attention_mask=(ids != 0).long()).last_hidden_state.numpy()
        long = torch.tensor(np.arange(80)[None] * 7 % 63 + 1)
        arrays[f"{name} long"] = model(long).last_hidden_state[:, ::13].numpy()
        print(name, arrays[name].std(), sorted(shapes)[:3])
    texts = captions()
    vocabulary = train(texts)
    data = spiece(vocabulary)
    with tempfile.TemporaryDirectory() as folder:
        # what `from_pretrained` makes of spiece.model where sentencepiece is installed
        sentinels = [f"<extra_id_{n}>" for n in range(99, -1, -1)]
        pieces = [*vocabulary, *((word, 0.0) for word in sentinels)]
        theirs = T5Tokenizer(vocab=pieces, additional_special_tokens=sentinels)
        rows = [theirs(text).input_ids for text in texts]
        theirs.save_pretrained(f"{folder}/saved")
        saved = (pathlib.Path(folder) / "saved" / "tokenizer.json").read_bytes()
        again = T5Tokenizer.from_pretrained(f"{folder}/saved")
        assert [again(text).input_ids for text in texts] == rows
        arrays["padded"] = np.array(theirs(texts[:50], padding="max_length", max_length=9, truncation=True).input_ids)
    flat = np.array(list(itertools.chain.from_iterable(rows)), np.uint16)
    arrays |= {"ids": flat, "counts": np.array([len(row) for row in rows], np.uint16)}
    arrays |= {"spiece": np.frombuffer(data, np.uint8), "json": np.frombuffer(saved, np.uint8)}
    print(len(data), len(saved), rows[:2], texts[:2])
    packed = np.frombuffer(json.dumps(index).encode(), np.uint8)
    np.savez_compressed(HERE.with_name("t5.npz"), index=packed, **arrays)


if __name__ == "__main__":
    main()
