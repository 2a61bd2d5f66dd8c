"""All parts of Stable Diffusion together, from the prompt to the picture, against the reference pipeline."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference.sd_weights import load, noise, weights
from support import REFERENCE, to_device

from jaxdiff import sampling
from jaxdiff.data import tokenizer_clip
from jaxdiff.diffusion.guidance import classifier_free
from jaxdiff.models.autoencoder_kl import AutoencoderKL, unscaled
from jaxdiff.models.text_clip import ClipText
from jaxdiff.models.unet import UNet
from jaxdiff.pretrained import scheduler
from jaxdiff.pretrained.components import family
from jaxdiff.pretrained.rules import from_tensors
from jaxdiff.typing import Cond

INDEX, PICTURES = load(REFERENCE / "sd_pipeline.npz")
# the reference calls the network at whole steps there, and at the same noise levels; we at the steps they belong to
NEAR = {"dpmpp_2m karras": 2.0}


@pytest.fixture(scope="module")
def parts():
    made = {}
    for name, entry in INDEX["parts"].items():
        one, json = family(entry["class"]), entry["config"]
        net = one.config(json)
        rules = one.rules(net, json)
        made[name] = (net, from_tensors(weights(entry["shapes"]), one.shapes(net, json), rules, to_device))
    return made


@pytest.fixture(scope="module")
def contexts(parts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    saved = np.load(REFERENCE / "sd_tokenizer.npz")
    (folder / "vocab.json").write_bytes(bytes(saved["vocab"]))
    (folder / "merges.txt").write_bytes(bytes(saved["merges"]))
    tokenizer = tokenizer_clip.read(folder)
    net, params = parts["text_encoder"]
    texts = [*INDEX["prompts"], INDEX["negative"]]
    tokens = jnp.asarray(np.stack([tokenizer.encode(text) for text in texts]))
    states = jax.jit(ClipText(net).apply)({"params": params}, tokens)[0]
    return Cond(context=states[:2]), Cond(context=jnp.repeat(states[2:], 2, 0))


@pytest.fixture(scope="module")
def run(parts):
    (net, params), (vae, vae_params) = parts["unet"], parts["vae"]

    def draw(table, x, cond, null, process):
        network = lambda params, x, t, cond: UNet(net).apply({"params": params}, x, t, cond)
        denoise = classifier_free(network, params, cond, null, process.schedule, process.kind)
        z = unscaled(vae, sampling.run(table, denoise, x, jax.random.key(0)))
        return AutoencoderKL(vae).apply({"params": vae_params}, z, method="decode")

    return draw


@pytest.mark.slow
@pytest.mark.parametrize("name", INDEX["schedulers"])
def test_pictures_agree(name, contexts, run):
    process = scheduler.process(INDEX["schedulers"][name])
    times = process.times(INDEX["steps"])
    table = sampling.make_table(process.sampler, process.schedule, INDEX["steps"], times, **process.options)
    table = sampling.with_aux(table, guidance=INDEX["guidance"])
    x = jnp.asarray(noise("first", (2, 4, 8, 8)).transpose(0, 2, 3, 1) * np.float32(1.7) * process.start(times))
    draw = jax.jit(lambda table, x: run(table, x, *contexts, process))
    picture = draw(jax.tree.map(lambda a: np.asarray(a, np.float32), table), x)
    ours = np.clip(np.asarray(picture) / 2 + 0.5, 0, 1) * 255
    assert np.abs(ours - 255 * PICTURES[name]).max() < NEAR.get(name, 0.1)
