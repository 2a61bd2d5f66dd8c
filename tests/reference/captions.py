"""The 2,000 captions as other tokenizers of text-to-image models read them: captions.npz.

    python tests/reference/captions.py GLIDE DALLE FTFY UNIDECODE

GLIDE is a checkout of openai/glide-text2im; DALLE a folder with text.py of borisdayma/dalle-mini
(src/dalle_mini/model); FTFY and UNIDECODE are checkouts of rspeer/python-ftfy and avian2/unidecode, which text.py
imports. Hashtags stay one word, as the list of words that text.py splits them by is on a hub. The file keeps a checksum
of the ids of each caption (or of its UTF-8), and a vocabulary of WordPiece that was learned from half of them.
"""

import json
import pathlib
import sys
import types
import zlib

import numpy as np

HERE = pathlib.Path(__file__)
LETTERS = [" ".join(map(chr, range(first, first + 32))) for first in range(0xA0, 0x180, 32)]


def captions():
    """The captions that CLIP's tokenizer is tested with, and all letters of Latin-1 and Latin Extended-A."""
    return [*json.loads(bytes(np.load(HERE.with_name("sd_tokenizer.npz"))["captions"])), *LETTERS]


def sums(rows):
    """Sixteen bits of a checksum of each text, or list of ids."""
    data = [row.encode() if isinstance(row, str) else np.array(row, np.int32).tobytes() for row in rows]
    return np.array([zlib.crc32(one) & 0xFFFF for one in data], np.uint16)


def wordpiece(texts):
    import tokenizers

    learned = tokenizers.BertWordPieceTokenizer()
    learned.train_from_iterator(texts[::2], vocab_size=900, show_progress=False)
    return sorted(learned.get_vocab(), key=learned.get_vocab().__getitem__)


def glide(checkout):
    sys.path.insert(0, str(checkout))
    from glide_text2im.tokenizer.bpe import Encoder

    saved = np.load(HERE.with_name("glide.npz"))
    lines = bytes(saved["merges"]).decode().split("\n")[1:-1]
    return Encoder(json.loads(bytes(saved["vocabulary"])), [tuple(line.split()) for line in lines])


def normaliser(folder, *checkouts):
    sys.path[:0] = map(str, (folder, *checkouts))
    for name, fields in {"wcwidth": ("wcwidth", "wcswidth"), "huggingface_hub": ("hf_hub_download",)}.items():
        sys.modules[name] = types.ModuleType(name)  # imported, and not used here
        sys.modules[name].__dict__.update(dict.fromkeys(fields))
    import text

    made = object.__new__(text.TextNormalizer)
    made._hashtag_processor = lambda word: word
    return made


def main(checkout, *of_dalle):
    import tokenizers
    import transformers

    texts, arrays = captions(), {}
    words = glide(checkout)
    arrays["glide"] = sums([words.encode(text) for text in texts])
    pieces = wordpiece(texts)
    bert = transformers.BertTokenizer(vocab={piece: n for n, piece in enumerate(pieces)})
    arrays["bert"] = sums([bert(text, add_special_tokens=True).input_ids for text in texts])
    arrays["pieces"] = np.frombuffer(json.dumps(pieces).encode(), np.uint8)
    saved = bytes(np.load(HERE.with_name("dalle_mini.npz"))["tokenizer"]).decode()
    bart, plain = tokenizers.Tokenizer.from_str(saved), [*map(normaliser(*of_dalle), texts)]
    arrays["bart"] = sums([bart.encode(text).ids for text in texts])
    arrays["plain"] = sums(plain)
    arrays["plain bart"] = sums([bart.encode(text).ids for text in plain])
    np.savez_compressed(HERE.with_suffix(".npz"), **arrays)
    print(len(texts), len(pieces), plain[-7:], HERE.with_suffix(".npz").stat().st_size)


if __name__ == "__main__":
    main(*map(pathlib.Path, sys.argv[1:]))
