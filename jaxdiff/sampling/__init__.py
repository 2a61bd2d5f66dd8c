"""From noise to data: time grids, samplers as tables of coefficients, and the one scan that runs them."""

from jaxdiff.sampling import grid
from jaxdiff.sampling.kernel import Kernel, Trajectory, drive
from jaxdiff.sampling.registry import INVERSIONS, SAMPLERS, Sampler, make_table
from jaxdiff.sampling.solvers.adams import ipndm, lms, plms, pndm
from jaxdiff.sampling.solvers.ddim import ddim, ddim_inverse, ddpm, euler, euler_ancestral
from jaxdiff.sampling.solvers.exponential import deis, dpm_solver, dpmpp_2m, dpmpp_2m_sde, dpmpp_3m, dpmpp_3m_sde
from jaxdiff.sampling.solvers.few_step import consistency, lcm, tcd
from jaxdiff.sampling.solvers.predictor_corrector import sa_solver, unipc
from jaxdiff.sampling.solvers.resample import repaint
from jaxdiff.sampling.solvers.singlestep import dpm_solver_single, dpmpp_2s, dpmpp_2s_sde
from jaxdiff.sampling.solvers.two_stage import (
    dpmpp_2s_ancestral,
    dpmpp_sde,
    edm,
    flow_heun,
    heun,
    kdpm2,
    kdpm2_ancestral,
    restart,
)
from jaxdiff.sampling.table import Table, clipped, cut, noised, pad, replay, run, start, with_aux

__all__ = [
    "INVERSIONS",
    "SAMPLERS",
    "Kernel",
    "Sampler",
    "Table",
    "Trajectory",
    "clipped",
    "consistency",
    "cut",
    "ddim",
    "ddim_inverse",
    "ddpm",
    "deis",
    "dpm_solver",
    "dpm_solver_single",
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "dpmpp_2s",
    "dpmpp_2s_ancestral",
    "dpmpp_2s_sde",
    "dpmpp_3m",
    "dpmpp_3m_sde",
    "dpmpp_sde",
    "drive",
    "edm",
    "euler",
    "euler_ancestral",
    "flow_heun",
    "grid",
    "heun",
    "ipndm",
    "kdpm2",
    "kdpm2_ancestral",
    "lcm",
    "lms",
    "make_table",
    "noised",
    "pad",
    "plms",
    "pndm",
    "repaint",
    "replay",
    "restart",
    "run",
    "sa_solver",
    "start",
    "tcd",
    "unipc",
    "with_aux",
]
