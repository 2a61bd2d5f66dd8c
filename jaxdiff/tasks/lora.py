r"""A LoRA of a model of others: small factors of some of its weights are trained, and nothing else.

    W' = W + s up down,    s = alpha / r, or alpha / sqrt(r) rank-stabilised

The sum is made inside the loss, so that the networks do not know of it: their weights are constants, and a gradient
flows through W' to the factors alone. It starts at W' = W, since up is 0. A DoRA also learns the length of each
output's column. What is changed stays in float32, where small changes of it count; `dtype` is of the computation.

Sources: Hu et al. 2021, arXiv 2106.09685, section 4.1; Kalajdzievski 2023, arXiv 2312.03732, section 3
(rank-stabilised); Liu et al. 2024, arXiv 2402.09353, sections 4.1 and 4.3 (DoRA).
"""

import dataclasses
import functools
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from jaxdiff.data.source import DataConfig, Source
from jaxdiff.parallel.rules import Rules
from jaxdiff.pretrained import lora
from jaxdiff.pretrained.lora import Lora
from jaxdiff.pretrained.read import Component
from jaxdiff.pretrained.rules import flatten, unflatten
from jaxdiff.pretrained.single_process import signature
from jaxdiff.tasks import base_model, saved
from jaxdiff.tasks.base_model import Base
from jaxdiff.tasks.published import Assets, PublishedConfig
from jaxdiff.training import OptimizerConfig, Variables
from jaxdiff.typing import Key, Params

PARTS = {
    "attention": r"unet/.*/attn\d/(q|k|v|out)/kernel",
    "feed_forward": r"unet/.*/ff/fc\d/kernel",
    "projections": r"unet/.*/(proj_in|proj_out)/kernel",
    "convolutions": r"unet/.*/(conv1|conv2|shortcut|conv|upsample)/kernel",
    "time": r"unet/.*/resnet_\d+/time/kernel",
    "text_attention": r"text_encoder\w*/.*/attn/(q|k|v|out)/kernel",
    "text_feed_forward": r"text_encoder\w*/.*/fc\d/kernel",
}
"""The weights that each name of `parts` stands for."""
Part = Literal[
    "attention", "feed_forward", "projections", "convolutions", "time", "text_attention", "text_feed_forward"
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(PublishedConfig):
    """A LoRA.

    Attributes:
      parts: kinds of weights that get factors.
      paths: patterns of the paths of more weights, 'unet/down_0/attn_0/proj_in/kernel'.
      rank: rank of the factors.
      alpha: the scale is alpha / rank; None: the rank, which is a scale of 1.
      ranks: (path pattern, rank) where it is another; the first that matches counts.
      alphas: (path pattern, alpha), likewise.
      stabilised: whether the scale is alpha / sqrt(rank).
      dora: whether the lengths of columns are learned apart.
      words: that call for what was learned, as the file notes them.
    """

    parts: tuple[Part, ...] = ("attention",)
    paths: tuple[str, ...] = ()
    rank: int = 16
    alpha: float | None = None
    ranks: tuple[tuple[str, int], ...] = ()
    alphas: tuple[tuple[str, float], ...] = ()
    stabilised: bool = False
    dora: bool = False
    words: str = ""

    def check(self, data: DataConfig, optimizer: OptimizerConfig) -> None:
        """Refuses numbers that do not fit each other, and patterns that match nothing."""
        super().check(data, optimizer)
        base, patterns = self._outline(), [PARTS[part] for part in self.parts]
        if not (patterns or self.paths):
            raise ValueError("task.parts and task.paths are empty: name the weights that get factors")
        self._targets(base)
        for field, pairs in (("ranks", self.ranks), ("alphas", self.alphas)):
            for pattern, _ in pairs:
                base_model.trainable(base, (pattern,), f"task.{field}")

    def _targets(self, base: Base) -> dict[str, tuple[tuple[int, ...], int, float]]:
        """Returns shape, rank and scale of each weight that gets factors, by its path.

        Raises:
          ValueError: if a pattern matches no weight of a layer, or a number is out of range.
        """
        patterns = (*(PARTS[part] for part in self.parts), *self.paths)
        shapes = flatten({name: part.params for name, part in base.bundle.components.items()})
        found = {}
        for path in base_model.trainable(base, patterns, "task.parts or task.paths"):
            shape = tuple(shapes[path].shape)
            if not path.endswith("/kernel"):
                raise ValueError(f"task.paths has a pattern that matches {path}, which is no layer's kernel")
            rank = next((own for pattern, own in self.ranks if re.fullmatch(pattern, path)), self.rank)
            alpha = next((own for pattern, own in self.alphas if re.fullmatch(pattern, path)), self.alpha)
            alpha = rank if alpha is None else alpha
            if rank < 1 or not 0 < alpha < math.inf:
                raise ValueError(
                    f"{path} gets rank {rank} and alpha {alpha} (task.rank, alpha, ranks, alphas): expected a rank of "
                    "1 or more, and an alpha above 0"
                )
            found[path] = shape, rank, alpha / (math.sqrt(rank) if self.stabilised else rank)
        return found

    def _prepare(self, assets: Assets, folder: Path, data: DataConfig, source: Source | None, new: bool) -> Assets:
        return assets._replace(more=self._targets(assets.base))

    def _start(self, assets: Assets, key: Key, loaded: Params) -> tuple[Params, Params]:
        """Downs that keep their input's size, uniform as kaiming's with a = sqrt(5); ups of zeros."""
        factors, weights = {}, flatten(loaded)
        downs: dict[tuple[int, ...], list[int]] = {}
        for n, (shape, rank, _) in enumerate(assets.more.values()):
            downs.setdefault((*shape[:-1], rank), []).append(n)
        keys, drawn = jax.random.key_data(jax.random.split(key, len(assets.more))), dict[int, Any]()
        for shape, which in downs.items():  # those of one shape at once, since each draw takes long to compile
            bound = 1 / math.sqrt(np.prod(shape[:-1]))
            draw = functools.partial(jax.random.uniform, shape=shape, minval=-bound, maxval=bound)
            own = jax.random.wrap_key_data(keys[np.array(which)])
            drawn |= dict(zip(which, jax.vmap(draw)(own), strict=True))
        for n, (path, (shape, rank, _)) in enumerate(assets.more.items()):
            factors[f"{path}/down"] = drawn[n]
            factors[f"{path}/up"] = jnp.zeros((rank, shape[-1]))
            if self.dora:
                square = jnp.square(weights[path].astype(jnp.float32))
                factors[f"{path}/magnitude"] = jnp.sqrt(square.sum(tuple(range(len(shape) - 1))))  # a vector: no decay
        return unflatten(factors), dict(loaded)

    def _dtype(self, assets: Assets, path: str) -> str | None:
        """Keeps float32: where small changes are added, bfloat16 would round them away."""
        return "float32" if path in assets.more else super()._dtype(assets, path)

    def _weights(self, assets: Assets, params: Params, frozen: Params) -> dict[str, Any]:
        factors = self.factors(assets, params)
        return {**frozen, **{name: lora.merge(frozen[name], [own], [1.0]) for name, own in factors.items()}}

    def factors(self, assets: Assets, params: Params) -> Lora:
        """Returns the trained factors, as `pretrained.lora` has them."""
        found: dict[str, dict[str, dict[str, Any]]] = {}
        for path, x in flatten(params).items():
            target, _, role = path.rpartition("/")
            name, _, inside = target.partition("/")
            shape, _, scale = assets.more[target]
            x = x.reshape(*[1] * (len(shape) - 1), -1) if role == "magnitude" else x
            scale = jnp.float32(scale)
            found.setdefault(name, {}).setdefault(inside, {"scale": scale})[role] = x
        return found

    def _rules(self) -> Rules:
        return ((r".*/(down|up|magnitude)", P()),)

    def apart(self, assets: Assets, weights: Variables, out: Path, layout: str) -> Callable[[Path], None]:
        """Returns what writes the LoRA as one file, in the layout of diffusers and PEFT, or of kohya's scripts."""
        if out.suffix != ".safetensors":
            raise ValueError(f"out is {out}: this run is a LoRA, for a file that ends in .safetensors")
        components, note = assets.base.bundle.components, self._note(assets)
        return lambda to: lora.write(to, self.factors(assets, weights.params), components, layout, note)

    def _note(self, assets: Assets) -> dict[str, str]:
        """Returns what the file says of itself, by the names that other tools look for."""
        ranks, scales = [rank for _, rank, _ in assets.more.values()], assets.more.values()
        note = {
            **signature(),
            "ss_network_module": "networks.lora",
            "ss_network_dim": str(max(ranks)),
            "ss_network_alpha": f"{next(scale * rank for _, rank, scale in scales):g}",
            "ss_sd_model_name": self.model.name if self.model else "",
            "ss_new_sd_model_hash": assets.base.sha256,
            "modelspec.title": self.words or "LoRA",
        }
        if self.words:
            note["modelspec.trigger_phrase"] = self.words
        return note


def read(path: Path, components: dict[str, Component]) -> Lora:
    """Returns the LoRA of a run of this task, or of a file or directory of others (`pretrained.lora.read`).

    Raises:
      ValueError, OSError: see `pretrained.lora.read` and `saved.open_saved`; and if the run is of another task, or its
        LoRA for another model.
    """
    file = saved.folder_of(path) / "config.json"
    if not file.is_file() or "task" not in json.loads(file.read_text(encoding="utf-8")):
        return lora.read(path, components)
    run = saved.open_saved(path)
    if not isinstance(run.config, Config):
        raise ValueError(f"{path} is a run, and no LoRA: give it as --model")
    found = run.config.factors(run.assets, run.weights.params)
    for name, own in found.items():
        there = flatten(components[name].params) if name in components else {}
        for target in own:
            shape = run.assets.more[f"{name}/{target}"][0]
            if target not in there or tuple(there[target].shape) != shape:
                raise ValueError(f"{path} is a LoRA for another model: it changes {name}/{target} {shape}")
    return found
