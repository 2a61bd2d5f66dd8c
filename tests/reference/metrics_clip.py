"""Makes metrics_clip.npz: vectors of pictures and captions by a small CLIPModel of transformers.

python tests/reference/metrics_clip.py
"""

import pathlib
import tempfile

import numpy as np
import torch
from sd_weights import noise, save, take
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

HERE = pathlib.Path(__file__)
CAPTIONS = ("a red heart", "green", "two blue squares on a book")


@torch.no_grad()
def main():
    """Writes the fixture."""
    with tempfile.TemporaryDirectory() as place:
        saved = np.load(HERE.parent / "sd_tokenizer.npz")
        for name, key in (("vocab.json", "vocab"), ("merges.txt", "merges")):
            (pathlib.Path(place) / name).write_bytes(bytes(saved[key]))
        tokenizer = CLIPTokenizer.from_pretrained(place)
    text = {"vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    text |= {"num_attention_heads": 4, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id}
    vision = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    vision |= {"image_size": 16, "patch_size": 4}
    model = take(CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)))
    pictures = ((noise("pictures", (3, 20, 24, 3)) + 1) * 127.5).astype(np.uint8)
    size = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
    pixels = CLIPImageProcessorPil(**size)(list(pictures), return_tensors="pt")
    tokens = tokenizer(list(CAPTIONS), padding="max_length", max_length=77, return_tensors="pt")
    out = model(**tokens, **pixels)
    save(HERE.with_suffix(".npz"), {"clip": (model, {"pictures": out.image_embeds, "captions": out.text_embeds})})


if __name__ == "__main__":
    main()
