"""Sounds as a pipeline's: drawn as levels of mu-law, shown as spectrograms, written as WAV files."""

import dataclasses
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxdiff.data import sound
from jaxdiff.pipelines.direct import Draw, Tempered
from jaxdiff.pipelines.originals import OriginalsPipeline


@dataclasses.dataclass(frozen=True)
class Voiced(Tempered):
    """Lists what a call may be given, of a network that is conditioned on pitch and loudness.

    Attributes:
      pitch: pitch in Hz; vowels have 96 to 192.
      loudness: loudness; vowels have 0.5 to 1.
    """

    pitch: float = 130.0
    loudness: float = 0.8


def voice(numbers: Any, count: int, samples: int, rate: int, hop: int) -> Float[Array, "b n 2"]:
    """Returns an even pitch in octaves above 110 Hz, and a loudness that fades in and out as a vowel's.

    Args:
      numbers: the options of a call.
      count: how many sounds.
      samples: samples of each.
      rate: samples a second.
      hop: samples that have one pitch and loudness.
    """
    loud = sound.fade(samples, rate)[::hop].repeat(hop)
    both = jnp.stack(jnp.broadcast_arrays(jnp.log2(numbers["pitch"] / 110), numbers["loudness"] * loud), -1)
    return jnp.broadcast_to(both, (count, *both.shape))


class SoundPipeline(OriginalsPipeline):
    """Draws sounds of mu-law levels, and writes OUT/0.wav and so on."""

    def __init__(self, weights: Any, draw: Draw, *, levels: int, rate: int, **how: Any):
        """Compiles nothing yet.

        Args:
          weights: what `draw` reads.
          draw: draws levels [b n].
          levels: how many levels there are.
          rate: samples a second.
          how: see `DirectPipeline`.
        """

        def show(drawn: np.ndarray) -> np.ndarray:
            return np.stack([sound.spectrogram(one) for one in self.waves(drawn)])

        def write(out: Path, drawn: np.ndarray) -> list[Path]:
            paths = [out.with_suffix("") / f"{i}.wav" for i in range(len(drawn))]
            for path, one in zip(paths, self.waves(drawn), strict=True):
                sound.write(path, one, rate)
            return paths

        super().__init__(weights, draw, show, write, **how)
        self._levels = levels

    def waves(self, drawn: Int[np.ndarray, "b n"]) -> Float[np.ndarray, "b n"]:
        """Returns the samples in [-1, 1] of levels."""
        return sound.from_mu_law(drawn, self._levels).astype(np.float32)
