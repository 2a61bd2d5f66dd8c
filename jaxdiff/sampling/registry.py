"""Samplers by name, as the command line and the pipelines ask for them.

Each entry says what makes the table, over which grid by default, and how many network calls a step costs; `make_table`
is all that a program needs. Every table comes padded to `SLOTS` slots, so samplers with the same number of calls share
one compiled program.
"""

import dataclasses
import difflib
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxdiff.diffusion.schedule import Schedule
from jaxdiff.sampling import grid as grids
from jaxdiff.sampling.solvers import (
    adams,
    ddim,
    exponential,
    few_step,
    predictor_corrector,
    resample,
    singlestep,
    two_stage,
)
from jaxdiff.sampling.table import Table, clipped, pad


@dataclasses.dataclass(frozen=True)
class Sampler:
    """One public sampler: (schedule, times, options) -> Table, and the grid it is used with by default."""

    make: Callable[..., Table]
    grid: str = "trailing"


SAMPLERS: dict[str, Sampler] = {
    "ddpm": Sampler(ddim.ddpm),
    "ddim": Sampler(ddim.ddim),
    "euler": Sampler(ddim.euler),
    "euler_ancestral": Sampler(ddim.euler_ancestral),
    "heun": Sampler(two_stage.heun, "moderate"),
    "edm": Sampler(two_stage.edm, "moderate"),
    "kdpm2": Sampler(two_stage.kdpm2, "moderate"),
    "kdpm2_ancestral": Sampler(two_stage.kdpm2_ancestral, "moderate"),
    "dpmpp_2s_ancestral": Sampler(two_stage.dpmpp_2s_ancestral, "moderate"),
    "dpmpp_sde": Sampler(two_stage.dpmpp_sde, "moderate"),
    "restart": Sampler(two_stage.restart, "moderate"),
    "lms": Sampler(adams.lms),
    "plms": Sampler(adams.plms, "moderate"),
    "pndm": Sampler(adams.pndm, "moderate"),
    "ipndm": Sampler(adams.ipndm),
    "dpm_solver": Sampler(exponential.dpm_solver),
    "dpm_solver_single": Sampler(singlestep.dpm_solver_single, "moderate"),
    "dpmpp_2s": Sampler(singlestep.dpmpp_2s),
    "dpmpp_2s_sde": Sampler(singlestep.dpmpp_2s_sde),
    "dpmpp_2m": Sampler(exponential.dpmpp_2m),
    "dpmpp_3m": Sampler(exponential.dpmpp_3m),
    "dpmpp_2m_sde": Sampler(exponential.dpmpp_2m_sde),
    "dpmpp_3m_sde": Sampler(exponential.dpmpp_3m_sde),
    "deis": Sampler(exponential.deis),
    "unipc": Sampler(predictor_corrector.unipc),
    "sa_solver": Sampler(predictor_corrector.sa_solver),
    "consistency": Sampler(few_step.consistency),
    "lcm": Sampler(few_step.lcm, "distilled"),
    "tcd": Sampler(few_step.tcd, "distilled"),
    "flow_euler": Sampler(ddim.euler),
    "flow_heun": Sampler(two_stage.flow_heun),
    "repaint": Sampler(resample.repaint),
}
INVERSIONS: dict[str, Sampler] = {
    "ddim_inverse": Sampler(ddim.ddim_inverse),
    "dpm_inverse": Sampler(exponential.dpm_inverse),
}
"""The solvers that lead the other way, from a picture to the noise that makes it; `make_table` knows them too."""

SLOTS = 6
"""The most slots of any sampler with its published orders."""


def lookup(kind: str, name: str, known: dict[str, Any]) -> Any:
    """Returns the entry of that name.

    Raises:
      ValueError: if there is none; lists what exists, the nearest name first.
    """
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
        listed = ", ".join([*near, *sorted(n for n in known if n not in near)])
        raise ValueError(f"unknown {kind} {name!r}: expected one of {listed}")
    return known[name]


def make_table(
    name: str,
    schedule: Schedule,
    steps: int,
    grid: str | grids.Grid | None = None,
    *,
    clip: float | None = None,
    threshold: tuple[float, float] | None = None,
    **options: Any,
) -> Table:
    """Returns the table of a sampler by name.

    Args:
      name: a key of `SAMPLERS` or `INVERSIONS`.
      schedule: the process.
      steps: network calls for a sampler that makes one a step; others make their own multiple of it.
      grid: the name of a grid, or times to use as they are; by default the sampler's own.
      clip: estimates of x0 are clipped to [-clip, clip]; None: not.
      threshold: dynamic thresholding instead: the quantile, and the most it may be.
      options: the sampler's, such as eta.

    Raises:
      ValueError: for an unknown name, an option the sampler does not have, or steps the grid or sampler cannot make.
    """
    sampler = INVERSIONS.get(name) or lookup("sampler", name, SAMPLERS)
    allowed = list(inspect.signature(sampler.make).parameters)[2:]
    for option in options:
        if option not in allowed:
            raise ValueError(f"sampler {name!r} has no option {option!r}: it takes {', '.join(allowed) or 'none'}")
    if grid is None or isinstance(grid, str):
        grid = lookup("grid", grid or sampler.grid, grids.GRIDS)(schedule, steps)
    with np.errstate(divide="ignore", invalid="ignore"):  # what is not finite is refused by name
        return clipped(pad(sampler.make(schedule, grid, **options), SLOTS), clip, threshold)
