"""The models that are measured: an experiment's or published networks, with random weights and made-up inputs."""

import dataclasses
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.data.source import Example
from jaxdiff.data.tokenizer_clip import END, START, ClipTokenizer
from jaxdiff.experiment import Experiment
from jaxdiff.models.autoencoder_kl import AutoencoderKL
from jaxdiff.models.text import TextTransformer
from jaxdiff.models.text_clip import ClipText
from jaxdiff.models.unet import UNet, UNetConfig
from jaxdiff.pretrained.components import family
from jaxdiff.pretrained.read import Bundle, Component
from jaxdiff.pretrained.single_file import KINDS, PRESETS
from jaxdiff.training import Task, TrainState
from jaxdiff.typing import Cond, Params

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
class BenchModel:
    """The networks of a model.

    Attributes:
      name: name of the model.
      unet: its U-Net, which sees pictures of `side` x `side` with `channels`.
      batch: examples of a call, unless another number is asked for.
      tokens, width: of the text's states that the U-Net attends to; 0: none.
      pooled: width of the text's vector; 0: none.
      text: the text encoder.
      decoder: from latents to pictures.
      experiment: what trains it, and where it reads its pictures.
      trained: what it trains, with shapes for weights.
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
    trained: Bundle | None = None
    json: dict[str, Any] = dataclasses.field(default_factory=dict)


def of_experiment(config: Experiment) -> BenchModel:
    """Returns the networks that an experiment trains.

    Raises:
      ValueError: if it trains no diffusion model.
    """
    task, assets = made_up(config)
    shapes = jax.eval_shape(task.init, jax.random.key(0), {}, batch(config, task, 1, 0))
    if "unet" not in shapes.params:
        raise ValueError(
            f"{config.name} trains {', '.join(shapes.params)} and no unet: give a diffusion model's config"
        )
    bundle = config.task.bundle(assets, shapes)
    text = bundle.components["text_encoder"].config if "text_encoder" in bundle.components else None
    return BenchModel(
        config.name,
        bundle.components["unet"].config,
        config.data.size,
        tokens=text.length if text else 0,
        width=text.width if text else 0,
        pooled=text.width if text else 0,
        text=TextTransformer(text) if text else None,
        experiment=config,
        trained=bundle,
    )


def made_up(config: Experiment) -> tuple[Task, Any]:
    """Returns the training of an experiment without its data, and the assets that it has of made-up examples."""
    with tempfile.TemporaryDirectory() as folder:
        assets = config.task.assets(Path(folder), config.data, MadeUp(config), new=True)
    return config.task.task(assets), assets


class MadeUp:
    """A source of noise, whose captions are rows of digits of all lengths."""

    def __init__(self, config: Experiment, seed: int = 0):
        self.labels = tuple(map(str, range(getattr(getattr(config.task, "net", None), "labels", 0))))
        self._size, self._seed = config.data.size, seed

    def __len__(self) -> int:
        return 4096

    def __getitem__(self, index: int) -> Example:
        rng = np.random.default_rng((self._seed, index))
        image = rng.integers(0, 256, (self._size, self._size, 3)).astype(np.uint8)
        return {"image": image, "caption": self._caption(rng), "label": index % max(len(self.labels), 1)}

    def captions(self) -> list[str]:
        """Makes up some captions."""
        return [self._caption(np.random.default_rng(i)) for i in range(16)]

    def _caption(self, rng: np.random.Generator) -> str:
        return " ".join(map(str, rng.integers(0, 10, rng.integers(0, 64))))


def batch(config: Experiment, task: Task, count: int, seed: int) -> dict[str, np.ndarray]:
    """Returns a batch of made-up examples, as the experiment trains on."""
    source = MadeUp(config, seed)
    rows = [task.example(source[i], np.random.default_rng(i)) for i in range(count)]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def published(name: str, size: int | None = None, dtype: str = "float32") -> BenchModel:
    """Returns the networks of one of `PUBLISHED`, for pictures of `size` pixels (by default, the model's own)."""
    json = PRESETS[name]
    size = size or {"sd1": 512, "sd2": 512, "sdxl": 1024}[name]
    if size % 8:
        raise ValueError(f"size is {size}: expected a multiple of 8, since latents are 8 times smaller")
    unet, text, decoder = (_net(part, json[part], dtype) for part in ("unet", "text_encoder", "vae"))
    return BenchModel(
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


def bundle(subject: BenchModel) -> Bundle:
    """Makes a model as it is read from files: random weights, and tokenizers that know ten digits or bytes."""
    if subject.trained:
        components = subject.trained.components
        random = {
            name: dataclasses.replace(part, params=random_params(part.params)) for name, part in components.items()
        }
        return dataclasses.replace(subject.trained, components=random)
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


def _digits(vocabulary: int) -> dict[str, int]:
    return {START: vocabulary - 2, END: vocabulary - 1, **{f"{n}</w>": n for n in range(10)}}


def random_params(shapes: Params, seed: int = 0) -> Any:
    """Draws weights of ordinary size in the shapes of `shapes`: none is zero, so that every layer is heard."""
    rng = np.random.default_rng(seed)

    def leaf(path: tuple[Any, ...], x: Any) -> np.ndarray:
        wave = rng.standard_normal(x.shape, np.float32)
        if path[-1].key == "scale":
            return 1 + 0.1 * wave
        return wave / np.float32(np.sqrt(np.prod(x.shape[:-1]) if len(x.shape) > 1 else 100))

    return jax.tree_util.tree_map_with_path(leaf, shapes)


def random_state(shapes: TrainState, seed: int = 0) -> TrainState:
    """Makes a train state as in the middle of a run, on the host: random weights, and moments of at least 0."""
    rng = np.random.default_rng(seed)

    def moment(x: Any) -> np.ndarray:
        floats = np.issubdtype(x.dtype, np.floating)
        return np.square(rng.standard_normal(x.shape, np.float32)) if floats else np.zeros(x.shape, x.dtype)

    params = random_params(shapes.params)
    opt_state, extra = (jax.tree.map(moment, tree) for tree in (shapes.opt_state, shapes.extra))
    return TrainState(np.zeros((), np.int32), params, opt_state, params, extra)


def noisy(subject: BenchModel, batch: int, seed: int) -> tuple[jax.Array, jax.Array, dict[str, Any]]:
    """Returns noise, times and the fields of a `Cond`, as the U-Net of `subject` takes them."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal((batch, *shape), np.float32)

    fields: dict[str, Any] = {}
    if subject.tokens:
        fields["context"] = normal(subject.tokens, subject.width)
        if subject.experiment:  # CLIP's texts are all as long
            fields["context_mask"] = np.arange(subject.tokens) < rng.integers(2, subject.tokens + 1, (batch, 1))
    if subject.pooled:
        fields["pooled"] = normal(subject.pooled)
    if subject.unet.labels:
        fields["label"] = rng.integers(0, subject.unet.labels, batch).astype(np.int32)
    x = normal(subject.side, subject.side, subject.channels)
    return (
        jnp.asarray(x),
        jnp.asarray(rng.uniform(1, 999, batch), jnp.float32),
        {name: jnp.asarray(value) for name, value in fields.items()},
    )


def tokens(subject: BenchModel, batch: int, seed: int) -> jax.Array:
    """Ids of texts of all lengths, ended as the text encoder expects."""
    assert subject.text is not None
    net, rng = subject.text.config, np.random.default_rng(seed)
    ids = rng.integers(1, net.vocabulary - 2, (batch, net.length)).astype(np.int32)
    if isinstance(subject.text, ClipText):
        ids[:, -1] = net.vocabulary - 1
        return jnp.asarray(ids)
    lengths = rng.integers(2, net.length + 1, (batch, 1))
    return jnp.asarray(np.where(np.arange(net.length) < lengths, ids, 0), jnp.int32)


def unet_params(subject: BenchModel) -> Any:
    """Returns random weights of the U-Net."""
    x, t, fields = noisy(subject, 1, 0)
    shapes = jax.eval_shape(lambda: UNet(subject.unet).init(jax.random.key(0), x, t, Cond(**fields)))
    return random_params(shapes["params"])


def text_params(subject: BenchModel) -> Any:
    """Returns random weights of the text encoder."""
    assert subject.text is not None
    return random_params(jax.eval_shape(subject.text.init, jax.random.key(0), tokens(subject, 1, 0))["params"])
