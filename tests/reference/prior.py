"""Outputs of small priors and a text projection of unCLIP (diffusers 0.42.1), weights by formula: prior.npz.

python tests/reference/prior.py
"""

import pathlib

import torch
from diffusers import PriorTransformer
from diffusers.pipelines.deprecated.unclip.text_proj import UnCLIPTextProjModel
from sd_weights import noise, save, take

TINY = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 2, "embedding_dim": 12, "num_embeddings": 5}
CASES = {
    "karlo": TINY,
    "other": {
        **TINY,
        "additional_embeddings": 3,
        "added_emb_type": None,
        "norm_in_type": "layer",
        "embedding_proj_norm_type": "layer",
        "embedding_proj_dim": 10,
    },
}
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])


@torch.no_grad()
def main():
    cases = {}
    for name, config in CASES.items():
        model = take(PriorTransformer(**config))
        width = config.get("embedding_proj_dim", 12)
        shapes = (("x", (2, 12)), ("v", (2, width)), ("s", (2, 5, 12)))
        x, vector, states = (torch.tensor(noise(*one)) for one in shapes)
        y = model(x, torch.tensor([17, 801]), vector, states, MASK).predicted_image_embedding.reshape(2, 12)
        cases[name] = (model, {"y": y, "embed": model.post_process_latents(y)})
    model = take(UnCLIPTextProjModel(clip_embeddings_dim=12, time_embed_dim=16, cross_attention_dim=8))
    embed, vector, states = (torch.tensor(noise(n, s)) for n, s in (("e", (2, 12)), ("v", (2, 12)), ("s", (2, 5, 12))))
    options = {"image_embeddings": embed, "prompt_embeds": vector, "text_encoder_hidden_states": states}
    context, time = model(**options, do_classifier_free_guidance=False)
    cases["projection"] = (model, {"context": context, "time": time})
    save(pathlib.Path(__file__).with_name("prior.npz"), cases)


if __name__ == "__main__":
    main()
