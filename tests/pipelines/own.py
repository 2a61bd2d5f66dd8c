"""Small models of our own training, with weights drawn at random: told a text, a class, or nothing."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.data import BytePair
from jaxdiff.diffusion import schedule
from jaxdiff.models.text import TextConfig, TextTransformer
from jaxdiff.models.unet import UNet, UNetConfig
from jaxdiff.pipelines.bundles import diffusion_bundle
from jaxdiff.pipelines.diffusion import DiffusionPipeline
from jaxdiff.pretrained import scheduler
from jaxdiff.typing import Cond

CLASSES = ("cat", "dog", "frog")
VOCABULARY = BytePair.learn(["red heart", "blue square", "green book"], 300)
WORDS = TextConfig(vocabulary=300, length=8, width=8, layers=1, heads=2)
FREE = UNetConfig(
    channels=(8,), layers=1, attention=("none",), mid_attention="none", heads=(1,), depth=(1,), groups=4
)  # fmt: skip
NETS = {
    "nothing": FREE,
    "class": dataclasses.replace(FREE, labels=3),
    "text": UNetConfig(
        channels=(8, 8), layers=1, attention=("none", "cross"), mid_attention="none", heads=(1, 2), depth=(1, 1),
        groups=4, pooled=True,
    ),
}  # fmt: skip


def process(kind="x0", of=schedule.cosine):
    return scheduler.native(of(), kind, clip=1.0)


def cond(told, rows=1):
    if told == "text":
        vectors, mask = jnp.zeros((rows, 8, 8)), jnp.ones((rows, 8), bool)
        return Cond(context=vectors, context_mask=mask, pooled=vectors[:, 0])
    return Cond(label=jnp.zeros(rows, jnp.int32) if told == "class" else None)


def weights(told, size=8, scale=0.3):
    picture, key = jnp.zeros((1, size, size, 3)), jax.random.key(0)
    shapes = {"unet": jax.eval_shape(UNet(NETS[told]).init, key, picture, jnp.zeros(1), cond(told))["params"]}
    if told == "text":
        ids = jnp.zeros((1, WORDS.length), jnp.int32)
        shapes["text"] = jax.eval_shape(TextTransformer(WORDS).init, key, ids)["params"]
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape) * scale, jnp.float32), shapes)


def bundle(told, params=None, size=8, **options):
    given = {"text": WORDS, "vocabulary": VOCABULARY} if told == "text" else {}
    given |= {"labels": CLASSES} if told == "class" else {}
    params = weights(told, size) if params is None else params
    return diffusion_bundle(NETS[told], params, **{"process": process(), "size": size, **given, **options})


def pipeline(told, devices=1, size=8, **options):
    """On one device: eight virtual ones would each make a picture."""
    return DiffusionPipeline(bundle(told, size=size), devices=jax.devices()[:devices], **options)


def open_run(path, place=None):
    """What `experiment.open_run` gives, without a trainer: a run by the kind of model that its path names."""
    made = bundle(path.name)
    task = types.SimpleNamespace(
        bundle=lambda assets, weights: made,
        pipeline=lambda assets, weights, spec: DiffusionPipeline(made, spec=spec),
    )
    return types.SimpleNamespace(config=types.SimpleNamespace(task=task), assets=None, weights=None)
