"""Pictures from text, from a class, or from nothing: diffusion on pixels."""

import dataclasses
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxdiff import sampling
from jaxdiff.data.source import DataConfig, Example, Source
from jaxdiff.data.tokenizer import BytePair
from jaxdiff.diffusion import loss as losses
from jaxdiff.diffusion.process import ProcessConfig
from jaxdiff.models.config import NetConfig
from jaxdiff.models.text import TextConfig, TextTransformer
from jaxdiff.models.unet import UNetConfig
from jaxdiff.parallel import MeshSpec
from jaxdiff.pipelines.bundles import diffusion_bundle
from jaxdiff.pipelines.diffusion import DiffusionPipeline
from jaxdiff.pretrained import scheduler
from jaxdiff.pretrained.read import Bundle
from jaxdiff.tasks.task import Spec, TaskConfig
from jaxdiff.training import Known, OptimizerConfig, Preview, Task, Variables
from jaxdiff.training.workdir import write_text
from jaxdiff.typing import Batch, Cond, Key, Metrics, Params


class Assets(NamedTuple):
    """What a model is beside its numbers and weights.

    Attributes:
      size: side of the pictures.
      vocabulary: of a model that reads text.
      labels: names of the classes, of a model that knows classes.
    """

    size: int
    vocabulary: BytePair | None = None
    labels: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class PreviewConfig:
    """The sample grids that a run writes.

    Attributes:
      prompts: one picture each; class names where the model knows classes.
      sampler: a name in `sampling.SAMPLERS`; None: the process's own.
      steps: of the sampler.
      guidance: 1 is off.
    """

    prompts: tuple[str, ...] = ()
    sampler: str | None = None
    steps: int = 20
    guidance: float = 3.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(TaskConfig):
    """Diffusion on pixels.

    Attributes:
      process: the noise and the objective.
      net: the network that denoises.
      text: the text encoder, trained with it.
      condition: what steers the pictures: their captions, their class, or nothing.
      drop: how often the condition is left out in training, for classifier-free guidance.
      vocabulary: most ids the byte-pair vocabulary may have; it is learned from the captions.
      preview: what the run shows of itself.
    """

    process: ProcessConfig = ProcessConfig()
    net: NetConfig = UNetConfig()
    text: TextConfig = TextConfig()
    condition: Literal["text", "class", "none"] = "text"
    drop: float = 0.1
    vocabulary: int = 1024
    preview: PreviewConfig = PreviewConfig()

    def check(self, data: DataConfig, optimizer: OptimizerConfig) -> None:
        """Refuses numbers that do not fit each other or the data."""
        process = self.process
        if process.objective not in ("denoising", "bound"):
            raise ValueError(
                f"task.process.objective is {process.objective!r}, whose models this task cannot sample: expected "
                "denoising or bound"
            )
        if process.variance == "learned":
            raise ValueError("task.process.variance is 'learned', which this task cannot sample: expected small, large")
        process.check()
        self.net.check(*self._sides(data))
        labels, pooled = getattr(self.net, "labels", 0), getattr(self.net, "pooled", False)
        expected = self.process.out_channels(self._channels())
        if (out := getattr(self.net, "out_channels", expected)) != expected:
            raise ValueError(f"task.net.out_channels is {out}: expected {expected} for pictures with this process")
        if (self.condition == "class") != (labels > 0):
            raise ValueError(
                f"task.condition is {self.condition!r} and task.net.labels is {labels}: a class condition needs the "
                "number of classes in task.net.labels, any other needs 0"
            )
        if (self.condition == "text") != pooled:
            raise ValueError(
                f"task.condition is {self.condition!r} and task.net.pooled is {pooled}: text, and only text, needs it"
            )
        if not 0 <= self.drop <= 1:
            raise ValueError(f"task.drop is {self.drop}: expected at least 0 and at most 1")
        if self.condition == "text":
            self.text.check()
            BytePair.learn((), self.vocabulary)  # refuses a size too small
            if self.text.vocabulary < self.vocabulary:
                raise ValueError(
                    f"task.text.vocabulary is {self.text.vocabulary}, below task.vocabulary {self.vocabulary}: raise it"
                )
        if not np.isfinite(self.preview.guidance):
            raise ValueError(f"task.preview.guidance is {self.preview.guidance}: expected a number")
        if process.schedule != "learned":  # of which no grid is known before training
            preview, grid = self.preview, None if self.preview.sampler else process.grid()
            sampling.make_table(preview.sampler or process.sampler(), process.make_schedule(), preview.steps, grid)

    def _sides(self, data: DataConfig) -> tuple[int, ...]:
        """Of what the network sees."""
        return data.size, data.size

    def _channels(self) -> int:
        return 3

    def assets(self, folder: Path, data: DataConfig, source: Source | None = None, *, new: bool = False) -> Assets:
        """Reads vocabulary.json or labels.txt of a run, or makes it of the captions or classes of the data."""
        if self.condition == "text":
            path = folder / "vocabulary.json"
            if new and source is not None:
                write_text(path, BytePair.learn(source.captions(), self.vocabulary).to_json())
            return Assets(data.size, vocabulary=_read(path, BytePair.from_json))
        if self.condition == "class":
            path, classes = folder / "labels.txt", getattr(self.net, "labels", 0)
            if source is not None and len(source.labels) != classes:
                raise ValueError(
                    f"task.net.labels is {classes}, but {data.name} has {len(source.labels)} classes: set it to that"
                )
            if new and source is not None:
                write_text(path, "\n".join(source.labels))
            labels = _read(path, lambda text: tuple(text.splitlines()))
            if len(labels) != classes:
                raise ValueError(f"{path} has {len(labels)} classes and task.net.labels is {classes}: put it right")
            if source is not None and labels != tuple(source.labels):
                raise ValueError(f"{path} names other classes than {data.name}: give the data of the run")
            return Assets(data.size, labels=labels)
        return Assets(data.size)

    def task(self, assets: Assets, spec: Spec = MeshSpec()) -> Task:
        """Returns the training of the model."""
        self._check_preview(assets)
        vocabulary: Any = assets.vocabulary
        encode = lambda text: vocabulary.encode(text, self.text.length)
        empty = encode("") if self.condition == "text" else None

        def init(key: Key, loaded: Params, batch: Batch) -> Variables:
            net_key, text_key = jax.random.split(key)
            one = jax.tree.map(lambda x: jnp.zeros_like(x, shape=(1, *x.shape[1:])), dict(batch))
            params: dict[str, Any] = {}
            if "tokens" in one:
                params["text"] = TextTransformer(self.text).init(text_key, one["tokens"] + 1)["params"]
            cond = self._cond(params, one)
            x = one["image"].astype(jnp.float32)
            own_key, net_key = jax.random.split(net_key) if self.process.schedule == "learned" else (key, net_key)
            params["unet"] = self.net.build().init(net_key, x, jnp.zeros(1), cond)["params"]
            return Variables({**params, **self.process.init_params(own_key)}, extra=self.process.init_extra())

        def make_loss(net: NetConfig) -> Any:
            network: Any = net.build()
            away: dict[str, Any] = {"tokens": empty, "label": getattr(net, "labels", 0)}

            def loss(params: Params, known: Known, batch: Batch, keys: Key) -> tuple[Array, Metrics, Any]:
                gone = losses.dropped(keys, self.drop)
                told = {name: value for name, value in batch.items() if name != "image"}
                told = {
                    name: jnp.where(
                        gone.reshape(-1, *[1] * (value.ndim - 1)), jnp.broadcast_to(away[name], value.shape), value
                    )
                    for name, value in told.items()
                }
                x0 = batch["image"].astype(jnp.float32) / 127.5 - 1
                apply = lambda params, x, t, cond: network.apply({"params": params["unet"]}, x, t, cond, keys)
                return self.process.loss(apply)(params, known, x0, self._cond(params, told), keys)

            return loss

        def example(one: Example, rng: np.random.Generator) -> dict[str, np.ndarray]:
            told: dict[str, Any] = {"image": one["image"]}
            if self.condition == "text":
                told["tokens"] = encode(one["caption"])
            if self.condition == "class":
                told["label"] = np.int32(one["label"])
            return told

        return Task(
            init=init,
            loss=make_loss(self.net),
            held_out=make_loss(self.net.deterministic()),
            example=example,
            absorb=self.process.absorb,
            previews={"prompts": self._preview(assets, spec)} if self.preview.prompts else {},
        )

    def pipeline(self, assets: Assets, weights: Variables, spec: Spec = MeshSpec()) -> DiffusionPipeline:
        """Returns what samples from the model."""
        return DiffusionPipeline(self.bundle(assets, weights), spec=spec)

    def bundle(self, assets: Assets, weights: Variables) -> Bundle:
        """Returns the U-Net, the text encoder and the process, as every pipeline takes them."""
        assert isinstance(self.net, UNetConfig)
        process = self.process
        sampler = scheduler.native(
            process.make_schedule(weights.params),
            process.prediction,
            process.sampler(),
            process.grid(),
            clip=process.clip,
            options=process.options(),
        )
        return diffusion_bundle(
            self.net,
            weights.params,
            process=sampler,
            size=assets.size,
            text=self.text if self.condition == "text" else None,
            vocabulary=assets.vocabulary,
            labels=assets.labels,
        )

    def _cond(self, params: Params, told: Batch) -> Cond:
        """What the network is told of {"tokens": [b l]}, {"label": [b]} or {}."""
        if "tokens" in told:
            context, mask, pooled = TextTransformer(self.text).apply({"params": params["text"]}, told["tokens"])
            return Cond(context=context, context_mask=mask, pooled=pooled)
        return Cond(label=told.get("label"))

    def _check_preview(self, assets: Any) -> None:
        for prompt in self.preview.prompts if self.condition == "class" else ():
            if prompt and prompt not in assets.labels:
                listed = ", ".join(assets.labels[:10]) + (" ..." if len(assets.labels) > 10 else "")
                raise ValueError(
                    f"task.preview.prompts has {prompt!r}, no class of the data: expected some of {listed}"
                )

    def _preview_inputs(self, assets: Any) -> dict[str, Any]:
        return {}

    def _preview(self, assets: Any, spec: Spec) -> Any:
        wanted = self.preview
        made: list[DiffusionPipeline] = []

        def preview(weights: Variables, key: Key) -> Preview:
            if not made:
                made.append(self.pipeline(assets, weights, spec))
            made[0].params |= {"unet": weights.params["unet"]}
            if self.condition == "text":
                made[0].params |= {"text_encoder": weights.params["text"]}
            images = made[0](
                wanted.prompts,
                key=key,
                steps=wanted.steps,
                sampler=wanted.sampler,
                guidance=wanted.guidance,
                **self._preview_inputs(assets),
            )
            return Preview(images, wanted.prompts)

        return preview


def _read(path: Path, parse: Any) -> Any:
    """Reads a file of a run.

    Raises:
      FileNotFoundError, ValueError: if it is missing or damaged; says what to do.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing, and the weights are of no use without it: put it back, or train in another workdir"
        )
    try:
        return parse(path.read_text(encoding="utf-8"))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}): put it back, or train in another workdir") from error
