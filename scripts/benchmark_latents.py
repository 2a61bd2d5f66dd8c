"""Measures how much faster a step of latent diffusion is on cached latents than with the encoding in it.

Both are the same training step, compiled twice: of `configs/openmoji_ldm.py` (64x64 pictures, 16x16x4 latents), behind
an autoencoder (f=4) of the widths that are given, and a frozen CLIP text encoder of the layers that are given: all that
`jaxdiff latents` does once. They take turns, round after round, and each round gives a ratio. With --text-layers 0 both
train the config's own text encoder, and the pictures alone are cached.

    python scripts/benchmark_latents.py --rounds 10
"""

import argparse
import dataclasses
import functools
import pathlib
import statistics
import sys
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff import data, parallel, training
from jaxdiff.cli.config import read_config
from jaxdiff.cli.memory import keep_freed
from jaxdiff.data.clip_words import END, LETTER, START
from jaxdiff.data.tokenizer_clip import ClipTokenizer
from jaxdiff.models.autoencoder_kl import AutoencoderConfig, AutoencoderKL
from jaxdiff.models.text_clip import ClipText, ClipTextConfig
from jaxdiff.pipelines import encode
from jaxdiff.pretrained.components import family
from jaxdiff.pretrained.read import Component
from jaxdiff.pretrained.write import write_component

CONFIG = pathlib.Path(__file__).parents[1] / "configs" / "openmoji_ldm.py"


def autoencoder(widths: tuple[int, ...]) -> Component:
    """A KL autoencoder with weights drawn at random: what it says does not change its speed."""
    levels = len(widths)
    json = {
        "_class_name": "AutoencoderKL",
        "block_out_channels": list(widths),
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "layers_per_block": 2,
        "norm_num_groups": 8,
    }
    net: AutoencoderConfig = family("AutoencoderKL").config(json)
    params = AutoencoderKL(net).init(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))["params"]
    return Component("AutoencoderKL", json, net, params)


def text_encoder(layers: int) -> encode.Text:
    """A CLIP text encoder of ViT-L/14's width with weights drawn at random, and a tokenizer of letters."""
    letters = [*sorted(LETTER), *(f"{letter}</w>" for letter in sorted(LETTER))]
    ids = {token: i for i, token in enumerate([*letters, "th", START, END])}
    json = {
        "_class_name": "CLIPTextModel",
        "vocab_size": len(ids),
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": layers,
        "num_attention_heads": 12,
        "max_position_embeddings": 77,
        "eos_token_id": ids[END],
        "hidden_act": "quick_gelu",
    }
    net: ClipTextConfig = family("CLIPTextModel").config(json)
    params = ClipText(net).init(jax.random.key(0), jnp.zeros((1, 77), int))["params"]
    return encode.Text(
        Component("CLIPTextModel", json, net, params), ClipTokenizer(ids=ids, merges=(("t", "h"),), pad=END)
    )


def make(config, source, folder):
    """A compiled step as a function without arguments, which waits for its end."""
    folder.mkdir()
    assets = config.task.assets(folder, config.data, source, new=True)
    task = config.task.task(assets)
    optimizer = training.make_optimizer(config.optimizer, config.train.steps)
    stream = data.batches(source, config.data, batch_size=config.train.batch_size, seed=0, example=task.example)
    batch = next(stream)
    stream.close()
    program = parallel.compile(
        functools.partial(training.make_train_step, task, optimizer, training.make_ema(0.999)),
        training.make_init_state(task, optimizer),
        task.load(parallel.place(config.spec)),
        batch,
        config.spec,
    )
    state = [program.init(jax.random.key(0))]
    on_device, keys = program.put(batch), program.keys(jax.random.key(1), 0, config.train.batch_size)

    def step():
        state[0], metrics = program.step(state[0], on_device, keys)
        jax.block_until_ready(metrics)

    return step


def main(argv):
    """Prints the seconds of both steps, and the median and quartiles of the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--batch", type=int, default=32, help="the config's own by default")
    parser.add_argument("--widths", type=int, nargs="+", default=[128, 256, 512], help="of the autoencoder's levels")
    parser.add_argument("--text-layers", type=int, default=12, help="of the frozen text encoder; 0: none")
    args = parser.parse_args(argv)
    keep_freed()  # as `jaxdiff train` does
    with tempfile.TemporaryDirectory() as folder:
        top = pathlib.Path(folder)
        vae = autoencoder(tuple(args.widths))
        write_component(vae, top / "vae")
        text = text_encoder(args.text_layers) if args.text_layers else None
        if text:
            encode.write_text_encoder(top, text)
        base, split = read_config(CONFIG), f"test[:{2 * args.batch}]"
        base = dataclasses.replace(base, train=dataclasses.replace(base.train, batch_size=args.batch))
        base = dataclasses.replace(base, data=dataclasses.replace(base.data, split=split, articles=False))
        encode.encode(base.data, [split], vae, top / "latents", text=text, config=encode.EncodeConfig(batch=16))
        net = dataclasses.replace(base.task.net, pooled=False)  # frozen states are context alone
        condition = {"condition": "clip", "net": net} if text else {}
        task = dataclasses.replace(base.task, **condition, preview=dataclasses.replace(base.task.preview, prompts=()))
        given = {"autoencoder": top / "vae", "text_encoder": top if text else None, "scale": 1.0}
        fly = dataclasses.replace(base, task=dataclasses.replace(task, **given))
        cached = dataclasses.replace(base, task=task, data=dataclasses.replace(base.data, name=str(top / "latents")))
        steps = {
            name: make(config, data.open_source(config.data), top / name)
            for name, config in {"encoding in the step": fly, "cached latents": cached}.items()
        }
        for step in steps.values():
            step()
        seconds = {name: [] for name in steps}
        for _ in range(args.rounds):
            for name, step in steps.items():
                began = time.perf_counter()
                step()
                seconds[name].append(time.perf_counter() - began)
    for name, many in seconds.items():
        print(f"{name}: {statistics.median(many):.3f} s a step of {args.batch}")
    ratios = np.array(seconds["encoding in the step"]) / np.array(seconds["cached latents"])
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    print(f"ratio: {middle:.2f} (quartiles {low:.2f} to {high:.2f}, {args.rounds} rounds)")


if __name__ == "__main__":
    main(sys.argv[1:])
