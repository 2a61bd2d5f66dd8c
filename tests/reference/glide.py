"""GLIDE's published code on small networks with weights by formula: glide.npz.

    python tests/reference/glide.py CHECKOUT

CHECKOUT is a checkout of openai/glide-text2im. The file keeps the shapes of each model's tensors, the beginning of the
published vocabulary, tokens of captions, the steps of the upsampler, what the text encoder and the U-Net of `base` say,
and two pictures of each model as 16-bit numbers. Every draw of noise of one shape is the same array by formula.
"""

import gzip
import json
import pathlib
import sys

import numpy as np
import torch
from sd_weights import noise, take

HERE = pathlib.Path(__file__)
PROMPTS, MERGES, LENGTH = ["a red heart", "Seven birds, and it's WINTER!"], 500, 12
CAPTIONS = ["", "  two  spaces ", "it's, they'll; we'd 've", "x'", "A\tb\n c", "3.14 и ½ ٣", " 'S 's", "a" * 90]
SMALL = {"num_channels": 64, "num_res_blocks": 1, "attention_resolutions": "8", "dropout": 0.0, "use_fp16": False}
SMALL |= {"text_ctx": LENGTH, "xf_width": 128, "xf_layers": 2, "xf_heads": 2}
BASE = {**SMALL, "image_size": 16, "channel_mult": "1,2", "timestep_respacing": "5"}
LARGER = {**SMALL, "image_size": 32, "channel_mult": "1,1,2", "timestep_respacing": "4"}
LARGER |= {"noise_schedule": "linear", "super_res": True}
MODELS = {
    "base": BASE,
    "upsample": LARGER,
    "base-inpaint": {**BASE, "inpaint": True},
    "upsample-inpaint": {**LARGER, "inpaint": True},
}
GUIDANCE = 3.0


def picture(name, side):
    return torch.tensor(eight_bits(noise(name, (2, side, side, 3))).transpose(0, 3, 1, 2).copy())


def eight_bits(x):
    return ((x + 1) * 127.5).round() / 127.5 - 1


def drawn(shape):
    return torch.tensor(noise("drawn", (2, *shape[1:])) * np.float32(1.7)).repeat(shape[0] // 2, 1, 1, 1)


def vocabulary(checkout):
    """Returns the first ids and merges of the published vocabulary."""
    folder = checkout / "glide_text2im" / "tokenizer"
    ids = json.loads(gzip.decompress((folder / "encoder.json.gz").read_bytes()))
    lines = gzip.decompress((folder / "vocab.bpe.gz").read_bytes()).decode().split("\n")[: MERGES + 1]
    kept = {token: i for token, i in ids.items() if i < 256 + MERGES}
    return {**kept, "<|endoftext|>": len(kept)}, "\n".join(lines) + "\n"


@torch.no_grad()
def main():
    checkout = pathlib.Path(sys.argv[1])
    sys.path.insert(0, str(checkout))
    from glide_text2im import model_creation
    from glide_text2im.respace import space_timesteps
    from glide_text2im.tokenizer.bpe import Encoder

    ids, lines = vocabulary(checkout)
    words = Encoder(ids, [tuple(line.split()) for line in lines.split("\n")[1:-1]])
    captions = [*HERE.with_name("sd_captions.txt").read_text(encoding="utf-8").splitlines(), *CAPTIONS, *PROMPTS]
    model_creation.get_encoder = lambda: words
    torch.randn_like = lambda x: drawn(x.shape)

    def told(texts):
        rows = [words.padded_tokens_and_mask(words.encode(text), LENGTH) for text in texts]
        return {"tokens": torch.tensor([row[0] for row in rows]), "mask": torch.tensor([row[1] for row in rows])}

    index = {"captions": captions, "prompts": PROMPTS, "models": {}, "tokens": [words.encode(c) for c in captions]}
    arrays = {"steps": np.array(sorted(space_timesteps(1000, "fast27"))[::-1])}
    made = {}
    for name, options in MODELS.items():
        chosen = {**model_creation.model_and_diffusion_defaults(), **options}
        model, diffusion = model_creation.create_model_and_diffusion(**chosen)
        take(model)
        index["models"][name] = {k: list(v.shape) for k, v in model.state_dict().items()}
        side, fills, larger = options["image_size"], "inpaint" in name, "super_res" in options
        kwargs = told(PROMPTS if larger else [*PROMPTS, "", ""])
        again = 1 if larger else 2
        hole = torch.zeros(2, 1, side, side)
        hole[..., side // 2 :] = 1
        known = {"inpaint_image": picture("image", side) * (1 - hole), "inpaint_mask": 1 - hole}
        known = {k: x.repeat(again, 1, 1, 1) for k, x in known.items()} if fills else {}
        low = {"low_res": eight_bits(picture("small", side // 2))} if larger else {}
        if name == "base":
            text = model.get_text_emb(**kwargs)
            x, t = (
                torch.tensor(noise("x", (2, 16, 16, 3)).transpose(0, 3, 1, 2)).repeat(2, 1, 1, 1),
                torch.tensor([3.0, 500.0, 999.0, 0.0]),
            )
            arrays |= {"states": text["xf_out"].permute(0, 2, 1), "pooled": text["xf_proj"]}
            arrays["output"] = model(x, t, **kwargs).permute(0, 2, 3, 1)

        def guided(x, t, model=model, **kwargs):
            both = torch.cat([x[:2], x[:2]])
            out = model(both, t, **kwargs)
            eps = out[2:, :3] + GUIDANCE * (out[:2, :3] - out[2:, :3])
            return torch.cat([torch.cat([eps, eps]), out[:, 3:]], 1)

        keep = lambda x0, known=known: x0 * (1 - known["inpaint_mask"]) + known["inpaint_image"]
        walk = diffusion.ddim_sample_loop if name == "upsample" else diffusion.p_sample_loop
        out = walk(
            model if larger else guided,
            (2 * again, 3, side, side),
            noise=drawn((2 * again, 3, side, side)),
            device="cpu",
            clip_denoised=True,
            denoised_fn=keep if fills else None,
            model_kwargs={**kwargs, **known, **low},
        )
        pictures = (out[:2].clamp(-1, 1) + 1) / 2
        arrays[name] = (pictures.permute(0, 2, 3, 1).numpy() * 65535).round().astype(np.uint16)
        made[name] = pictures
        print(name, arrays[name].shape, pictures.std(), ((pictures > 0) & (pictures < 1)).float().mean())
    packed = lambda text: np.frombuffer(text.encode(), np.uint8)
    index = {"index": packed(json.dumps(index)), "vocabulary": packed(json.dumps(ids)), "merges": packed(lines)}
    np.savez_compressed(HERE.with_name("glide.npz"), **index, **{k: np.asarray(x) for k, x in arrays.items()})


if __name__ == "__main__":
    main()
