"""Outputs of small models whose weights went through diffusers' converters from single-file layouts.

    PYTHONPATH=. python tests/reference/sd_single_file.py

The original names come from jaxdiff's tables; that diffusers' converters (0.42.1) turn tensors of these names into all
the tensors of its models shows that the names are right, and the outputs that each is where it belongs. Writes
sd_single_file.npz: for each layout, configs, the shapes of the file's tensors (filled by `sd_weights`), and outputs.
"""

import json
import pathlib

import numpy as np
import sd_parts
import sd_unet
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders import single_file_utils as convert
from sd_weights import noise, weights
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from jaxdiff.pretrained import single_file
from jaxdiff.pretrained.components import family
from jaxdiff.pretrained.rules import to_tensors

HERE = pathlib.Path(__file__)
KINDS = {"text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection}
TEXT = {**sd_parts.TEXT, "max_position_embeddings": 8, "eos_token_id": 98}
VAE = sd_parts.AUTOENCODERS["sd"]
LAYOUTS = {
    "sd1": {"unet": sd_unet.CONDITION["sd1"], "vae": VAE, "text_encoder": {**TEXT, "hidden_act": "quick_gelu"}},
    "sd2": {"unet": sd_unet.CONDITION["sd2"], "vae": VAE, "text_encoder": {**TEXT, "hidden_act": "gelu"}},
    "sdxl": {
        "unet": sd_unet.CONDITION["sdxl"],
        "vae": VAE,
        "text_encoder": {**TEXT, "hidden_act": "quick_gelu"},
        # the converter takes the rows of in_proj by the projection's width, so the two are equal, as in the real one
        "text_encoder_2": {**TEXT, "hidden_act": "gelu", "projection_dim": 32},
    },
}


def original(name, configs):
    """Shapes by the names of the single file."""
    shapes = {}
    for part, prefix in single_file.prefixes(name).items():
        one = family(single_file._KINDS[part])
        net = one.config(configs[part])
        table = single_file.rules(part, prefix, net, configs[part])
        shapes |= {k: list(v.shape) for k, v in to_tensors(one.shapes(net, configs[part]), table).items()}
    return shapes


@torch.no_grad()
def main():
    index, arrays = {}, {}
    for name, configs in LAYOUTS.items():
        shapes = original(name, configs)
        tensors = {k: torch.tensor(v) for k, v in weights(shapes).items()}
        index[name] = {"configs": configs, "shapes": shapes}
        unet = UNet2DConditionModel(**configs["unet"]).eval()
        unet.load_state_dict(convert.convert_ldm_unet_checkpoint(dict(tensors), unet.config))
        options = {}
        if name == "sdxl":
            options = {"text_embeds": torch.tensor(noise("pooled", (2, 20))), "time_ids": torch.tensor([[8.0] * 6] * 2)}
        x, context = torch.tensor(noise("x", (2, 4, 8, 8))), torch.tensor(noise("context", (2, 5, 24)))
        arrays[f"{name}/unet"] = unet(x, sd_unet.T, context, added_cond_kwargs=options).sample.numpy()
        vae = AutoencoderKL(**configs["vae"]).eval()
        vae.load_state_dict(convert.convert_ldm_vae_checkpoint(dict(tensors), vae.config))
        arrays[f"{name}/vae"] = vae(torch.tensor(noise("picture", (1, 3, 16, 16)))).sample.numpy()
        for part in ("text_encoder", "text_encoder_2"):
            if part in configs:
                text = KINDS[part](CLIPTextConfig(**configs[part])).eval()
                prefix = single_file.prefixes(name)[part] + "."
                if prefix.endswith("transformer."):
                    loaded = convert.convert_ldm_clip_checkpoint(dict(tensors), prefix)
                    loaded = {k: v for k, v in loaded.items() if k.startswith("text_model.")}
                else:
                    loaded = convert.convert_open_clip_checkpoint(text, dict(tensors), prefix)
                if part == "text_encoder":
                    loaded = {k.removeprefix("text_model."): v for k, v in loaded.items()}
                text.load_state_dict(loaded)
                out = text(torch.tensor(sd_parts.TOKENS))
                arrays[f"{name}/{part}"] = (out.text_embeds if part[-1] == "2" else out.last_hidden_state).numpy()
    for key, array in arrays.items():
        print(key, array.shape, array.std())
    packed = np.frombuffer(json.dumps(index).encode(), np.uint8)
    np.savez_compressed(HERE.with_name("sd_single_file.npz"), index=packed, **arrays)


if __name__ == "__main__":
    main()
