"""The options of priors, those that denoise embeddings and those that say them as codes, and their numbers."""

import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdiff.pretrained.scheduler import Process
from jaxdiff.sampling import grid
from jaxdiff.sampling.table import Table, with_aux
from jaxdiff.sampling.tokens import Numbers


class Walk(NamedTuple):
    """The numbers of a prior that denoises.

    Attributes:
      table: the sampler's.
      signal: how much of an embedding that is given the walk starts from.
      noise: how much of unit noise it starts from.
    """

    table: Table
    signal: Any
    noise: Any


@dataclasses.dataclass(frozen=True)
class PriorOptions:
    """The options of a prior.

    Attributes:
      prior_steps: steps of the prior's sampler; at least 2.
      prior_guidance: how closely the embedding follows the prompt; 1 is off.
      prior_draws: embeddings drawn for each picture, of which the one nearest the text is kept.
    """

    prior_steps: int = 25
    prior_guidance: float = 4.0
    prior_draws: int = 1

    def check(self) -> None:
        """Refuses what makes no sense.

        Raises:
          ValueError: names the option.
        """
        for name, most in (("prior_steps", 1000), ("prior_draws", 64)):
            check_count(name, getattr(self, name), 1 + (name == "prior_steps"), most)
        check_number("prior_guidance", self.prior_guidance)

    def numbers(self, process: Process, strength: float | None) -> Walk:
        """Returns what the program is given of them, of a walk from noise or, with a strength, from an embedding.

        Raises:
          ValueError: if the strength leaves no step.
        """
        times = process.calls(self.prior_steps).times
        signal, noise = 0.0, 1.0
        if strength is not None:
            times = grid.cut(times, strength)
            signal, noise = (float(f(times[:1])[0]) for f in (process.schedule.alpha, process.schedule.sigma))
        table = with_aux(process.table(times, self.prior_steps), guidance=self.prior_guidance)
        return jax.tree.map(lambda x: np.asarray(x, np.float32), Walk(table, signal, noise))


@dataclasses.dataclass(frozen=True)
class CausalOptions:
    """The options of a prior that says embeddings one number after another (`models.causal_prior`).

    Attributes:
      prior_temperature: temperature of each number's distribution; 1 is the model's own, less keeps nearer its modes.
      prior_top_p: draw each number from the likeliest that hold this part of the probability.
      prior_guidance: how closely the embedding follows the prompt; 1 is off.
      prior_draws: embeddings drawn for each picture, of which the one nearest the text is kept.
    """

    prior_temperature: float = 1.0
    prior_top_p: float = 1.0
    prior_guidance: float = 4.0
    prior_draws: int = 1

    def check(self) -> None:
        """Refuses what makes no sense.

        Raises:
          ValueError: names the option.
        """
        check_count("prior_draws", self.prior_draws, 1, 64)
        for name in ("prior_temperature", "prior_top_p", "prior_guidance"):
            check_number(name, getattr(self, name))
        if not self.prior_temperature > 0:
            raise ValueError(f"prior_temperature is {self.prior_temperature}: expected a number above 0")
        if not 0 < self.prior_top_p <= 1:
            raise ValueError(f"prior_top_p is {self.prior_top_p}: expected a number above 0 and at most 1")

    def numbers(self, process: None, strength: float | None) -> Numbers:
        """Returns what the program is given of them: how codes are drawn.

        Raises:
          ValueError: for a strength, since codes start from nothing.
        """
        if strength is not None:
            raise ValueError("prior_strength is for priors that denoise, and this one says embeddings as codes")
        drawn = map(np.float32, (self.prior_temperature, 0, self.prior_top_p, self.prior_guidance))
        return Numbers(*drawn)._replace(top_k=np.int32(np.iinfo(np.int32).max))


def check_count(name: str, value: Any, least: int, most: int) -> None:
    """Refuses what is no whole number from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{name} is {value!r}: expected a whole number from {least} to {most}")


def check_number(name: str, value: Any) -> None:
    """Refuses what is no finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        raise ValueError(f"{name} is {value!r}: expected a finite number")
