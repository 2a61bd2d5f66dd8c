"""GLIDE: pictures from text, whose states stand among the keys and values of the U-Net's own attention.

The text transformer is trained with the U-Net; a fifth of the captions are left out. Padding is learned vectors, and
the last state, projected, is added to the time embedding.

A model that `fills` takes four channels more: the known part of the picture, and where it is. It may `begin` as a run
that does not; the weights of the new channels start at zero. Masks are drawn (`data.masks`): boxes and ellipses, or
all of the picture.

Source: Nichol et al. 2021, arXiv 2112.10741, sections 4.1 and 4.2.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.data import masks
from jaxdiff.data.source import DataConfig, Example, Source
from jaxdiff.models.text import TextConfig
from jaxdiff.models.unet import UNetConfig
from jaxdiff.parallel import MeshSpec
from jaxdiff.pretrained.read import Bundle
from jaxdiff.tasks import picture
from jaxdiff.tasks import teacher as teachers
from jaxdiff.tasks.task import Spec
from jaxdiff.training import OptimizerConfig, Task, Variables
from jaxdiff.training.checkpoint import load_params
from jaxdiff.training.workdir import by_first
from jaxdiff.typing import Batch, Cond, Key, Params

_KNOWN = 4
"""The channels of the known picture and of where it is."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(picture.Config):
    """GLIDE.

    Attributes:
      net: the U-Net: `attention` joint where it looks, `addition` plain.
      text: text encoder: `filled`, with a `projection` to the width of the time embedding.
      drop: probability that training leaves the caption out.
      fills: whether the network sees the known part of the picture.
      whole: how often nothing of the picture is known, of a model that fills.
      begin: run of this task, or one of its checkpoints, that does not fill and whose weights a new run starts with.
    """

    net: UNetConfig = UNetConfig(
        attention=("none", "joint", "joint", "joint"), mid_attention="joint", heads=(2, 4, 4, 4), addition="plain"
    )
    text: TextConfig = TextConfig(filled=True, projection=512)
    drop: float = 0.2
    fills: bool = False
    whole: float = 0.25
    begin: Path | None = None

    def check(self, data: DataConfig, optimizer: OptimizerConfig) -> None:
        """Refuses numbers that do not fit each other or the data."""
        if self.condition != "text":
            raise ValueError(f"task.condition is {self.condition!r}: GLIDE reads text; the task picture reads others")
        if self.net.addition != "plain" or self.net.pooled:
            raise ValueError(
                f"task.net.addition is {self.net.addition!r} and task.net.pooled {self.net.pooled}: expected 'plain' "
                "and False, since the text's vector is added to the time embedding as it is"
            )
        width = self.net.embed_width or 4 * self.net.channels[0]
        if not self.text.filled or self.text.projection != width:
            raise ValueError(
                f"task.text.filled is {self.text.filled} and task.text.projection {self.text.projection}: expected "
                f"True and {width}, the width of the time embedding"
            )
        if "cross" in (*self.net.attention, self.net.mid_attention) or not self.net.reads_context:
            raise ValueError(
                f"task.net.attention is {self.net.attention} and task.net.mid_attention {self.net.mid_attention!r}: "
                "expected joint where the network looks at positions and text, else none"
            )
        if not 0 <= self.whole <= 1:
            raise ValueError(f"task.whole is {self.whole}: expected at least 0 and at most 1")
        if self.begin is not None and (not self.fills or self.teacher is not None):
            raise ValueError(
                f"task.begin is {self.begin}, which a model that fills begins as: set task.fills to True, and "
                "task.teacher to none"
            )
        super().check(data, optimizer)
        if self.begin is not None:
            self._check_begin(teachers.read(self.begin, "task.begin"), data.size)

    def _check_begin(self, other: teachers.Teacher, size: int) -> None:
        if type(other.task) is not Config or other.task.fills:
            raise ValueError(f"task.begin is {other.path}: expected a run of the task glide that does not fill")
        pairs: dict[str, tuple[Any, Any]] = {
            "data.size": (other.size, size),
            "task.vocabulary": (other.task.vocabulary, self.vocabulary),
        }
        free = {name: getattr(self.net, name) for name in ("dropout", "remat", "dtype")}
        pairs["task.net"] = (dataclasses.replace(other.task.net, **free), self.net)
        pairs["task.text"] = (dataclasses.replace(other.task.text, dtype=self.text.dtype), self.text)
        if wrong := [name for name, (there, here) in pairs.items() if there != here]:
            raise ValueError(
                f"task.begin is {other.path}, another model: its {', '.join(wrong)} differ from this run's"
            )

    def _pooled(self) -> bool:
        return True

    def assets(self, folder: Path, data: DataConfig, source: Source | None = None, *, new: bool = False) -> Any:
        """Reads vocabulary.json of a run, or makes it, or takes that of the run it begins as."""
        if new and source is not None and self.begin is not None:
            known = teachers.read(self.begin, "task.begin")
            vocabulary = known.task.assets(known.folder, data).vocabulary
            by_first(lambda: vocabulary.write(folder / "vocabulary.json"))
            new = False
        assets = super().assets(folder, data, source, new=new)
        if source is None or not self.fills or not self.preview.prompts:
            return assets
        return assets._replace(
            shown=np.stack([source[i % len(source)]["image"] for i in range(len(self.preview.prompts))])
        )

    def task(self, assets: Any, spec: Spec = MeshSpec()) -> Task:
        """Returns the training of the model."""
        task = super().task(assets, spec)
        if self.begin is None:
            return task
        begin, plain = self.begin, dataclasses.replace(self, fills=False, begin=None).task(assets, spec)

        def load(place: Callable[[Params], Any]) -> Params:
            blank: Any = {"image": np.zeros((assets.size, assets.size, 3), np.uint8), "caption": ""}
            row = plain.example(blank, np.random.default_rng(0))
            batch = {name: np.asarray(x)[None] for name, x in row.items()}
            shapes = jax.eval_shape(plain.init, jax.random.key(0), {}, batch).params
            placed = lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at)
            return {"begin": load_params(begin, jax.tree.map(placed, shapes, place(shapes)))}

        def init(key: Key, loaded: Params, batch: Batch) -> Variables:
            first = task.init(key, {}, batch)
            return first._replace(params=widened(loaded["begin"], self.net.patch))

        return dataclasses.replace(task, load=load, init=init)

    def sampled(self) -> "Config":
        """Returns the task of a run that is no longer trained: without the run it began as."""
        return dataclasses.replace(self, teacher=None, begin=None)

    def _row(self, assets: Any, one: Example, rng: np.random.Generator) -> dict[str, np.ndarray]:
        row = super()._row(assets, one, rng)
        if not self.fills:
            return row
        return {**row, "mask": masks.draw(rng, *one["image"].shape[:2], whole=self.whole)}

    def _cond(self, assets: Any, params: Params, frozen: Params, batch: Batch) -> Cond:
        cond = super()._cond(assets, params, frozen, batch)
        if not self.fills:
            return cond
        kept = 1 - batch["mask"].astype(jnp.float32)
        known = batch["image"].astype(jnp.float32) / 127.5 - 1
        return dataclasses.replace(cond, image=jnp.concatenate([known * kept, kept], -1))

    def bundle(self, assets: Any, weights: Variables) -> Bundle:
        """Returns the U-Net, the text encoder and the process, as every pipeline takes them."""
        bundle = super().bundle(assets, weights)
        return dataclasses.replace(bundle, index={"known": True}) if self.fills else bundle

    def _preview_inputs(self, assets: Any) -> dict[str, Any]:
        if not self.fills:
            return {}
        rng = np.random.default_rng(0)
        drawn = [masks.draw(rng, *image.shape[:2], whole=0.0) for image in assets.shown]
        return {"image": assets.shown, "mask": np.stack(drawn).astype(np.float32)}


def widened(params: Params, patch: int) -> Params:
    """Returns the parameters of a model that takes the known picture too: weights of zero for its channels."""
    first = params["unet"]["conv_in"]
    *window, inputs, out = first["kernel"].shape
    kernel = first["kernel"].reshape(*window, patch**2, inputs // patch**2, out)
    kernel = jnp.pad(kernel, ((0, 0), (0, 0), (0, 0), (0, _KNOWN), (0, 0)))
    kernel = kernel.reshape(*window, -1, out)
    return {**params, "unet": {**params["unet"], "conv_in": {**first, "kernel": kernel}}}
