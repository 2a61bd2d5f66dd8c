"""Pictures from text as tokens (DALL-E): one transformer says a caption's tokens and then the codes of a picture.

    loss = 1/8 mean over text tokens of -log p + 7/8 mean over codes of -log p

The codes are the likeliest of a discrete VAE (tasks.dvae) or the nearest of a VQ autoencoder (tasks.first_stage), which
stays as it is; a copy lies in the run's directory. A part of the captions is left out, for guidance of the logits.

Sources: Ramesh et al. 2021, arXiv 2102.12092, section 2.2; captions left out as Gafni et al. 2022 (Make-A-Scene), arXiv
2203.13131, section 3.4.
"""

import dataclasses
import math
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxdiff.data.source import DataConfig, Example, Source
from jaxdiff.data.tokenizer import BytePair
from jaxdiff.diffusion import loss as losses
from jaxdiff.models import text_image_transformer
from jaxdiff.models.config import NetConfig
from jaxdiff.models.text_image_transformer import TextImageTransformer, TextImageTransformerConfig
from jaxdiff.objectives import likelihood
from jaxdiff.parallel import MeshSpec
from jaxdiff.pipelines.pipeline import once
from jaxdiff.pipelines.program import to_pixels
from jaxdiff.pipelines.tokens import Options, TokenPipeline
from jaxdiff.pretrained.read import Component
from jaxdiff.sampling.tokens import Numbers
from jaxdiff.tasks import codes
from jaxdiff.tasks.first_stage_loss import to_unit
from jaxdiff.tasks.task import Spec, TaskConfig
from jaxdiff.training import Known, OptimizerConfig, Preview, Task, Variables
from jaxdiff.training.workdir import by_first
from jaxdiff.typing import Batch, Key, Metrics, Params


class Assets(NamedTuple):
    """Holds what a run is beside its numbers and weights.

    Attributes:
      size: side of the pictures.
      vocabulary: vocabulary of the captions.
      part: the autoencoder.
    """

    size: int
    vocabulary: BytePair
    part: Component


@dataclasses.dataclass(frozen=True)
class PreviewConfig:
    """The sample grids that a run writes.

    Attributes:
      prompts: texts, one picture each.
      temperature: see `pipelines.tokens.Options`.
      top_k: likewise.
      top_p: likewise.
      guidance: likewise.
    """

    prompts: tuple[str, ...] = ()
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    guidance: float = 3.0

    def options(self) -> Options:
        """Returns the options of its calls."""
        return Options(self.temperature, self.top_k, self.top_p, self.guidance)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(TaskConfig):
    """A transformer over text and then picture tokens.

    Attributes:
      net: the network, a text_image_transformer.
      autoencoder: the run, or the directory, of the autoencoder whose codes are drawn.
      length: tokens of a caption, with its start and end; longer ones are cut.
      vocabulary: largest size of the byte-pair vocabulary, which is learned from the captions.
      text_weight: weight of the text's loss; that of the codes has what is left of 1.
      drop: probability that training leaves the caption out, for guidance.
      preview: sample grids that the run writes.
    """

    net: NetConfig = TextImageTransformerConfig()
    autoencoder: str = ""
    length: int = 32
    vocabulary: int = 1024
    text_weight: float = 1 / 8
    drop: float = 0.1
    preview: PreviewConfig = PreviewConfig()

    def check(self, data: DataConfig, optimizer: OptimizerConfig) -> None:
        """Refuses numbers that do not fit each other or the data."""
        if not isinstance(self.net, TextImageTransformerConfig):
            raise ValueError(f"task.net is a {type(self.net).__name__}: expected text_image_transformer")
        self.net.check()
        if not 2 <= self.length <= 4096:
            raise ValueError(f"task.length is {self.length}: expected 2 to 4096")
        BytePair.learn((), self.vocabulary)  # refuses a size too small
        for name in ("text_weight", "drop"):
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise ValueError(f"task.{name} is {value}: expected at least 0 and at most 1")
        self.preview.options().check()

    def assets(self, folder: Path, data: DataConfig, source: Source | None = None, *, new: bool = False) -> Assets:
        """Reads the vocabulary and the autoencoder of a run, or makes and copies them.

        Raises:
          FileNotFoundError, ValueError: if there is none, or an autoencoder of other pictures or other codes.
        """
        path = folder / "vocabulary.json"
        if new:
            captions = source.captions() if source is not None else ()
            by_first(lambda: codes.keep(self.autoencoder, folder))
            by_first(lambda: BytePair.learn(captions, self.vocabulary).write(path))
        part = codes.kept(folder)
        part.config.check(data.size, data.size)
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing: put it back, or train in another workdir")
        vocabulary = BytePair.read(path)
        if vocabulary.size > self.vocabulary:
            raise ValueError(
                f"{path} has {vocabulary.size} ids and task.vocabulary is {self.vocabulary}: put the run's own back"
            )
        return Assets(data.size, vocabulary, part)

    def task(self, assets: Assets, spec: Spec = MeshSpec()) -> Task:
        """Returns the training of the transformer."""
        part, network = assets.part, self._network(assets)

        def init(key: Key, loaded: Params, batch: Batch) -> Variables:
            index = jnp.zeros((1, math.prod(network.shape)), jnp.int32)
            return Variables(network.init(key, jnp.zeros((1, self.length), jnp.int32), index)["params"], dict(loaded))

        def loss(drop: float) -> Any:
            return lambda *args: self._loss(assets, network, drop, *args)

        return Task(
            init=init,
            loss=loss(self.drop),
            held_out=loss(0.0),
            example=lambda one, rng: self._row(assets, one),
            load=lambda place: jax.device_put(part.params, place(part.params)),
            previews={"prompts": self._preview(assets, spec)} if self.preview.prompts else {},
        )

    def _row(self, assets: Assets, one: Example) -> dict[str, np.ndarray]:
        return {"image": one["image"], "tokens": assets.vocabulary.encode(one["caption"], self.length)}

    def _network(self, assets: Assets) -> TextImageTransformer:
        net: Any = self.net
        side = assets.size // assets.part.config.unit
        return TextImageTransformer(net, self.vocabulary, self.length, (side, side), assets.part.config.codes)

    def _loss(
        self, assets: Assets, network: Any, drop: float, params: Params, known: Known, batch: Batch, keys: Key
    ) -> tuple[Array, Metrics, Any]:
        coder = assets.part.config.build()
        index = coder.apply({"params": known.frozen}, to_unit(batch["image"]), method="index")
        index = index.reshape(len(index), -1)
        empty = jnp.asarray(assets.vocabulary.encode("", self.length))[None]
        tokens = jnp.where(losses.dropped(keys, drop)[:, None], empty, batch["tokens"])
        words, values = network.apply({"params": params}, tokens, index)
        said = text_image_transformer.padded(tokens, self.vocabulary)[:, 1:]
        text, image = (-likelihood.categorical(logits, x).mean() for logits, x in ((words, said), (values, index)))
        return self.text_weight * text + (1 - self.text_weight) * image, {"text": text, "image": image}, {}

    def pipeline(self, assets: Assets, weights: Variables, spec: Spec = MeshSpec()) -> TokenPipeline:
        """Returns what draws pictures from prompts."""
        network, coder, vocabulary = self._network(assets), assets.part.config.build(), assets.vocabulary

        def draw(weights: Variables, ids: Array, away: Array | None, keys: Key, numbers: Numbers) -> Array:
            index = text_image_transformer.sample(network, weights.params, ids, away, keys, numbers)
            index = index.reshape(-1, *network.shape)
            return to_pixels(coder.apply({"params": weights.frozen}, index, method="picture"))

        return TokenPipeline(
            weights._replace(extra={}),
            draw,
            encode=lambda prompt: vocabulary.encode(prompt, self.length),
            cut=lambda prompt: vocabulary.cut(prompt, self.length)[1],
            size=assets.size,
            calls=math.prod(network.shape),
            spec=spec,
        )

    def _preview(self, assets: Assets, spec: Spec) -> Any:
        pipeline_of = once(lambda weights: self.pipeline(assets, weights, spec))
        prompts, options = self.preview.prompts, self.preview.options()

        def preview(weights: Variables, key: Key) -> Preview:
            pipe = pipeline_of(weights)
            pipe.weights = weights._replace(extra={})
            return Preview(pipe(prompts, key=key, options=options), prompts)

        return preview
