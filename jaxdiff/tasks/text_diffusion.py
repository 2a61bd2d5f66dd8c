"""Diffusion of the letters of captions: masked, in continuous time, or multinomial, a chain where they turn to others.

A caption is `length` symbols, small letters, digits and a few signs, filled up with an end. The loss is the bound in
bits a symbol, at a time that is drawn for each caption (`diffusion.masked`, `diffusion.categorical`). Multinomial
diffusion is D3PM's uniform chain, trained on the bound alone.

Sources: Sahoo et al. 2024, arXiv 2406.07524; Hoogeboom et al. 2021 (multinomial), arXiv 2102.05379, section 4.
"""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from PIL import Image, ImageDraw, ImageFont

from jaxdiff.data.source import DataConfig, Example
from jaxdiff.diffusion import categorical, masked
from jaxdiff.models.config import NetConfig
from jaxdiff.models.token_transformer import TokenTransformer, TokenTransformerConfig
from jaxdiff.objectives import likelihood
from jaxdiff.parallel import MeshSpec
from jaxdiff.pipelines.direct import Tempered, kept
from jaxdiff.pipelines.originals import OriginalsPipeline
from jaxdiff.sampling import walk
from jaxdiff.tasks.task import Spec, TaskConfig
from jaxdiff.training import Known, OptimizerConfig, Preview, Task, Variables
from jaxdiff.typing import Batch, Key, Metrics, Params

SYMBOLS = "\n abcdefghijklmnopqrstuvwxyz0123456789-'"
"""The first one is the end."""
LEVELS = len(SYMBOLS)


def encode(text: str, length: int) -> np.ndarray:
    """Returns the symbols of a text, int32 [length]; others than there are become spaces."""
    ids = [max(SYMBOLS.find(letter), 1) for letter in text.lower().replace("\n", " ")][:length]
    return np.array(ids + [0] * (length - len(ids)), np.int32)


def decode(symbols: Any) -> str:
    """Returns the text before the first end."""
    return "".join(SYMBOLS[int(i)] for i in symbols).partition("\n")[0]


def drawn(text: str, length: int) -> np.ndarray:
    """Returns a picture of a text, uint8 [14 w 3], as wide as any of that length."""
    image = Image.new("RGB", (7 * length + 4, 14), "white")
    ImageDraw.Draw(image).text((2, 1), text, "black", ImageFont.load_default(10))
    return np.asarray(image)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(TaskConfig):
    """Diffusion of captions.

    Attributes:
      net: the network.
      process: how letters are lost.
      length: symbols of a caption; longer ones are cut.
      steps: steps of sampling, and of the multinomial chain.
      previews: texts that the run shows of itself.
    """

    net: NetConfig = TokenTransformerConfig()
    process: Literal["masked", "multinomial"] = "masked"
    length: int = 32
    steps: int = 64
    previews: int = 16

    def check(self, data: DataConfig, optimizer: OptimizerConfig) -> None:
        """Refuses numbers that do not fit each other."""
        if not isinstance(self.net, TokenTransformerConfig):
            raise ValueError(f"task.net is a {type(self.net).__name__}: expected token_transformer")
        self.net.check()
        for name, least, most in (("length", 1, 1024), ("steps", 2, 10_000), ("previews", 0, 256)):
            if not least <= (value := getattr(self, name)) <= most:
                raise ValueError(f"task.{name} is {value}: expected {least} to {most}")

    def task(self, assets: Any, spec: Spec = MeshSpec()) -> Task:
        """Returns the training of the network."""
        previews = {"texts": self._preview(spec)} if self.previews else {}
        return Task(init=self._init, loss=self._loss, example=self._example, previews=previews)

    def _example(self, one: Example, rng: np.random.Generator) -> dict[str, np.ndarray]:
        return {"text": encode(one["caption"], self.length)}

    def _network(self) -> TokenTransformer:
        net: Any = self.net
        return TokenTransformer(net, self.length, LEVELS)

    def _chain(self) -> categorical.Chain:
        return categorical.chain("uniform", LEVELS, self.steps)

    def _init(self, key: Key, loaded: Params, batch: Batch) -> Variables:
        return Variables(self._network().init(key, jnp.zeros((1, self.length), jnp.int32), jnp.zeros(1))["params"])

    def _says(self, params: Params, x: Array, t: Array) -> Any:
        return self._network().apply({"params": params}, x, t)

    def _loss(self, params: Params, known: Known, batch: Batch, keys: Key) -> tuple[Array, Metrics, Any]:
        x = jnp.asarray(batch["text"])
        when, noise = (jax.vmap(lambda key, i=i: jax.random.fold_in(key, i))(keys) for i in range(2))
        u = jax.vmap(jax.random.uniform)(when)
        if self.process == "masked":
            t = 1 - u  # in (0, 1]
            xt = masked.noised(x, t, noise, LEVELS)
            nats = masked.terms(self._says(params, xt, t), x, xt, t, LEVELS)
        else:
            of = self._chain()
            at = 1 + jnp.floor(u * of.steps).astype(jnp.int32)
            xt = categorical.noised(of, x, at, noise)
            term = categorical.terms(of, self._says(params, xt, at / of.steps), x, xt, at)
            nats = of.steps * term.sum(1) + categorical.prior_term(of, x).sum(1)
        return likelihood.bits(-nats, self.length).mean(), {}, {}

    def draw(self, params: Params, keys: Key, temperature: Any = 1.0) -> Array:
        """Returns the symbols of texts, one from each key."""
        says = lambda x, t: self._says(params, x, t) / temperature
        if self.process == "masked":
            return walk.unmasked(LEVELS, says, keys, (self.length,), self.steps)
        return walk.levels(self._chain(), lambda x, t: says(x, t / self.steps), keys, (self.length,))

    def pipeline(self, assets: Any, weights: Variables, spec: Spec = MeshSpec()) -> OriginalsPipeline:
        """Returns what draws texts, shows them as pictures, and writes OUT.txt with a line for each."""

        def draw(weights: Any, numbers: Any, keys: Any, label: Any) -> Array:
            return self.draw(weights.params, keys, numbers["temperature"])

        def write(out: Path, symbols: np.ndarray) -> list[Path]:
            path = out.with_suffix(".txt")
            path.write_text("".join(f"{decode(one)}\n" for one in symbols))
            return [path]

        show = lambda symbols: np.stack([drawn(decode(one), self.length) for one in symbols])
        return OriginalsPipeline(weights, draw, show, write, options=Tempered, calls=self.steps, spec=spec)

    def _preview(self, spec: Spec) -> Any:
        with_weights = kept(lambda weights: self.pipeline(None, weights, spec))

        def preview(weights: Variables, key: Key) -> Preview:
            images, symbols = with_weights(weights).both([""] * self.previews, key=key)
            return Preview(images, tuple(map(decode, symbols)))

        return preview
