"""Pictures from text, from a class, or from nothing: the diffusion model that works on pixels.

`make_task` gives what a training run needs and `make_sample` the whole way from condition to pictures; both are made
of the same three pieces, a condition, a network and a denoiser. `inputs` is what steers a batch: {"tokens": [b l]},
{"label": [b]} or {}.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt8

from jaxdiff import sampling
from jaxdiff.diffusion import draws, guidance, loss, prediction, schedule, times
from jaxdiff.models.text import TextConfig, TextTransformer
from jaxdiff.models.unet import UNet, UNetConfig
from jaxdiff.tasks.task import Task
from jaxdiff.typing import Batch, Cond, Key, Metrics, Network, Params

Inputs = Mapping[str, Array]

SCHEDULES = {"linear": schedule.linear, "scaled_linear": schedule.scaled_linear, "cosine": schedule.cosine}
WEIGHTS: dict[str, Callable[[], loss.Weight] | None] = {
    "simple": None,
    "snr": loss.snr,
    "min_snr": loss.min_snr,
    "v": loss.v,
    "capped_v": loss.capped_v,
}


@dataclasses.dataclass(frozen=True)
class ProcessConfig:
    """The process and the objective.

    Attributes:
      schedule: of the noise, 1000 steps.
      prediction: what the network outputs.
      weight: of the squared error, by log-SNR; `simple` is the plain error of the output.
      condition: what steers the pictures: their captions, their class, or nothing.
      drop: how often the condition is left out in training, for classifier-free guidance.
    """

    schedule: Literal["linear", "scaled_linear", "cosine"] = "cosine"
    prediction: Literal["eps", "x0", "v"] = "eps"
    weight: Literal["simple", "snr", "min_snr", "v", "capped_v"] = "simple"
    condition: Literal["text", "class", "none"] = "text"
    drop: float = 0.1


@dataclasses.dataclass(frozen=True)
class Model:
    """The numbers of a whole model: what a checkpoint's parameters belong to."""

    process: ProcessConfig
    unet: UNetConfig
    text: TextConfig
    size: int


def nothing(model: Model, inputs: Inputs, empty: np.ndarray | None) -> Inputs:
    """The inputs that stand for no condition: the tokens of an empty text, or the label after the last."""
    if "tokens" in inputs:
        assert empty is not None
        return {"tokens": jnp.broadcast_to(jnp.asarray(empty), inputs["tokens"].shape)}
    return {name: jnp.full_like(label, model.unet.labels) for name, label in inputs.items()}


def condition(model: Model, params: Params, inputs: Inputs) -> Cond:
    """What the network is told."""
    if "tokens" in inputs:
        context, mask, pooled = TextTransformer(model.text).apply({"params": params["text"]}, inputs["tokens"])
        return Cond(context=context, context_mask=mask, pooled=pooled)
    return Cond(label=inputs.get("label"))


def network(model: Model, keys: Key | None = None) -> Network:
    """The U-Net as a function of the whole model's parameters; with keys [b] it drops out, as in training."""

    def apply(params: Params, x: Array, t: Array, cond: Cond) -> Any:
        return UNet(model.unet).apply({"params": params["unet"]}, x, t, cond, keys)

    return apply


def inputs_of(model: Model, batch: Batch) -> Inputs:
    """The part of a training batch that is its condition."""
    name = {"text": "tokens", "class": "label", "none": ""}[model.process.condition]
    return {name: batch[name]} if name else {}


def make_task(model: Model, empty: np.ndarray | None = None) -> Task:
    """The training of a model; `empty` [l] are the tokens of an empty text."""
    process = model.process

    def init(key: Key) -> Params:
        unet_key, text_key = jax.random.split(key)
        params: dict[str, Params] = {}
        inputs: dict[str, Array] = {}
        if process.condition == "text":
            tokens = jnp.ones((1, model.text.length), jnp.int32)
            params["text"] = TextTransformer(model.text).init(text_key, tokens)["params"]
            inputs = {"tokens": tokens}
        elif process.condition == "class":
            inputs = {"label": jnp.zeros(1, jnp.int32)}
        picture = jnp.zeros((1, model.size, model.size, 3))
        cond = condition(model, params, inputs)
        return {"unet": UNet(model.unet).init(unet_key, picture, jnp.zeros(1), cond)["params"], **params}

    def loss_fn(params: Params, batch: Batch, keys: Key) -> tuple[Array, Metrics]:
        inputs = inputs_of(model, batch)
        gone = loss.dropped(keys, process.drop)
        inputs = jax.tree.map(
            lambda x, y: jnp.where(gone.reshape(-1, *[1] * (x.ndim - 1)), y, x), inputs, nothing(model, inputs, empty)
        )

        weight = WEIGHTS[process.weight]
        denoising = loss.denoising(
            network(model, keys), SCHEDULES[process.schedule](), process.prediction, weight() if weight else None
        )
        x0 = batch["image"].astype(jnp.float32) / 127.5 - 1
        t = times.uniform()(draws.uniform(keys))
        return denoising(params, x0, t, condition(model, params, inputs), keys).mean(), {}

    return Task(init, loss_fn)


def make_sample(model: Model) -> Callable[..., UInt8[Array, "b h w 3"]]:
    """A pure function (params, table, inputs, negative, keys [b], noise or None) -> uint8 pictures.

    `negative` are the inputs to keep away from (`nothing`); the table's `guidance` says how far. `noise` is the first
    picture, unit Gaussian; without it, each picture's comes from its own key.
    """
    process = model.process
    schedule = SCHEDULES[process.schedule]()

    def sample(
        params: Params, table: sampling.Table, inputs: Inputs, negative: Inputs, keys: Key, noise: Array | None = None
    ) -> Array:
        if noise is None:
            # steps fold in their number, which is never so large
            first = jax.vmap(lambda key: jax.random.fold_in(key, 2**31 - 1))(keys)
            noise = jax.vmap(lambda key: jax.random.normal(key, (model.size, model.size, 3)))(first)
        cond = condition(model, params, inputs)
        if inputs:
            away = condition(model, params, negative)
            denoise = guidance.classifier_free(network(model), params, cond, away, schedule, process.prediction)
        else:
            denoise = prediction.denoiser(network(model), params, cond, schedule, process.prediction)

        def clipped(x_t: Array, t: Array, aux: Any) -> Array:
            return jnp.clip(denoise(x_t, t, aux), -1, 1)  # a picture has no other values (Ho et al. 2020)

        x = sampling.run(table, clipped, sampling.start(schedule, table, noise), keys)
        assert isinstance(x, jax.Array)
        return to_pixels(x)

    return sample


def to_pixels(x: Array) -> UInt8[Array, "..."]:
    """[-1, 1] -> 0..255, rounded."""
    return jnp.round(jnp.clip(x * 127.5 + 127.5, 0, 255)).astype(jnp.uint8)
