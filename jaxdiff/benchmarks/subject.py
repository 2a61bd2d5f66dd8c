"""What is measured: the networks of an experiment or of a published model, with random weights and made-up inputs."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.data.tokenizer import BytePair
from jaxdiff.data.tokenizer_clip import END, START, ClipTokenizer
from jaxdiff.experiment import Experiment
from jaxdiff.models.autoencoder_kl import AutoencoderKL
from jaxdiff.models.text import TextTransformer
from jaxdiff.models.text_clip import ClipText
from jaxdiff.models.unet import UNet, UNetConfig
from jaxdiff.pipelines.bundles import diffusion_bundle
from jaxdiff.pretrained import scheduler
from jaxdiff.pretrained.components import family
from jaxdiff.pretrained.read import Bundle, Component
from jaxdiff.pretrained.single_file import KINDS, PRESETS
from jaxdiff.tasks.picture import SCHEDULES
from jaxdiff.training import TrainState
from jaxdiff.typing import Cond, Key, Params

PUBLISHED = ("sd1", "sd2", "sdxl")
"""Published models whose networks are measured, at their own resolution, batch 2: the guided pair of one picture."""

SCHEDULER = {
    "_class_name": "DDIMScheduler",
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "clip_sample": False,
}
"""scheduler_config.json that published models are measured with."""


@dataclasses.dataclass(frozen=True)
class Subject:
    """The networks of a model.

    Attributes:
      name: of the model.
      unet: its U-Net, which sees pictures of `side` x `side` with `channels`.
      batch: examples of a call, unless another number is asked for.
      tokens, width: of the text's states that the U-Net attends to; 0: none.
      pooled: width of the text's vector; 0: none.
      text: the text encoder.
      decoder: from latents to pictures.
      experiment: what trains it, and where it reads its pictures.
      json: config.json of each network, for a published model.
    """

    name: str
    unet: UNetConfig
    side: int
    channels: int = 3
    batch: int = 16
    tokens: int = 0
    width: int = 0
    pooled: int = 0
    text: TextTransformer | ClipText | None = None
    decoder: AutoencoderKL | None = None
    experiment: Experiment | None = None
    json: dict[str, Any] = dataclasses.field(default_factory=dict)


def of_experiment(config: Experiment) -> Subject:
    """The networks that an experiment trains."""
    told = config.process.condition == "text"
    return Subject(
        config.name,
        config.unet,
        config.data.size,
        tokens=config.text.length if told else 0,
        width=config.text.width if told else 0,
        pooled=config.text.width if told else 0,
        text=TextTransformer(config.text) if told else None,
        experiment=config,
    )


def published(name: str, size: int | None = None, dtype: str = "float32") -> Subject:
    """The networks of one of `PUBLISHED`, for pictures of `size` pixels (by default, the model's own)."""
    json = PRESETS[name]
    size = size or {"sd1": 512, "sd2": 512, "sdxl": 1024}[name]
    if size % 8:
        raise ValueError(f"size is {size}: expected a multiple of 8, since latents are 8 times smaller")
    unet, text, decoder = (_net(part, json[part], dtype) for part in ("unet", "text_encoder", "vae"))
    return Subject(
        name,
        unet,
        size // 8,
        channels=4,
        batch=2,
        tokens=text.length,
        width=json["unet"]["cross_attention_dim"],
        pooled=json["unet"].get("projection_class_embeddings_input_dim", 0),
        text=ClipText(text),
        decoder=AutoencoderKL(decoder),
        json=json,
    )


def _net(part: str, json: Mapping[str, Any], dtype: str) -> Any:
    return dataclasses.replace(family(KINDS[part]).config(json), dtype=dtype)


def bundle(subject: Subject) -> Bundle:
    """A model as it is read from its files: with random weights, and tokenizers that know ten digits or bytes."""
    if subject.experiment:
        return _trained(subject, subject.experiment)
    dtype, parts = subject.unet.dtype, {}
    for part, json in subject.json.items():
        net = _net(part, json, dtype)
        params = random_params(family(KINDS[part]).shapes(net, json))
        params = jax.tree.map(lambda x: jnp.asarray(x, dtype), params)
        parts[part] = Component(KINDS[part], json, net, params)
    words = {
        name.replace("text_encoder", "tokenizer"): ClipTokenizer(_digits(part.config.vocabulary), ())
        for name, part in parts.items()
        if name.startswith("text_encoder")
    }
    index = {"_class_name": subject.name, "scheduler": ["diffusers", SCHEDULER["_class_name"]]}
    index |= {name: ["transformers", "CLIPTokenizer"] for name in words}
    return Bundle(subject.name, index, parts, words, {"scheduler": SCHEDULER})


def _trained(subject: Subject, config: Experiment) -> Bundle:
    params, process, text = {"unet": unet_params(subject)}, config.process, config.process.condition == "text"
    if text:
        params["text"] = text_params(subject)
    return diffusion_bundle(
        config.unet,
        params,
        process=scheduler.native(SCHEDULES[process.schedule](), process.prediction, clip=1.0),
        size=subject.side,
        text=config.text if text else None,
        vocabulary=BytePair() if text else None,
        labels=[str(n) for n in range(config.unet.labels)],
    )


def _digits(vocabulary: int) -> dict[str, int]:
    return {START: vocabulary - 2, END: vocabulary - 1, **{f"{n}</w>": n for n in range(10)}}


def random_params(shapes: Params, seed: int = 0) -> Any:
    """Weights of ordinary size in the shapes of `shapes`: none is zero, so that every layer is heard in the output."""
    rng = np.random.default_rng(seed)

    def leaf(path: tuple[Any, ...], x: Any) -> np.ndarray:
        wave = rng.standard_normal(x.shape, np.float32)
        if path[-1].key == "scale":
            return 1 + 0.1 * wave
        return wave / np.float32(np.sqrt(np.prod(x.shape[:-1]) if len(x.shape) > 1 else 100))

    return jax.tree_util.tree_map_with_path(leaf, shapes)


def random_state(make_state: Callable[[Key], TrainState], seed: int = 0) -> TrainState:
    """A train state as in the middle of a run, on the host: random weights and moments, which are not negative."""
    shapes = jax.eval_shape(make_state, jax.random.key(0))
    rng = np.random.default_rng(seed)

    def moment(x: Any) -> np.ndarray:
        floats = np.issubdtype(x.dtype, np.floating)
        return np.square(rng.standard_normal(x.shape, np.float32)) if floats else np.zeros(x.shape, x.dtype)

    params = random_params(shapes.params)
    return TrainState(np.zeros((), np.int32), params, jax.tree.map(moment, shapes.opt_state), params)


def noisy(subject: Subject, batch: int, seed: int) -> tuple[jax.Array, jax.Array, dict[str, Any]]:
    """Noise, times and the fields of a `Cond`, as the U-Net of `subject` takes them."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal((batch, *shape), np.float32)

    told: dict[str, Any] = {}
    if subject.tokens:
        told["context"] = normal(subject.tokens, subject.width)
        if subject.experiment:  # CLIP's texts are all as long
            told["context_mask"] = np.arange(subject.tokens) < rng.integers(2, subject.tokens + 1, (batch, 1))
    if subject.pooled:
        told["pooled"] = normal(subject.pooled)
    if subject.unet.labels:
        told["label"] = rng.integers(0, subject.unet.labels, batch).astype(np.int32)
    x = normal(subject.side, subject.side, subject.channels)
    return (
        jnp.asarray(x),
        jnp.asarray(rng.uniform(1, 999, batch), jnp.float32),
        {name: jnp.asarray(value) for name, value in told.items()},
    )


def tokens(subject: Subject, batch: int, seed: int) -> jax.Array:
    """Ids of texts of all lengths, ended as the text encoder expects."""
    assert subject.text is not None
    net, rng = subject.text.config, np.random.default_rng(seed)
    ids = rng.integers(1, net.vocabulary - 2, (batch, net.length)).astype(np.int32)
    if isinstance(subject.text, ClipText):
        ids[:, -1] = net.vocabulary - 1
        return jnp.asarray(ids)
    lengths = rng.integers(2, net.length + 1, (batch, 1))
    return jnp.asarray(np.where(np.arange(net.length) < lengths, ids, 0), jnp.int32)


def unet_params(subject: Subject) -> Any:
    """Random weights of the U-Net."""
    x, t, told = noisy(subject, 1, 0)
    shapes = jax.eval_shape(lambda: UNet(subject.unet).init(jax.random.key(0), x, t, Cond(**told)))
    return random_params(shapes["params"])


def text_params(subject: Subject) -> Any:
    """Random weights of the text encoder."""
    assert subject.text is not None
    return random_params(jax.eval_shape(subject.text.init, jax.random.key(0), tokens(subject, 1, 0))["params"])
