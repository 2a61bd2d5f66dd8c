"""WaveNet: sounds of mu-law levels, each given those before it, the class, and the pitch and loudness over time.

    log p(x) = sum_t log p(x_t | x_1 .. x_{t-1}, h, y)

Sounds are WAV files in a folder, a subfolder for each class, or vowels made on the fly; `data.name` is 'synthetic'.
"""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxdiff.data import labels as labels_file
from jaxdiff.data import sound
from jaxdiff.data.source import DataConfig, Example, Source
from jaxdiff.models.config import NetConfig
from jaxdiff.models.wavenet import WaveNet, WaveNetConfig, sample
from jaxdiff.objectives import likelihood
from jaxdiff.parallel import MeshSpec
from jaxdiff.pipelines.direct import Tempered, kept
from jaxdiff.pipelines.sounds import SoundPipeline, Voiced, voice
from jaxdiff.tasks.task import Spec, TaskConfig
from jaxdiff.training import Known, OptimizerConfig, Preview, Task, Variables
from jaxdiff.training.workdir import by_first
from jaxdiff.typing import Batch, Key, Metrics, Params


class Assets(NamedTuple):
    """Holds the names of the classes, and the sounds that a run learns from, by folder; none: they are made."""

    labels: tuple[str, ...]
    sounds: tuple[tuple[np.ndarray, ...], ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(TaskConfig):
    """A WaveNet.

    Attributes:
      net: the network.
      sounds: folder of WAV files, a subfolder for each class; empty: vowels made on the fly.
      classes: how many the network is conditioned on, the first of those there are; 0: none, and it learns from all.
      rate: samples a second.
      samples: samples of an example, a stretch of a sound.
      levels: levels of a sample.
      hop: samples that share one pitch and loudness, of vowels alone; 0: they have none.
      previews: sounds that the run shows of itself.
    """

    net: NetConfig = WaveNetConfig()
    sounds: str = ""
    classes: int = 0
    rate: int = 8000
    samples: int = 2048
    levels: int = 256
    hop: int = 0
    previews: int = 5

    def check(self, data: DataConfig, optimizer: OptimizerConfig) -> None:
        """Refuses numbers that do not fit each other."""
        if not isinstance(self.net, WaveNetConfig):
            raise ValueError(f"task.net is a {type(self.net).__name__}: expected wavenet")
        self.net.check()
        most = {"classes": 0 if self.sounds else len(sound.VOWELS), "levels": 2**16, "previews": 64}
        least = {"classes": 0, "hop": 0, "previews": 0, "levels": 2, "rate": 1000, "samples": sound.WINDOW}
        for name, low in least.items():
            if not low <= (value := getattr(self, name)) <= (high := most.get(name) or 2**20):
                raise ValueError(f"task.{name} is {value}: expected {low} to {high}")
        if self.hop and (self.samples % self.hop or self.sounds):
            raise ValueError(
                f"task.hop is {self.hop}: expected a divisor of task.samples {self.samples}, and no task.sounds, whose "
                "pitch is not known"
            )
        if data.name != "synthetic":
            raise ValueError(f"data.name is {data.name!r}, pictures: a WaveNet takes 'synthetic', and task.sounds")

    def assets(self, folder: Path, data: DataConfig, source: Source | None = None, *, new: bool = False) -> Assets:
        """Reads the sounds of a run that learns; of one that is read, the names of its classes in labels.txt."""
        if not self.sounds:
            return Assets(tuple(sound.VOWELS))
        if source is None:
            return Assets(labels_file.read(folder / "labels.txt", self.classes) if self.classes else ())
        found = sound.read_folders(Path(self.sounds).expanduser(), self.rate, self.samples, self.classes)
        labels = tuple(found)[: self.classes]
        if new and labels:
            by_first(lambda: labels_file.write(folder / "labels.txt", labels))
        return Assets(labels, tuple(found.values()))

    def task(self, assets: Assets, spec: Spec = MeshSpec()) -> Task:
        """Returns the training of the network."""
        previews = {"sounds": self._preview(assets, spec)} if self.previews else {}
        return Task(init=self._init, loss=self._loss, example=self._example(assets), previews=previews)

    def _network(self) -> WaveNet:
        net: Any = self.net
        return WaveNet(net, self.levels, self.classes)

    def _example(self, assets: Assets) -> Any:
        def example(one: Example, rng: np.random.Generator) -> dict[str, np.ndarray]:
            which, controls = int(rng.integers(self.classes or len(assets.sounds or sound.VOWELS))), np.zeros((0, 2))
            if assets.sounds:
                x = sound.stretch(assets.sounds[which], rng, self.samples)
            elif self.sounds:
                x = np.zeros(self.samples)  # of a run that is read, the shape alone
            else:
                x, controls = sound.vowel(which, rng, self.samples, self.rate, self.hop or 1)
            row = {"sound": sound.mu_law(x, self.levels), "label": np.asarray(which, np.int32)}
            return {**row, **({"local": controls.astype(np.float32)} if self.hop else {})}

        return example

    def _inputs(self, batch: Batch) -> tuple[Array, Any, Any]:
        local = jnp.repeat(batch["local"], self.hop, 1) if self.hop else None
        label = jnp.asarray(batch["label"]) if self.classes else None
        return jax.nn.one_hot(batch["sound"], self.levels), label, local

    def _init(self, key: Key, loaded: Params, batch: Batch) -> Variables:
        return Variables(self._network().init(key, *self._inputs(jax.tree.map(lambda x: x[:1], batch)))["params"])

    def _loss(self, params: Params, known: Known, batch: Batch, keys: Key) -> tuple[Array, Metrics, Any]:
        logits: Any = self._network().apply({"params": params}, *self._inputs(batch))
        log_p = likelihood.categorical(logits, jnp.asarray(batch["sound"])).sum(1)
        return likelihood.bits(log_p, self.samples).mean(), {}, {}

    def pipeline(self, assets: Assets, weights: Variables, spec: Spec = MeshSpec()) -> SoundPipeline:
        """Returns what draws sounds."""

        def draw(weights: Any, numbers: Any, keys: Any, label: Any) -> Array:
            controls = voice(numbers, len(keys), self.samples, self.rate, self.hop) if self.hop else None
            pick = lambda key, logits: jax.random.categorical(key, logits / numbers["temperature"])
            return sample(self._network(), weights.params, keys, self.samples, pick, label, controls)

        how: dict[str, Any] = {"options": Voiced if self.hop else Tempered, "calls": self.samples, "spec": spec}
        how["labels"] = assets.labels[: self.classes]
        return SoundPipeline(weights, draw, levels=self.levels, rate=self.rate, **how)

    def _preview(self, assets: Assets, spec: Spec) -> Any:
        names = tuple(assets.labels[i % self.classes] if self.classes else "" for i in range(self.previews))
        with_weights = kept(lambda weights: self.pipeline(assets, weights, spec))

        def preview(weights: Variables, key: Key) -> Preview:
            pipe = with_weights(weights)
            return Preview(pipe.waves(pipe.both(names, key=key)[1]), names, "sound", self.rate)

        return preview
