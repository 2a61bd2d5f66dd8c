"""From noise to data: time grids, samplers as tables of coefficients, and the one scan that runs them."""

from jaxdiff.sampling import grid
from jaxdiff.sampling.kernel import Kernel, Trajectory, drive
from jaxdiff.sampling.registry import SAMPLERS, Sampler, make_table
from jaxdiff.sampling.solvers.ddim import ddim, ddpm
from jaxdiff.sampling.table import Table, cut, noised, pad, replay, run, start, with_aux

__all__ = [
    "SAMPLERS",
    "Kernel",
    "Sampler",
    "Table",
    "Trajectory",
    "cut",
    "ddim",
    "ddpm",
    "drive",
    "grid",
    "make_table",
    "noised",
    "pad",
    "replay",
    "run",
    "start",
    "with_aux",
]
