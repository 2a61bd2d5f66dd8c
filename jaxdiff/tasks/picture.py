"""Pictures from text, from a class, or from nothing: diffusion on pixels.

Diffusion on something else of pictures overrides what is said of pixels here: `_channels`, `_sides`, `_kept` (networks
that are not trained), `_row` and `_teller` (what of an example goes into a batch), `_x0` (what of a batch is noised),
`_drawn` (what else is drawn of it), `_cond` (the network's condition) and `_away` (of an example that loses its
condition).

Objectives that learn from a teacher start as the teacher is (`tasks.teacher`): its weights are constant for
consistency, and moved by the objective for progressive distillation; what is sampled afterwards knows nothing of it.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxdiff.data import labels as labels_file
from jaxdiff.data.source import DataConfig, Example, Source
from jaxdiff.data.tokenizer import BytePair
from jaxdiff.diffusion import loss as losses
from jaxdiff.diffusion.process import ProcessConfig
from jaxdiff.models.config import NetConfig
from jaxdiff.models.text import TextConfig, TextTransformer
from jaxdiff.models.unet import UNetConfig
from jaxdiff.parallel import MeshSpec
from jaxdiff.pipelines import plan
from jaxdiff.pipelines.bundles import diffusion_bundle
from jaxdiff.pipelines.diffusion import DiffusionPipeline
from jaxdiff.pipelines.encode import Text
from jaxdiff.pretrained import scheduler
from jaxdiff.pretrained.read import Bundle
from jaxdiff.tasks import frozen_text
from jaxdiff.tasks import teacher as teachers
from jaxdiff.tasks.previews import PreviewConfig, preview
from jaxdiff.tasks.task import Spec, TaskConfig
from jaxdiff.training import Known, OptimizerConfig, Task, Variables
from jaxdiff.training.checkpoint import load_params
from jaxdiff.training.workdir import by_first
from jaxdiff.typing import Batch, Cond, Key, Metrics, Params


class Assets(NamedTuple):
    """Holds what a model is beside its numbers and weights.

    Attributes:
      size: side of the pictures.
      vocabulary: vocabulary of a model that reads text.
      labels: names of the classes, of a model that knows classes.
      shown: what previews begin with, uint8 [n i j 3], of a model that a picture steers.
      folder: folder of the run.
      clip: the frozen text encoder, without its weights, and its tokenizer.
    """

    size: int
    vocabulary: BytePair | None = None
    labels: tuple[str, ...] = ()
    shown: np.ndarray | None = None
    folder: Path = Path()
    clip: Text | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(TaskConfig):
    """Diffusion on pixels.

    Attributes:
      process: noise process and training objective.
      net: denoising network.
      text: text encoder, trained with the network.
      condition: what the network is conditioned on: the caption, read by a text encoder that is trained (text) or by a
        frozen one (clip); the class; or nothing.
      text_encoder: run of the task clip, or directory with CLIP's text_encoder and tokenizer, of which a new run with
        the condition clip keeps a copy.
      drop: probability that training leaves the condition out, for classifier-free guidance.
      vocabulary: largest size of the byte-pair vocabulary, which is learned from the captions.
      preview: sample grids that the run writes.
      teacher: run, or one of its checkpoints, that a few-step student learns from.
    """

    process: ProcessConfig = ProcessConfig()
    net: NetConfig = UNetConfig()
    text: TextConfig = TextConfig()
    condition: Literal["text", "clip", "class", "none"] = "text"
    text_encoder: Path | None = None
    drop: float = 0.1
    vocabulary: int = 1024
    preview: PreviewConfig = PreviewConfig()
    teacher: Path | None = None

    def _channels(self) -> int:
        """Returns the number of channels that are noised."""
        return 3

    def _sides(self, data: DataConfig) -> tuple[int, ...]:
        """Sides of what the network sees."""
        return data.size, data.size

    def _kept(self, assets: Any, place: Callable[[Params], Any]) -> Params:
        """Returns the weights that the model stands on and does not train."""
        return frozen_text.load(assets.folder, place) if self.condition == "clip" else {}

    def _row(self, assets: Any, one: Example, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Returns what of an example goes into a batch, beside its condition."""
        return {"image": one["image"]}

    def _x0(self, assets: Any, frozen: Params, batch: Batch, keys: Key) -> Array:
        """Returns what is noised, [b h w c] with values around [-1, 1]; what it draws, it draws from the keys [b]."""
        return batch["image"].astype(jnp.float32) / 127.5 - 1

    def _drawn(self, assets: Any, frozen: Params, batch: Batch, keys: Key) -> Batch:
        """Returns the batch with what `_cond` reads of it that is drawn, from the keys [b]."""
        return batch

    def check(self, data: DataConfig, optimizer: OptimizerConfig) -> None:
        """Refuses numbers that do not fit each other or the data."""
        self.process.check()
        self.net.check(*self._sides(data))
        self._check_condition()
        self._check_teacher(data.size)
        preview = self.preview
        if not np.isfinite(preview.guidance):
            raise ValueError(f"task.preview.guidance is {preview.guidance}: expected a number")
        if self.condition == "none" and preview.prompts and preview.guidance not in (1.0, PreviewConfig.guidance):
            raise ValueError(
                f"task.preview.guidance is {preview.guidance}, and a model with task.condition 'none' has nothing to "
                "be guided by: set it to 1.0"
            )
        if self.process.schedule != "learned":  # of which no grid is known before training
            plan.make(self._sampled(), steps=preview.steps, sampler=preview.sampler, weights={})

    def _pooled(self) -> bool:
        """Returns whether the network takes a text's vector."""
        return bool(getattr(self.net, "pooled", False))

    def _check_condition(self) -> None:
        labels, pooled = getattr(self.net, "labels", 0), self._pooled()
        expected = self.process.out_channels(self._channels())
        if (out := getattr(self.net, "out_channels", expected)) != expected:
            learned = " with a learned variance" if self.process.variance == "learned" else ""
            raise ValueError(
                f"task.net.out_channels is {out}: expected {expected} for {self._channels()} channels{learned}"
            )
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
        if self.text_encoder and self.condition != "clip":
            raise ValueError(f"task.text_encoder is given, and task.condition {self.condition!r} does not read it")
        if self.condition == "text":
            self.text.check()
            BytePair.learn((), self.vocabulary)  # refuses a size too small
            if self.text.vocabulary < self.vocabulary:
                raise ValueError(
                    f"task.text.vocabulary is {self.text.vocabulary}, below task.vocabulary {self.vocabulary}: raise it"
                )

    def _check_teacher(self, size: int) -> None:
        objective, taught = self.process.objective, self.process.objective in teachers.TAUGHT
        if taught != (self.teacher is not None):
            raise ValueError(
                f"task.process.objective is {objective!r} and task.teacher is {self.teacher}: "
                + ("give the run to learn from, --task.teacher RUN" if taught else "leave the teacher out")
            )
        if self.teacher is not None:
            teachers.check(teachers.read(self.teacher), self, size)

    def assets(self, folder: Path, data: DataConfig, source: Source | None = None, *, new: bool = False) -> Assets:
        """Reads vocabulary.json or labels.txt of a run, or makes it: of the teacher's, or the captions or classes."""
        if new and source is not None:
            by_first(lambda: self._write(folder, data, source))
        if self.condition == "text":
            path = folder / "vocabulary.json"
            vocabulary = _read(path, BytePair.read)
            if vocabulary.size > self.text.vocabulary:
                raise ValueError(
                    f"{path} has {vocabulary.size} ids and task.text.vocabulary is {self.text.vocabulary}: put the "
                    "run's own file back"
                )
            return Assets(data.size, vocabulary=vocabulary)
        if self.condition == "class":
            classes = getattr(self.net, "labels", 0)
            self._check_classes(data, source)
            names = _read(folder / "labels.txt", lambda path: labels_file.read(path, classes))
            if source is not None and names != tuple(source.labels):
                raise ValueError(
                    f"{folder / 'labels.txt'} names other classes than {data.name}: give the data of the run"
                )
            return Assets(data.size, labels=names)
        if self.condition == "clip":
            if new and source is not None:
                frozen_text.keep(folder, self._text_encoder(source))
            return Assets(data.size, folder=folder, clip=frozen_text.read(folder))
        return Assets(data.size)

    def _text_encoder(self, source: Source) -> Path | None:
        """Returns where the frozen text encoder of a new run comes from."""
        return teachers.read(self.teacher).folder if self.teacher else self.text_encoder

    def _write(self, folder: Path, data: DataConfig, source: Source) -> None:
        """Writes the files of a new run."""
        learned = self.teacher and teachers.read(self.teacher)
        known = learned and learned.task.assets(learned.folder, data)
        if self.condition == "text":
            vocabulary = known.vocabulary if known else BytePair.learn(source.captions(), self.vocabulary)
            vocabulary.write(folder / "vocabulary.json")
        if self.condition == "class":
            self._check_classes(data, source)
            labels_file.write(folder / "labels.txt", known.labels if known else source.labels)

    def _check_classes(self, data: DataConfig, source: Source | None) -> None:
        classes = getattr(self.net, "labels", 0)
        if source is not None and len(source.labels) != classes:
            raise ValueError(
                f"task.net.labels is {classes}, but {data.name} has {len(source.labels)} classes: set it to that"
            )

    def task(self, assets: Any, spec: Spec = MeshSpec()) -> Task:
        """Returns the training of the model."""
        self._check_preview(assets)
        tell = self._teller(assets)

        def example(one: Example, rng: np.random.Generator) -> dict[str, np.ndarray]:
            return {**self._row(assets, one, rng), **tell(one)}

        def load(place: Callable[[Params], Any]) -> Params:
            kept = self._kept(assets, place)
            if self.teacher is None:
                return kept
            blank: Any = {"image": np.zeros((assets.size, assets.size, 3), np.uint8), "caption": "", "label": 0}
            batch = {name: np.asarray(x)[None] for name, x in example(blank, np.random.default_rng(0)).items()}
            first = lambda key, kept: self._first(key, assets, kept, batch)
            shapes = jax.eval_shape(first, jax.random.key(0), kept)
            placed = lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at)
            return {**kept, "teacher": load_params(self.teacher, jax.tree.map(placed, shapes, place(shapes)))}

        def init(key: Key, loaded: Params, batch: Batch) -> Variables:
            kept = {name: params for name, params in loaded.items() if name != "teacher"}
            teacher = loaded.get("teacher")
            if teacher is None:  # or a student that is only sampled
                extra = {} if self.process.objective in teachers.TAUGHT else self.process.init_extra()
                return Variables(self._first(key, assets, kept, batch), kept, extra)
            return self._taught(key, assets, teacher, kept)

        return Task(
            init=init,
            loss=self._loss(self.net, assets),
            held_out=self._loss(self.net.deterministic(), assets),
            example=example,
            load=load,
            absorb=self.process.absorb,
            previews={"prompts": self._preview(assets, spec)} if self.preview.prompts else {},
        )

    def _taught(self, key: Key, assets: Any, teacher: Params, kept: Params) -> Variables:
        """Returns the first variables of a student."""
        constant = {"teacher": teacher} if self.process.objective == "consistency_distillation" else {}
        return Variables(teacher, {**kept, **constant}, self.process.init_extra(teacher))

    def sampled(self) -> "Config":
        """Returns the task of a run that is no longer trained: without its teacher."""
        return dataclasses.replace(self, teacher=None)

    def _teller(self, assets: Any) -> Callable[[Mapping[str, Any]], dict[str, np.ndarray]]:
        """Returns a function from an example to the arrays that say its condition."""
        vocabulary: Any = assets.vocabulary

        def tell(one: Mapping[str, Any]) -> dict[str, np.ndarray]:
            if self.condition == "clip":
                return {"tokens": frozen_text.tokens(assets.clip, one["caption"])}
            if self.condition == "text":
                return {"tokens": vocabulary.encode(one["caption"], self.text.length)}
            return {"label": np.asarray(one["label"], np.int32)} if self.condition == "class" else {}

        return tell

    def _first(self, key: Key, assets: Any, frozen: Params, batch: Batch) -> Params:
        """Makes the first parameters, for batches like this one."""
        net_key, text_key = jax.random.split(key)
        one = jax.tree.map(lambda x: jnp.zeros_like(x, shape=(1, *x.shape[1:])), dict(batch))
        params: dict[str, Any] = {}
        if self.condition == "text":
            params["text"] = TextTransformer(self.text).init(text_key, one["tokens"] + 1)["params"]
        own_key, net_key = jax.random.split(net_key) if self.process.schedule == "learned" else (key, net_key)
        x = jnp.zeros(jax.eval_shape(lambda: self._x0(assets, frozen, one, key[None])).shape)
        drawn = jax.eval_shape(lambda: dict(self._drawn(assets, frozen, one, key[None])))
        cond = self._cond(assets, params, frozen, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), drawn))
        params["unet"] = self.net.build().init(net_key, x, jnp.zeros(1), cond)["params"]
        return {**params, **self.process.init_params(own_key)}

    def _away(self, assets: Any, frozen: Params, batch: Batch) -> dict[str, Any]:
        """Returns what a batch says in the place of a condition that is left out, by name."""
        nothing = self._teller(assets)({"caption": "", "label": getattr(self.net, "labels", 0)})
        return {name: x for name, x in nothing.items() if name in batch}

    def _inputs(self, assets: Any, frozen: Params, batch: Batch, keys: Key, gone: Array) -> dict[str, Any]:
        """Returns what `_cond` reads of a batch, of which examples that are gone [b] have lost their condition."""
        inputs = dict(self._drawn(assets, frozen, batch, keys))
        for name, x in self._away(assets, frozen, batch).items():
            here = batch[name].astype(x.dtype)
            inputs[name] = jnp.where(gone.reshape(-1, *[1] * (here.ndim - 1)), jnp.broadcast_to(x, here.shape), here)
        return inputs

    def _loss(self, net: NetConfig, assets: Any) -> Any:
        network: Any = net.build()
        plain: Any = net.deterministic().build()

        def loss(params: Params, known: Known, batch: Batch, keys: Key) -> tuple[Array, Metrics, Any]:
            inputs = self._inputs(assets, known.frozen, batch, keys, losses.dropped(keys, self.drop))
            apply = lambda params, x, t, cond: network.apply({"params": params["unet"]}, x, t, cond, keys)
            teacher = lambda params, x, t, cond: plain.apply({"params": params["unet"]}, x, t, cond)
            cond = lambda params: self._cond(assets, params, known.frozen, inputs)
            x0 = self._x0(assets, known.frozen, batch, keys)
            return self.process.loss(apply, teacher)(params, known, x0, cond(params), keys, cond)

        return loss

    def pipeline(self, assets: Any, weights: Variables, spec: Spec = MeshSpec()) -> DiffusionPipeline:
        """Returns what samples from the model."""
        return DiffusionPipeline(self.bundle(assets, weights), spec=spec)

    def bundle(self, assets: Any, weights: Variables) -> Bundle:
        """Returns the U-Net, the text encoder and the process, as every pipeline takes them."""
        assert isinstance(self.net, UNetConfig)
        bundle = diffusion_bundle(
            self.net,
            weights.params,
            process=self._sampled(weights.params),
            size=assets.size,
            text=self.text if self.condition == "text" else None,
            vocabulary=assets.vocabulary,
            labels=assets.labels,
        )
        if self.condition == "clip":
            frozen_text.add(bundle, assets.clip, weights)
        return bundle

    def _sampled(self, params: Params | None = None) -> scheduler.Process:
        """Says how the trained model is sampled; of a learned schedule, by the trained parameters."""
        process = self.process
        if params is not None and "schedule" in params:  # as numbers of the host, which lie on no mesh
            params = {"schedule": jax.device_get(params["schedule"])}
        how: Any = {"clip": process.clip, "options": process.options(), "says": process.says}
        return scheduler.native(
            process.make_schedule(params), process.prediction, process.sampler(), process.grid(), **how
        )

    def _cond(self, assets: Any, params: Params, frozen: Params, batch: Batch) -> Cond:
        """Returns the network's condition for a batch with "tokens" [b l], "label" [b] or neither."""
        if self.condition == "text":
            context, mask, pooled = TextTransformer(self.text).apply({"params": params["text"]}, batch["tokens"])
            return Cond(context=context, context_mask=mask, pooled=pooled)
        if self.condition == "clip":
            return Cond(context=frozen_text.states(assets.clip, frozen, batch["tokens"]))
        return Cond(label=batch.get("label"))

    def _check_preview(self, assets: Any) -> None:
        for prompt in self.preview.prompts if self.condition == "class" else ():
            if prompt and prompt not in assets.labels:
                listed = ", ".join(assets.labels[:10]) + (" ..." if len(assets.labels) > 10 else "")
                raise ValueError(
                    f"task.preview.prompts has {prompt!r}, no class of the data: expected some of {listed}"
                )

    def _preview_inputs(self, assets: Any) -> dict[str, Any]:
        """Returns what previews are given beside prompts; asked when the first is drawn, by a run that has its data."""
        return {}

    def _preview(self, assets: Any, spec: Spec) -> Any:
        def parts(weights: Variables) -> Params:
            return {name: part.params for name, part in self.bundle(assets, weights).components.items()}

        make = lambda weights: self.pipeline(assets, weights, spec)
        return preview(self.preview, make, parts, lambda: self._preview_inputs(assets))


def _read(path: Path, read: Callable[[Path], Any]) -> Any:
    """Reads a file of a run.

    Raises:
      FileNotFoundError, ValueError: if it is missing or damaged; says what to do.
    """
    try:
        return read(path)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path} is missing, and the weights are of no use without it: put it back, or train in another workdir"
        ) from None
    except ValueError as error:
        raise ValueError(f"{error}: put it back, or train in another workdir") from error
