"""An autoregressive prior over the codes of a VQ autoencoder, which makes of the autoencoder a model that draws.

    log p(codes) = sum_i log p(code_i | code_1 .. code_{i-1})

by a network that sees the codes' vectors, an ordered one; what is drawn is decoded. The autoencoder is a run of
`jaxdiff train` (tasks.first_stage) and stays as it is; a copy lies in the run's directory.

Source: van den Oord et al. 2017, arXiv 1711.00937, section 3.3.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxdiff.data.source import DataConfig, Source
from jaxdiff.models.autoencoder_vq import AutoencoderVQ, VQConfig
from jaxdiff.models.config import NetConfig
from jaxdiff.models.ordered import OrderedConfig
from jaxdiff.models.pixelcnn import PixelCNNConfig
from jaxdiff.objectives import likelihood
from jaxdiff.pipelines import first_stage
from jaxdiff.pipelines.direct import Tempered
from jaxdiff.pretrained.read import Component
from jaxdiff.pretrained.write import write_component
from jaxdiff.tasks import saved
from jaxdiff.tasks.family import Assets, FamilyConfig
from jaxdiff.training import Known, OptimizerConfig, Variables
from jaxdiff.training.workdir import by_first
from jaxdiff.typing import Batch, Key, Metrics, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(FamilyConfig):
    """A prior over codes.

    Attributes:
      net: the network, ordered.
      vq: the autoencoder's numbers.
      autoencoder: the run that trained it.
    """

    net: NetConfig = PixelCNNConfig()
    vq: NetConfig = VQConfig()
    autoencoder: str = ""

    likelihood = ""
    options = Tempered

    def check(self, data: DataConfig, optimizer: OptimizerConfig) -> None:
        """Refuses numbers that do not fit each other or the data."""
        super().check(data, optimizer)
        if not isinstance(self.net, OrderedConfig):
            raise ValueError(f"task.net is a {type(self.net).__name__}: expected pixelcnn, pixelrnn or made")
        if not isinstance(self.vq, VQConfig):
            raise ValueError(f"task.vq is a {type(self.vq).__name__}: expected autoencoder_vq")
        if self.grey or self.levels != 256:
            raise ValueError("task.grey and task.levels are the autoencoder's: leave them out")
        self.vq.check(data.size, data.size)
        self.net.check(data.size // self.vq.unit, data.size // self.vq.unit)
        self._network((data.size, data.size, 3))

    def assets(self, folder: Path, data: DataConfig, source: Source | None = None, *, new: bool = False) -> Assets:
        """Reads the copy of the autoencoder, or makes it; and the names of the classes.

        Raises:
          FileNotFoundError, ValueError: if there is none, or one of other numbers.
        """
        assets = super().assets(folder, data, source, new=new)
        if new:
            if not self.autoencoder:
                raise ValueError("task.autoencoder is empty: give the run of a VQ autoencoder (configs/openmoji_vq.py)")
            part = saved.read_autoencoder(Path(self.autoencoder))
            self._fits(part, self.autoencoder)
            by_first(lambda: first_stage.write_once(folder / "autoencoder", lambda at: write_component(part, at)))
        part = first_stage.read_autoencoder(folder / "autoencoder")
        self._fits(part, str(folder))
        return assets._replace(part=part)

    def _fits(self, part: Component, path: str) -> None:
        own: Any = self.vq
        if not isinstance(part.config, VQConfig) or dataclasses.replace(part.config, scale=own.scale) != own:
            raise ValueError(
                f"{path} holds another autoencoder than task.vq describes: give its numbers, {part.config}"
            )

    def _more(self, assets: Any) -> dict[str, Any]:
        return {"load": lambda place: jax.device_put(assets.part.params, place(assets.part.params))}

    def _side(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        vq: Any = self.vq
        return shape[0] // vq.unit, shape[1] // vq.unit, vq.width

    def _network(self, shape: tuple[int, ...]) -> Any:
        net: Any = self.net
        vq: Any = self.vq
        return net.make(self._side(shape), 1, vq.codes, self.classes)

    def _calls(self, shape: tuple[int, ...]) -> int:
        rows, columns, _ = self._side(shape)
        return rows * columns

    def _vq(self, frozen: Params, method: str, *args: Any) -> Any:
        vq: Any = self.vq
        return AutoencoderVQ(vq).apply({"params": frozen}, *args, method=method)

    def _init(self, key: Key, x: Array, label: Array | None) -> Variables:
        one = None if label is None else jnp.zeros(1, jnp.int32)
        start = jnp.zeros((1, *self._side(x.shape[1:])))
        return Variables(self._network(x.shape[1:]).init(key, start, one)["params"])

    def _loss(self, params: Params, known: Known, batch: Batch, keys: Key) -> tuple[Array, Metrics, Any]:
        x = likelihood.unit(self.read(batch["image"]), self.levels)
        vectors, index = self._vq(known.frozen, "quantize", self._vq(known.frozen, "encode", x))
        out = self._network(x.shape[1:]).apply({"params": params}, vectors, batch.get("label"))
        log_p = likelihood.categorical(out, index).reshape(len(x), -1).sum(1)
        return likelihood.bits(log_p, index[0].size).mean(), {}, {}

    def _draw(self, weights: Variables, numbers: Any, keys: Key, label: Array | None, shape: tuple[int, ...]) -> Array:
        net: Any = self.net
        codes = weights.frozen["codebook"].astype(jnp.float32)
        pick = lambda key, out: codes[likelihood.draw_categorical(key, out, numbers["temperature"])[0]]
        vectors = net.sample(self._network(shape), weights.params, keys, label, self._side(shape), pick)
        y = self._vq(weights.frozen, "decode", vectors, True)
        return jnp.clip(jnp.round((y + 1) * 127.5), 0, 255).astype(jnp.int32)
