"""Losses and trained tensors of plain PyTorch loops over diffusers' modules (0.42.1, peft): finetune.npz.

    PYTHONPATH=.:tests python tests/reference/finetune.py

Each case of `finetune_cases` is trained for five steps with torch's AdamW, on the noise, times and dropped captions
that jaxdiff's keys draw. The first factors of LoRAs and layers of ControlNets are jaxdiff's; LoRA and DoRA are PEFT's.
"""

import json
import pathlib
import sys
import tempfile

import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import peft
import torch
import transformers

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import finetune_cases as cases
import sd_pipeline
from sd_weights import take

from jaxdiff.diffusion import draws
from jaxdiff.diffusion import loss as losses
from jaxdiff.pipelines import first_stage
from jaxdiff.pretrained import lora
from jaxdiff.pretrained.components import family
from jaxdiff.pretrained.files import read_safetensors
from jaxdiff.pretrained.rules import to_tensors
from jaxdiff.training.optimizer import decayed

HERE = pathlib.Path(__file__)
LEVELS = {"block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4, "cross_attention_dim": 8}
UNETS = {
    "sd": {
        **LEVELS,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "attention_head_dim": 2,
    },
    "xl": {
        **LEVELS,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": (1, 2),
        "use_linear_projection": True,
        "transformer_layers_per_block": (1, 2),
        "cross_attention_dim": 12,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 4,
        "projection_class_embeddings_input_dim": 6 + 6 * 4,
    },
}
VAE = {
    "block_out_channels": (8, 8),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "norm_num_groups": 4,
}
SD = {**sd_pipeline.SD, "clip_sample": False}
ZERO = {"timestep_spacing": "trailing", "prediction_type": "v_prediction", "rescale_betas_zero_snr": True}


def text(width, projection=0):
    sizes = {"hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": 2, "num_attention_heads": 2}
    more = {"projection_dim": projection, "hidden_act": "gelu"} if projection else {}
    kind = transformers.CLIPTextModelWithProjection if projection else transformers.CLIPTextModel
    return take(kind(transformers.CLIPTextConfig(**{**sd_pipeline.TEXT, **sizes, **more})))


def parts(version):
    made = {"unet": take(diffusers.UNet2DConditionModel(**UNETS[version], sample_size=8))}
    made |= {"vae": take(diffusers.AutoencoderKL(**VAE))}
    if version == "sd":
        return made | {"text_encoder": text(8)}
    return made | {"text_encoder": text(4), "text_encoder_2": text(8, 6)}


def pipeline(version):
    words = sd_pipeline.tokenizer()
    if version == "sd":
        scheduler = diffusers.DDIMScheduler(**SD)
        bare = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
        return diffusers.StableDiffusionPipeline(**parts(version), tokenizer=words, scheduler=scheduler, **bare)
    scheduler = diffusers.DDIMScheduler(**SD, **ZERO)
    both = {"tokenizer": words, "tokenizer_2": words, "add_watermarker": False}
    return diffusers.StableDiffusionXLPipeline(**parts(version), scheduler=scheduler, **both)


def drawn(keys, task, shape):
    """What the keys of a batch draw, as torch tensors with channels first."""
    first = lambda x: torch.tensor(np.asarray(x)).permute(0, 3, 1, 2)
    blank = jnp.zeros((len(keys), *shape))
    eps = losses.independent(keys, blank)
    if task.offset_noise:
        eps = losses.offset(losses.independent, task.offset_noise)(keys, blank)
    steps = np.minimum(np.floor(np.asarray(draws.uniform(keys)) * 1000), 999).astype(int)
    latent = draws.noise_like(draws.fold(keys, first_stage._LATENT), blank)
    gone = np.asarray(losses.dropped(keys, task.drop))
    return torch.tensor(steps), first(eps), first(latent), torch.tensor(gone)


class Loop:
    """One case: the modules, and the loss of rows of a batch."""

    def __init__(self, case, pipe, task, assets):
        self.pipe, self.task, self.assets, self.xl = pipe, task, assets, case.endswith("xl")
        self.abar = pipe.scheduler.alphas_cumprod.double()
        self.control, self.rows = None, None

    def encoded(self, name, tokens, **options):
        """What a text encoder says of tokens, with the word's rows in its table where they are trained."""
        encoder = getattr(self.pipe, name)
        if self.rows is None:
            return encoder(tokens, **options)
        table = next(n for n, _ in encoder.named_parameters() if "token_embedding" in n)
        start = self.assets.base.bundle.tokenizers[name.replace("text_encoder", "tokenizer")].added["<toy>"][0]
        whole = torch.cat([dict(encoder.named_parameters())[table][:start], self.rows[name]])
        return torch.func.functional_call(encoder, {table: whole}, (tokens,), options)

    def states(self, tokens, gone, row):
        if not self.xl:
            empty = self.assets.base.bundle.tokenizers["tokenizer"].encode("", 77)
            tokens = torch.where(gone[:, None], torch.tensor(empty)[None], tokens["text_encoder"]).long()
            return self.encoded("text_encoder", tokens).last_hidden_state, {}
        one, two = (self.encoded(n, tokens[n].long(), output_hidden_states=True) for n in sorted(tokens))
        keep = (~gone).float()
        states = torch.cat([one.hidden_states[-2], two.hidden_states[-2]], -1) * keep[:, None, None]
        return states, {"text_embeds": two.text_embeds * keep[:, None], "time_ids": torch.tensor(row["sizes"])}

    def losses(self, row, keys):
        """Of each example."""
        image = torch.tensor(row["image"].astype(np.float32) / 127.5 - 1).permute(0, 3, 1, 2)
        with torch.no_grad():
            moments = self.pipe.vae.encode(image).latent_dist
        steps, eps, latent, gone = drawn(keys, self.task, tuple(np.roll(moments.mean.shape[1:], -1)))
        x0 = (moments.mean + moments.std * latent) * self.pipe.vae.config.scaling_factor
        alpha, sigma = ((f**0.5).float()[:, None, None, None] for f in (self.abar[steps], 1 - self.abar[steps]))
        x = alpha * x0 + sigma * eps
        context, more = self.states({n: torch.tensor(v) for n, v in row.items() if n.startswith("text")}, gone, row)
        residuals = {}
        if self.control is not None:
            hint = torch.tensor(row["hint"].astype(np.float32) / 255).permute(0, 3, 1, 2)
            down, mid = self.control(x, steps, context, hint, added_cond_kwargs=more or None, return_dict=False)
            residuals = {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}
        y = self.pipe.unet(x, steps, context, added_cond_kwargs=more or None, **residuals).sample
        velocity = self.pipe.scheduler.config.prediction_type == "v_prediction"
        goal = alpha * eps - sigma * x0 if velocity else eps
        error = ((y - goal) ** 2).mean((1, 2, 3))
        if self.task.min_snr is not None:
            snr = (self.abar[steps] / (1 - self.abar[steps])).float()
            error = error * torch.clamp(snr, max=self.task.min_snr) / (snr + 1 if velocity else snr)
        return error

    def loss(self, batch, keys):
        if self.assets.classes is None:
            return self.losses(batch, keys).mean()
        own = {n: x for n, x in batch.items() if "/" not in n}
        other = {n.removeprefix("class/"): x for n, x in batch.items() if "/" in n}
        first = self.losses(own, draws.fold(keys, 1)).mean()
        return first + self.task.prior.weight * self.losses(other, draws.fold(keys, 2)).mean()


def named(tree, assets):
    """Parameters by component with diffusers' names; those that the tree lacks are left out."""
    found = {}
    for name, own in tree.items():
        part = assets.base.bundle.components[name]
        made = to_tensors(own, family(part.kind).rules(part.config, part.json))
        found |= {f"{name}.{n}": np.array(x) for n, x in made.items()}
    return found


def add_loras(loop, params):
    """PEFT's adapters on the pipeline's modules, with our first factors; their parameters by our file's names."""
    task, factors, found = loop.task, loop.task.factors(loop.assets, params), {}
    with tempfile.TemporaryDirectory() as folder:
        lora.write(f"{folder}/x.safetensors", cases.unscaled(factors), loop.assets.base.bundle.components)
        tensors = {n: np.array(x) for n, x in read_safetensors(f"{folder}/x.safetensors").items()}
        # where all of the second factors is 1, a file has the scales in their place
        ones = {n: {t: {**f, "up": jnp.ones_like(f["up"])} for t, f in own.items()} for n, own in factors.items()}
        lora.write(f"{folder}/y.safetensors", ones, loop.assets.base.bundle.components)
        told = {n: np.array(x).flat[0] for n, x in read_safetensors(f"{folder}/y.safetensors").items()}
    for name in factors:
        model = getattr(loop.pipe, name)
        # transformers 5 has no text_model in CLIPTextModel, which files name
        bare = "" if name == "unet" or hasattr(model, "text_model") else "text_model."
        start = f"{name}."
        own = {n.removeprefix(start).removeprefix(bare): x for n, x in tensors.items() if n.startswith(start)}
        ranks = {n.removesuffix(".lora_A.weight"): len(x) for n, x in own.items() if n.endswith("lora_A.weight")}
        alphas = {n: float(told[f"{name}.{bare}{n}.lora_B.weight"]) * rank for n, rank in ranks.items()}
        config = peft.LoraConfig(
            r=2, target_modules=list(ranks), rank_pattern=ranks, alpha_pattern=alphas, use_dora=task.dora
        )
        peft.inject_adapter_in_model(config, model)
        given = dict(model.named_parameters())
        for tensor, x in own.items():
            theirs = tensor.replace("lora_A.weight", "lora_A.default.weight")
            theirs = theirs.replace("lora_B.weight", "lora_B.default.weight")
            theirs = theirs.replace("lora_magnitude_vector", "lora_magnitude_vector.default.weight")
            with torch.no_grad():
                if "magnitude" in tensor:  # PEFT's own start; its shape differs with its version
                    torch.testing.assert_close(given[theirs].flatten(), torch.tensor(x).flatten())
                else:
                    given[theirs].copy_(torch.tensor(x))
            found[f"{name}.{bare}{tensor}"] = given[theirs]
    return found


def trained(loop, params):
    """The torch parameters that the case trains, by name, and which of them decay."""
    pipe, assets = loop.pipe, loop.assets
    for module in (pipe.unet, pipe.vae, pipe.text_encoder, getattr(pipe, "text_encoder_2", None)):
        if module is not None:
            module.requires_grad_(False)
    if hasattr(loop.task, "factors"):
        made = add_loras(loop, params)
        return made, {name: "lora_magnitude" not in name for name in made}
    if "vectors" in params:
        loop.rows = {n: torch.nn.Parameter(torch.tensor(np.asarray(x))) for n, x in params["vectors"].items()}
        return loop.rows, dict.fromkeys(loop.rows, True)
    full = lambda x, mask: np.full(x.shape, mask, np.float32)
    masks = named(jax.tree.map(full, params, decayed(params)), assets)
    if "controlnet" in params:
        loop.control = diffusers.ControlNetModel.from_unet(
            pipe.unet, conditioning_embedding_out_channels=loop.task.hint_channels
        )
        ours = {n.removeprefix("controlnet."): torch.tensor(x) for n, x in named(params, assets).items()}
        loop.control.load_state_dict(ours)
    modules = {name: loop.control if name == "controlnet" else getattr(pipe, name) for name in params}
    theirs = {f"{name}.{n}": p for name, module in modules.items() for n, p in module.named_parameters()}
    theirs |= {n.replace("text_encoder.", "text_encoder.text_model.", 1): p for n, p in theirs.items()}
    return {n: theirs[n].requires_grad_() for n in masks}, {n: bool(x.any()) for n, x in masks.items()}


def run(case, kind=Loop):
    pipe = pipeline(case.split()[1])
    with tempfile.TemporaryDirectory() as folder:
        pipe.save_pretrained(folder)
        task, assets = cases.prepared(case, pathlib.Path(folder), pathlib.Path(folder))
        made = task.task(assets)
        params = made.init(cases.first_key(), made.load(cases.one_device), cases.batch(made, 0)).params
    loop = kind(case, pipe, task, assets)
    tensors, decays = trained(loop, params)
    o = cases.OPTIMIZER
    groups = [
        {"params": [p for n, p in tensors.items() if decays[n] == side], "weight_decay": o.weight_decay * side}
        for side in (True, False)
    ]
    optimizer = torch.optim.AdamW([g for g in groups if g["params"]], o.lr, (o.b1, o.b2), o.eps)
    told = []
    for step in range(cases.STEPS):
        loss = loop.loss(cases.batch(made, step), cases.keys(step))
        optimizer.zero_grad()
        loss.backward()
        for tensor in tensors.values():  # torch would not even decay what the loss does not depend on
            tensor.grad = torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
        torch.nn.utils.clip_grad_norm_(list(tensors.values()), o.clip)
        optimizer.step()
        told.append(float(loss.detach()))
    print(case, told, len(tensors))
    return np.array(told), cases.thinned({n: p.detach().numpy() for n, p in tensors.items()})


def main():
    index, arrays = {}, {}
    for version in UNETS:
        pipe = pipeline(version)
        entries = {}
        for name, part in parts(version).items():
            config = part.config.to_diff_dict() if name.startswith("text") else dict(part.config)
            shapes = {n: list(v.shape) for n, v in part.state_dict().items()}
            entries[name] = {"class": type(part).__name__, "config": config, "shapes": shapes}
        scheduler = {"_class_name": "DDIMScheduler", **pipe.scheduler.config}
        index[version] = {"class": type(pipe).__name__, "parts": entries, "scheduler": scheduler}
    for case in cases.CASES:
        arrays[f"{case}/losses"], arrays[f"{case}/trained"] = run(case)
    packed = np.frombuffer(json.dumps(index, default=lambda x: x.tolist()).encode(), np.uint8)
    np.savez_compressed(HERE.with_name("finetune.npz"), index=packed, **arrays)


if __name__ == "__main__":
    main()
