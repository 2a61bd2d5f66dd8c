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

from jaxdiff.diffusion.schedule import Schedule
from jaxdiff.sampling import grid as grids
from jaxdiff.sampling.solvers import ddim
from jaxdiff.sampling.table import Table, pad


@dataclasses.dataclass(frozen=True)
class Sampler:
    """One public sampler: (schedule, times, options) -> Table, and the grid it is used with by default."""

    make: Callable[..., Table]
    grid: str = "trailing"


SAMPLERS: dict[str, Sampler] = {
    "ddim": Sampler(ddim.ddim),
    "ddpm": Sampler(ddim.ddpm),
}
SLOTS = 1


def lookup(kind: str, name: str, known: dict[str, Any]) -> Any:
    """The entry of that name.

    Raises:
      ValueError: if there is none; lists what exists, the nearest name first.
    """
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
        listed = ", ".join([*near, *sorted(n for n in known if n not in near)])
        raise ValueError(f"unknown {kind} {name!r}: expected one of {listed}")
    return known[name]


def make_table(
    name: str, schedule: Schedule, steps: int, grid: str | grids.Grid | None = None, **options: Any
) -> Table:
    """The table of a sampler by name.

    Args:
      name: a key of `SAMPLERS`.
      schedule: the process.
      steps: network calls for a sampler that makes one a step; others make their own multiple of it.
      grid: the name of a grid, or times to use as they are; by default the sampler's own.
      options: the sampler's, such as eta.

    Raises:
      ValueError: for an unknown name, an option the sampler does not have, or steps the grid or sampler cannot make.
    """
    sampler = lookup("sampler", name, SAMPLERS)
    allowed = list(inspect.signature(sampler.make).parameters)[2:]
    for option in options:
        if option not in allowed:
            raise ValueError(f"sampler {name!r} has no option {option!r}: it takes {', '.join(allowed) or 'none'}")
    if grid is None or isinstance(grid, str):
        grid = lookup("grid", grid or sampler.grid, grids.GRIDS)(schedule, steps)
    return pad(sampler.make(schedule, grid, **options), SLOTS)
