"""Loads in jaxdiff what diffusers saved, saves it, loads that in diffusers: are all tensors identical?

    PYTHONPATH=. python tests/reference/sd_round_trip.py

Prints one line a component. It needs torch, so it is no test; tests/pretrained/test_read.py is its torch-free half.
"""

import pathlib
import tempfile

import diffusers
import jax
import numpy as np
import sd_parts
import sd_unet
import torch
import transformers
from sd_weights import take

from jaxdiff.cli.convert import main as convert
from jaxdiff.data.tokenizer_clip import read as read_tokenizer
from jaxdiff.diffusion import schedule
from jaxdiff.models.unet import UNet, UNetConfig
from jaxdiff.pipelines.bundles import diffusion_bundle
from jaxdiff.pretrained import pixels, scheduler, single_file, textual_inversion
from jaxdiff.pretrained.read import read_directory
from jaxdiff.pretrained.write import write_directory

HERE = pathlib.Path(__file__)


def text_encoder(kind, config):
    numbers = {**sd_parts.TEXT, "vocab_size": 2017, "max_position_embeddings": 77, "bos_token_id": 2015}
    return take(kind(transformers.CLIPTextConfig(**{**numbers, **config, "eos_token_id": 2016})))


def tokenizer(folder):
    saved = np.load(HERE.with_name("sd_tokenizer.npz"))
    (folder / "vocab.json").write_bytes(bytes(saved["vocab"]))
    (folder / "merges.txt").write_bytes(bytes(saved["merges"]))
    return transformers.CLIPTokenizer.from_pretrained(folder, model_max_length=77)


def pipelines(folder):
    vae = take(diffusers.AutoencoderKL(**sd_parts.AUTOENCODERS["sd"]))
    words = tokenizer(folder)
    first = text_encoder(*sd_parts.TEXTS["large"])
    yield diffusers.StableDiffusionPipeline(
        vae=vae,
        text_encoder=first,
        tokenizer=words,
        unet=take(diffusers.UNet2DConditionModel(**sd_unet.CONDITION["sd1"])),
        scheduler=diffusers.DDIMScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    yield diffusers.StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=first,
        text_encoder_2=text_encoder(*sd_parts.TEXTS["giant"]),
        tokenizer=words,
        tokenizer_2=words,
        unet=take(diffusers.UNet2DConditionModel(**sd_unet.CONDITION["sdxl"])),
        scheduler=diffusers.EulerDiscreteScheduler(),
    )
    yield diffusers.DDPMPipeline(
        unet=take(diffusers.UNet2DModel(block_out_channels=(32, 64), norm_num_groups=8, **sd_unet.PIXELS["ddpm"])),
        scheduler=diffusers.DDPMScheduler(),
    )


def main():
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        for before in pipelines(root):
            name = type(before).__name__
            for variant, safe in ((None, True), (None, False)):
                there, back = root / f"{name}{safe}", root / f"{name}{safe}-back"
                before.save_pretrained(there, safe_serialization=safe, variant=variant)
                bundle = read_directory(there)
                write_directory(bundle, back, source=there)
                after = type(before).from_pretrained(back)
                for part, model in before.components.items():
                    if isinstance(model, torch.nn.Module):
                        old, new = model.state_dict(), after.components[part].state_dict()
                        same = old.keys() == new.keys() and all(torch.equal(old[k], new[k]) for k in old)
                        print(
                            f"{name}.{part}, safetensors={safe}: {len(old)} tensors {'identical' if same else 'DIFFER'}"
                        )
                for part in bundle.tokenizers:
                    for pipe in (before, after):
                        ids = pipe.components[part]("A red heart, 7 blue birds!", padding="max_length")["input_ids"]
                        assert read_tokenizer(there / part).encode("A red heart, 7 blue birds!").tolist() == ids, part
                if bundle.tokenizers and safe:
                    single(bundle, before, root, there / "tokenizer")
        converted(root)


def single(bundle, before, root, words):
    """The same by way of a single file."""
    name, back = bundle.kind, root / f"{bundle.kind}-from-one"
    one, configs = root / f"{name}.safetensors", {part: c.json for part, c in bundle.components.items()}
    single_file.write(bundle, one)
    write_directory(single_file.read(one, tokenizer=words, configs=configs), back)
    after = type(before).from_pretrained(back)
    for part in bundle.components:
        old, new = before.components[part].state_dict(), after.components[part].state_dict()
        differ = [k for k in old.keys() | new.keys() if k not in old or k not in new or not torch.equal(old[k], new[k])]
        print(f"{name}.{part}, as one file and back: {len(old)} tensors, {differ or 'identical'}")


def converted(root):
    """What `jaxdiff convert` writes with a word of two vectors, and of a U-Net of our own, in the reference library."""
    textual_inversion.write(root / "word.safetensors", "<thing>", np.eye(2, 32, dtype=np.float32))
    there, back = root / "StableDiffusionPipelineTrue", root / "words"
    convert(["--model", str(there), "--out", str(back), "--textual-inversion", str(root / "word.safetensors")])
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(back)
    prompt = pipe.maybe_convert_prompt("a <thing>, red", pipe.tokenizer)
    ids = pipe.tokenizer(prompt, padding="max_length")["input_ids"]
    assert read_tokenizer(back / "tokenizer").encode("a <thing>, red").tolist() == ids, ids
    table = pipe.text_encoder.get_input_embeddings().weight
    assert torch.equal(table[ids[2:4]], torch.eye(2, 32))
    print("convert: a new word has its vectors in the reference library")

    net = UNetConfig(channels=(8, 16), layers=1, attention=("none", "self"), heads=(1, 2), depth=(1, 1), groups=4)
    x, t = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32), np.array([17, 801])
    params = jax.tree.map(
        lambda p: p + 0.1 * jax.random.normal(jax.random.key(p.size), p.shape),
        UNet(net).init(jax.random.key(0), x, t.astype(np.float32))["params"],
    )
    ours = UNet(net).apply({"params": params}, x, t.astype(np.float32))
    process = scheduler.native(schedule.cosine(), "v", clip=1.0)
    native = diffusion_bundle(net, {"unet": params}, process=process, size=8)
    write_directory(pixels.published(native), root / "pixels")
    pipe = diffusers.DDPMPipeline.from_pretrained(root / "pixels")
    theirs = pipe.unet(torch.tensor(x.transpose(0, 3, 1, 2)), torch.tensor(t)).sample.detach().numpy()
    error = np.abs(theirs.transpose(0, 2, 3, 1) - ours).max() / np.abs(theirs).max()
    cosine = schedule.cosine()
    alphas = np.abs(pipe.scheduler.alphas_cumprod.numpy() - cosine.alpha(np.arange(1, 1001) / 1000) ** 2).max()
    print(f"convert: a U-Net of our own differs by {error:.1e} there, its alphas by {alphas:.1e}")


if __name__ == "__main__":
    main()
