"""Training on a model of others, Stable Diffusion 1, 2 or XL: what all tasks have in common that start from one.

    loss = mean of w(lambda) |network(all parameters, x_t, t, caption) - target|^2

A task says which arrays move (`_start`) and how they and the frozen ones make all parameters (`_weights`). Nothing else
is differentiated, and what is frozen is never saved. Process, prediction and latents are the model's own, as its
configs say them; the network code is unchanged.

With `prior`, each example has a picture of its class beside it, whose loss is added (`tasks.class_pictures`).
"""

import abc
import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxdiff.data import buckets
from jaxdiff.data.latents import LatentSource
from jaxdiff.data.source import DataConfig, Example, Source
from jaxdiff.diffusion import draws, times
from jaxdiff.diffusion import loss as losses
from jaxdiff.diffusion.schedule import Discrete
from jaxdiff.models.unet import UNet
from jaxdiff.nn.remat import Remat
from jaxdiff.parallel import MeshSpec
from jaxdiff.parallel.rules import Rules
from jaxdiff.pipelines import first_stage, inputs, plan
from jaxdiff.pipelines.diffusion import DiffusionPipeline
from jaxdiff.pipelines.program import read_text
from jaxdiff.pretrained.read import Bundle
from jaxdiff.tasks import base_model, class_pictures
from jaxdiff.tasks.base_model import Base
from jaxdiff.tasks.class_pictures import PriorConfig
from jaxdiff.tasks.previews import PreviewConfig, preview
from jaxdiff.tasks.task import Spec, TaskConfig
from jaxdiff.training import Known, OptimizerConfig, Task, Variables
from jaxdiff.typing import Batch, Cond, Key, Metrics, Network, Params

_TEXT = 2**17  # beside the draws of a loss, and of students


class Assets(NamedTuple):
    """Holds what a run is beside its numbers and weights.

    Attributes:
      base: the model that it starts from; of a task that adds to its parts, with what is added.
      size: side of the pictures.
      classes: pictures of the class, where the prior is preserved.
      more: more of the task alone.
    """

    base: Base
    size: int
    classes: Source | None = None
    more: Any = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class PublishedConfig(TaskConfig):
    """Training on a model of others.

    Attributes:
      model: a directory of diffusers, a single file, or a name on the hub; a run reads it anew at each start.
      revision: a branch, a tag or a commit of a name on the hub; a run goes on with the commit that it began with.
      tokenizer: its directory, for a single file, which has none.
      prediction: what the network is to predict; None: what the model predicts.
      zero_terminal: whether the last trained step is to be noise alone (v_prediction).
      drop: how often captions are left out.
      tags: captions are tags between commas, which come in another order each time; so many first ones stay where they
        are. None: captions stay as they are.
      offset_noise: the scale of noise that all positions of a channel share.
      condition_noise: gamma of the noise on text states, see `noisy`; 1 in its paper.
      min_snr: gamma of the weight min(snr, gamma); None: the plain error.
      groups: (path pattern, optimizer) of parameters that move otherwise than the run's optimizer says.
      dtype: dtype of the computation, and of frozen weights; what is trained is float32.
      remat: what the backward pass of the U-Net computes again; see `nn.remat`.
      prior: the class whose other pictures are to stay as they are.
      preview: what the run shows of itself.
    """

    model: Path | None = None
    revision: str | None = None
    tokenizer: Path | None = None
    prediction: Literal["epsilon", "v_prediction"] | None = None
    zero_terminal: bool = False
    drop: float = 0.0
    tags: int | None = None
    offset_noise: float = 0.0
    condition_noise: float = 0.0
    min_snr: float | None = None
    groups: tuple[tuple[str, OptimizerConfig], ...] = ()
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    remat: Remat = "none"
    prior: PriorConfig = PriorConfig()
    preview: PreviewConfig = PreviewConfig()

    @abc.abstractmethod
    def _start(self, assets: Assets, key: Key, loaded: Params) -> tuple[Params, Params]:
        """Returns the first trained parameters, and what is frozen, of all parameters of the base."""

    @abc.abstractmethod
    def _weights(self, assets: Assets, params: Params, frozen: Params) -> dict[str, Any]:
        """Returns the parameters of the whole model by component."""

    def _dtype(self, assets: Assets, path: str) -> str | None:
        """Returns the dtype of a frozen parameter; None is the file's, since an autoencoder may overflow in another."""
        return None if path.startswith("vae/") else self.dtype

    def _prepare(self, assets: Assets, folder: Path, data: DataConfig, source: Source | None, new: bool) -> Assets:
        """Adds what a task has beside the base, and refuses what does not fit it."""
        return assets

    def _row(self, assets: Assets, one: Example, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Returns an example's rows of a batch: the picture or its moments, tokens by text encoder, SDXL's numbers."""
        row: Any = one
        size = (assets.size, assets.size)
        if "moments" in row:
            moments = row["moments"][int(rng.integers(len(row["moments"])))]
            size = tuple(side * assets.base.model.factor for side in moments.shape[:2])
            out = {"moments": moments}
        else:
            out = {"image": row["image"]}
        caption = row["caption"] if self.tags is None else shuffled(row["caption"], self.tags, rng)
        for name, length in assets.base.model.texts.items():
            words = assets.base.bundle.tokenizers[name.replace("text_encoder", "tokenizer")]
            out[name] = words.encode(caption, length)
        if assets.base.model.sizes:
            out["sizes"] = sizes(row.get("sides", size), size, assets.base.model.sizes)
        return out

    def _network(self, assets: Assets) -> Network:
        """Returns the U-Net, as a function of all parameters."""
        net = UNet(dataclasses.replace(assets.base.model.nets["unet"], remat=self.remat))

        def network(params: Params, x: Array, t: Array, cond: Cond) -> Any:
            return net.apply({"params": params["unet"]}, x, t, cond)

        return network

    def _cond(self, assets: Assets, params: Params, batch: Batch) -> Cond:
        """Returns the network's condition; `batch` has tokens with a chunk's axis, `keep`, `sizes` and the `keys`."""
        return Cond(**read_text(assets.base.model, params, batch))

    def check(self, data: DataConfig, optimizer: OptimizerConfig) -> None:
        """Refuses numbers that do not fit each other, and what is no model."""
        for name, most in (("drop", 1.0), ("offset_noise", 1.0), ("condition_noise", 100.0)):
            if not 0 <= getattr(self, name) <= most:
                raise ValueError(f"task.{name} is {getattr(self, name)}: expected at least 0 and at most {most:g}")
        if self.min_snr is not None and not 0 < self.min_snr < math.inf:
            raise ValueError(f"task.min_snr is {self.min_snr}: expected a number above 0, or None")
        if self.tags is not None and self.tags < 0:
            raise ValueError(f"task.tags is {self.tags}: expected how many first tags stay, 0 or more, or None")
        self.prior.check()
        base = self._outline()
        if data.size % base.model.unit:
            raise ValueError(f"data.size is {data.size}: the model wants multiples of {base.model.unit}")
        if not np.isfinite(self.preview.guidance):
            raise ValueError(f"task.preview.guidance is {self.preview.guidance}: expected a number")
        scheduler = base.bundle.schedulers["scheduler"]
        plan.make(base.model.process, scheduler, steps=self.preview.steps, sampler=self.preview.sampler, weights={})

    def check_steps(self, steps: int) -> None:
        """Refuses a group's optimizer that does not fit the run."""
        from jaxdiff.training.optimizer import check

        for pattern, optimizer in self.groups:
            check(optimizer, steps, f" of group {pattern!r}")

    def _outline(self) -> Base:
        return base_model.outline(
            self.model,
            revision=self.revision,
            tokenizer=self.tokenizer,
            prediction=self.prediction,
            zero_terminal=self.zero_terminal,
            dtype=self.dtype,
            takes=self._takes(),
        )

    def _takes(self) -> str:
        """Returns what the U-Net takes beside the latents, see `base_model.outline`."""
        return ""

    def _gone(self, keys: Key) -> Array:
        """Returns which captions are left out [b]."""
        return losses.dropped(keys, self.drop)

    def _load(self, assets: Assets, place: Callable[[Params], Any]) -> Params:
        """Reads all parameters of the base by component, each to where `place` says."""
        return base_model.load(assets.base, self.tokenizer, place)

    def assets(self, folder: Path, data: DataConfig, source: Source | None = None, *, new: bool = False) -> Assets:
        """Reads what the base is, and the pictures of its class, which the model makes where there are none."""
        commit = None if new else base_model.pinned(folder)
        task = dataclasses.replace(self, revision=commit) if commit else self
        if new and getattr(source, "sides", None):
            buckets.chosen(source, [(data.size, data.size)])  # refuses pictures that would be enlarged
        base = base_model.noted(task._outline(), folder, new and source is not None)
        if isinstance(source, LatentSource):
            vae = dataclasses.replace(base.bundle.components["vae"], params=self._loaded(base, ("vae",))["vae"])
            if (own := first_stage.fingerprint(vae)) != source.plan.autoencoder:
                raise ValueError(
                    f"{source.folder} was made with another autoencoder than task.model's ({self.model}; hash "
                    f"{source.plan.autoencoder[:12]}, not {own[:12]}): make latents with this one"
                )
        assets = self._prepare(Assets(base, data.size), folder, data, source, new)
        if source is None or not self.prior.prompt:
            return assets
        if isinstance(source, LatentSource):
            raise ValueError(f"task.prior wants pictures, and {data.name} are latents: name the folder of the pictures")
        bundle = lambda: base_with(PublishedConfig._outline(self).bundle, self._loaded(base))
        return assets._replace(classes=class_pictures.opened(self.prior, folder, data, bundle))

    def _loaded(self, base: Base, names: tuple[str, ...] = ()) -> Params:
        one = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        found = base_model.load(base, self.tokenizer, lambda shapes: jax.tree.map(lambda _: one, shapes))
        return {name: found[name] for name in names or found}

    def task(self, assets: Assets, spec: Spec = MeshSpec()) -> Task:
        """Returns the training of what `_start` gives."""

        def init(key: Key, loaded: Params, batch: Batch) -> Variables:
            params, frozen = self._start(assets, key, loaded)
            frozen = base_model.cast(frozen, lambda path: self._dtype(assets, path))
            return Variables(base_model.cast(params, lambda path: "float32"), frozen)

        def example(one: Example, rng: np.random.Generator) -> Mapping[str, np.ndarray]:
            row = self._row(assets, one, rng)
            if assets.classes is None:
                return row
            other = Example(**assets.classes[int(rng.integers(len(assets.classes)))])
            other["caption"] = self.prior.prompt
            return row | {f"class/{name}": x for name, x in self._row(assets, other, rng).items()}

        return Task(
            init=init,
            loss=self._loss(assets),
            example=example,
            load=lambda place: self._load(assets, place),
            groups=self.groups,
            rules=self._rules(),
            previews={"prompts": self._preview(assets, spec)} if self.preview.prompts else {},
        )

    def _rules(self) -> Rules:
        return ()

    def _conditions(self, assets: Assets) -> Callable[[Batch, Array], Batch]:
        """Returns (batch, gone [b]) -> what `_cond` reads of a batch, without the captions that are gone.

        SDXL takes zeros where there is no text, as its pipeline does, and the others an empty text.
        """
        model, bundle = assets.base.model, assets.base.bundle
        zeros = bundle.index.get("force_zeros_for_empty_prompt", len(model.texts) > 1)
        words = {n: bundle.tokenizers[n.replace("text_encoder", "tokenizer")] for n in model.texts}
        empty = {n: words[n].encode("", to) for n, to in model.texts.items()}

        def conditions(batch: Batch, gone: Array) -> Batch:
            text = {n: batch[n] if zeros else jnp.where(gone[:, None], empty[n][None], batch[n]) for n in model.texts}
            found: dict[str, Any] = {n: x for n, x in batch.items() if n not in text}
            found["text"] = {n: (x[:, None], jnp.ones((len(x), 1, x.shape[1]))) for n, x in text.items()}
            found["keep"] = 1.0 - gone if zeros else jnp.ones(len(gone))
            return found

        return conditions

    def _errors(self, assets: Assets) -> Callable[..., Array]:
        """Returns (params, weights, known, batch, x0, u [b], keys [b]) -> loss [b], by default that of denoising."""
        process = assets.base.model.process
        if isinstance(process.schedule, Discrete):
            at = times.steps(process.schedule.steps)
        else:
            at = times.log_normal(process.schedule)
        noise = losses.offset(losses.independent, self.offset_noise) if self.offset_noise else losses.independent
        weight = None if self.min_snr is None else losses.min_snr(self.min_snr)
        each = losses.denoising(self._network(assets), process.schedule, process.kind, weight, noise)
        conditions = self._conditions(assets)

        def errors(
            params: Params, weights: Params, known: Known, batch: Batch, x0: Array, u: Array, keys: Key
        ) -> Array:
            cond = self._cond(assets, weights, {**conditions(batch, self._gone(keys)), "keys": keys})
            cond = noisy(cond, keys, self.condition_noise) if self.condition_noise else cond
            return each(weights, x0, at(u), cond, keys)

        return errors

    def _loss(self, assets: Assets) -> Any:
        errors, vae = self._errors(assets), assets.base.bundle.components["vae"]

        def loss(params: Params, known: Known, batch: Batch, keys: Key) -> tuple[Array, Metrics, Any]:
            ways = 2 if assets.classes is not None else 1
            if ways == 2:
                batch = {n: _beside(x, batch[f"class/{n}"]) for n, x in batch.items() if not n.startswith("class/")}
                keys = _beside(draws.fold(keys, 1), draws.fold(keys, 2))
            weights = self._weights(assets, params, known.frozen)
            moments = batch.get("moments")
            if moments is None:
                moments = first_stage.moments(vae, weights["vae"], batch["image"])
            x0 = first_stage.latents(vae, jax.lax.stop_gradient(moments), keys)
            u = draws.uniform(keys)
            found = errors(params, weights, known, batch, x0, u, keys)
            if ways == 1:
                return found.mean(), times.by_quarter(u, found), {}
            own, prior = found.reshape(-1, 2).T
            metrics = {"loss_own": own.mean(), "loss_class": prior.mean(), **times.by_quarter(u[::2], own)}
            return own.mean() + self.prior.weight * prior.mean(), metrics, {}

        return loss

    def pipeline(self, assets: Assets, weights: Variables, spec: Spec = MeshSpec()) -> DiffusionPipeline:
        """Returns what samples from the model as it was trained."""
        return DiffusionPipeline(self.bundle(assets, weights), spec=spec)

    def bundle(self, assets: Assets, weights: Variables) -> Bundle:
        """Returns the whole model, the trained parts among its others, as its own library has it."""
        return base_with(assets.base.bundle, self._weights(assets, weights.params, weights.frozen))

    def _preview_parts(self, assets: Assets, weights: Variables) -> dict[str, Any]:
        """Returns the parameters that previews are drawn with, by the pipeline's names."""
        return self._weights(assets, weights.params, weights.frozen)

    def _preview_inputs(self, assets: Assets) -> dict[str, Any]:
        """Returns what previews are given beside prompts."""
        return {}

    def _preview(self, assets: Assets, spec: Spec) -> Any:
        wanted = self.preview
        own = {"height": assets.size, "width": assets.size, **({"guidance": None} if wanted.guidance == 1 else {})}
        return preview(
            wanted,
            lambda weights: self.pipeline(assets, weights, spec),
            lambda weights: self._preview_parts(assets, weights),
            lambda: {**own, **self._preview_inputs(assets)},
        )


def noisy(cond: Cond, keys: Key, gamma: float) -> Cond:
    """Returns the condition with Gaussian noise on its text states, of a deviation of gamma / sqrt(their width).

    So a fine-tune sees no caption twice, and learns its pictures by heart more slowly.

    Source: Chen et al. 2024, arXiv 2405.20494 (condition embedding perturbation).
    """
    states: Any = cond.context
    noise = draws.noise_like(draws.fold(keys, _TEXT), states)
    return dataclasses.replace(cond, context=states + gamma / states.shape[-1] ** 0.5 * noise)


def base_with(bundle: Bundle, params: Params) -> Bundle:
    """Returns the bundle with these parameters by component."""
    parts = {name: dataclasses.replace(part, params=params[name]) for name, part in bundle.components.items()}
    return dataclasses.replace(bundle, components=parts)


def sizes(sides: tuple[int, int], size: tuple[int, int], count: int) -> np.ndarray:
    """Returns SDXL's numbers of a picture of these sides, scaled until it covers `size` and cut to its centre.

    They are its height and width, top and left of the cut, and `size`; or, for the refiner, which has 5, its score.

    Source: Podell et al. 2023, arXiv 2307.01952, section 2.2.
    """
    scale = max(size[0] / sides[0], size[1] / sides[1])
    cut = [round((side * scale - to) / 2) for side, to in zip(sides, size, strict=True)]
    return np.array([*sides, *cut, *(size if count == 6 else (inputs.GOOD,))], np.float32)


def shuffled(caption: str, keep: int, rng: np.random.Generator) -> str:
    """Returns the tags of a caption, between commas, in an order by chance after the first `keep`."""
    tags = [tag.strip() for tag in caption.split(",") if tag.strip()]
    kept, others = tags[:keep], tags[keep:]
    return ", ".join([*kept, *(others[i] for i in rng.permutation(len(others)))])


def _beside(one: Array, other: Array) -> Array:
    """Returns rows of both in turns: each pair stays on the device that has it."""
    return jnp.stack([one, other], 1).reshape(-1, *one.shape[1:])
