"""Every scheduler that the reference library has too, at every step, fed the same noise."""

import json
import pathlib

import numpy as np
import pytest

from jaxdiff import sampling
from jaxdiff.diffusion import precondition, prediction, schedule, variance
from jaxdiff.sampling import grid
from jaxdiff.sampling.solvers import adams, ddim, exponential, few_step, predictor_corrector, singlestep, two_stage
from jaxdiff.typing import Estimate

FILE = np.load(pathlib.Path(__file__).parents[1] / "reference" / "schedulers.npz")
INDEX = json.loads(bytes(FILE["index"]))
SCHEDULES = {"linear": schedule.linear(), "scaled_linear": schedule.scaled_linear(), "cosine": schedule.cosine()}
FIRST = 1 / 1000
TAU = (0.2005, 0.8015)  # the reference has noise from step 200 to step 800, of rounded times

# name in the file -> the table, the family of its grid, the final level
TABLES = {
    "euler": (ddim.euler, "levels", "data"),
    "euler_ancestral": (ddim.euler_ancestral, "levels", "data"),
    "heun": (two_stage.heun, "levels", "data"),
    "kdpm2": (two_stage.kdpm2, "levels", "data"),
    "kdpm2_ancestral": (two_stage.kdpm2_ancestral, "levels", "data"),
    "lms": (adams.lms, "levels", "data"),
    "dpmpp_sde": (two_stage.dpmpp_sde, "levels", "data"),
    "ddpm small": (ddim.ddpm, "steps", "data"),
    "ddpm large": (lambda s, t: ddim.ddpm(s, t, "large"), "steps", "data"),
    "ddpm learned": (lambda s, t: ddim.ddpm(s, t, "learned"), "steps", "data"),
    "ddim 0": (ddim.ddim, "steps", "data"),
    "ddim 0.6": (lambda s, t: ddim.ddim(s, t, 0.6), "steps", "data"),
    "ddim first": (ddim.ddim, "offset", "first"),
    "ddim_inverse": (ddim.ddim_inverse, "steps", "data"),
    "plms": (adams.plms, "steps", "data"),
    "pndm": (adams.pndm, "steps", "data"),
    "dpmpp_2m": (exponential.dpmpp_2m, "halves", "data"),
    "dpmpp_2m exact": (lambda s, t: exponential.dpmpp_2m(s, t, slope="exact"), "halves", "data"),
    "dpmpp_2m first": (exponential.dpmpp_2m, "halves", "below"),
    "dpmpp_3m": (exponential.dpmpp_3m, "halves", "data"),
    "dpmpp_2m_sde": (exponential.dpmpp_2m_sde, "halves", "data"),
    "dpm_solver 1": (lambda s, t: exponential.dpm_solver(s, t, 1), "halves", "below"),
    "dpm_solver 2": (exponential.dpm_solver, "halves", "below"),
    "dpm_solver 3": (lambda s, t: exponential.dpm_solver(s, t, 3), "halves", "below"),
    "dpm_solver sde": (lambda s, t: exponential.dpm_solver(s, t, 2, 1.0), "halves", "below"),
    "dpmpp_2s": (singlestep.dpmpp_2s, "halves", "data"),
    "dpmpp_2s sde": (lambda s, t: singlestep.dpmpp_2s(s, t, 1.0), "halves", "data"),
    "dpm_solver_single 1": (lambda s, t: singlestep.dpm_solver_single(s, t, 1), "halves", "below"),
    "dpm_solver_single 2": (lambda s, t: singlestep.dpm_solver_single(s, t, 2), "halves", "below"),
    "dpm_solver_single 3": (lambda s, t: singlestep.dpm_solver_single(s, t, 3), "halves", "below"),
    "deis 3": (exponential.deis, "halves", "below"),
    "deis 2": (lambda s, t: exponential.deis(s, t, 2), "halves", "below"),
    "unipc 1 bh1": (lambda s, t: predictor_corrector.unipc(s, t, 1, "bh1"), "halves", "below"),
    "unipc 2 bh1": (lambda s, t: predictor_corrector.unipc(s, t, 2, "bh1"), "halves", "below"),
    "unipc 3 bh1": (lambda s, t: predictor_corrector.unipc(s, t, 3, "bh1"), "halves", "below"),
    "unipc 1 bh2": (lambda s, t: predictor_corrector.unipc(s, t, 1), "halves", "data"),
    "unipc 2 bh2": (predictor_corrector.unipc, "halves", "data"),
    "unipc 3 bh2": (lambda s, t: predictor_corrector.unipc(s, t, 3), "halves", "data"),
    "unipc plain": (lambda s, t: predictor_corrector.unipc(s, t, 2, corrector=False), "halves", "data"),
    "sa_solver 2 2": (lambda s, t: predictor_corrector.sa_solver(s, t, interval=TAU), "halves", "below"),
    "sa_solver 3 4": (lambda s, t: predictor_corrector.sa_solver(s, t, 3, 4, interval=TAU), "halves", "below"),
    "lcm": (few_step.lcm, "latent", "data"),
    "tcd 0.0": (lambda s, t: few_step.tcd(s, t, 0.0), "latent", "first"),
    "tcd 0.3": (few_step.tcd, "latent", "first"),
    "tcd 1.0": (lambda s, t: few_step.tcd(s, t, 1.0), "latent", "first"),
}


def reference_grid(s, family, final, spacing, karras, steps):
    """The times at which the reference calls its network, by our grids where they are the same."""
    end = {"data": 0.0, "first": FIRST, "below": FIRST / 2 if karras else FIRST}[final]
    if family == "levels":
        if spacing == "linspace":  # it interpolates sigma, and we log sigma, between trained steps
            trained = np.exp(-s.knots / 2)
            levels = np.interp(np.linspace(999, 0, steps), np.arange(1000), trained)
            times = grid.from_levels(s, levels, end)
        else:
            times = grid.GRIDS[spacing](s, steps, final=end)
        return grid.karras(s, steps, first=times[0], last=times[-2], final=end) if karras else times
    if family == "halves":
        if karras:
            return grid.karras(s, steps, final=end)
        if spacing == "linspace":
            return grid.from_steps(s, np.linspace(0, 999, steps + 1).round()[:0:-1], end)
        if spacing == "leading":
            return grid.from_steps(s, np.arange(steps, 0, -1) * (1000 // (steps + 1)), end)
    if family == "latent":  # of the 50 steps of the teacher
        teacher = np.arange(1, 51)[::-1] * 20 - 1
        return grid.from_steps(s, teacher[np.floor(np.linspace(0, 50, steps, endpoint=False)).astype(int)], end)
    if spacing == "linspace":
        return grid.from_steps(s, np.linspace(0, 999, steps).round()[::-1], end)
    if spacing == "leading":
        return grid.leading(s, steps, offset=int(family == "offset"), final=end)
    return grid.trailing(s, steps, final=end)


def network(x, s):
    u = 1.7 * x + 0.5
    return 0.8 * u / np.sqrt(1 + u**2) * (0.3 + 1 / (1 + s**2))


def replayed(case, seed, table, s, to_x0, scale=1.0):
    """What our table does with the case's first picture and noise, at every call."""
    rng = np.random.default_rng(seed)
    x_init, noises = np.array([[scale * rng.uniform(-1, 1)]]), rng.standard_normal(4 * case[-1])

    def denoise(x, t, aux):
        x0 = to_x0(x, s.alpha(t), s.sigma(t))
        if "log_variances" not in aux:
            return x0
        return Estimate(x0, np.exp(variance.learned_log_variance(np.sin(3 * x), *aux["log_variances"]) / 2))

    return sampling.replay(table, denoise, x_init, noises[: table.calls, None, None])[0][:, 0, 0]


def error(got, expected):
    """The largest error of all steps; the file holds float32, which rounds by 6e-8."""
    return np.max(np.abs(got - expected) / (np.abs(expected) + 0.05))


def cases_of(name):
    start = 0
    for seed, case in enumerate(INDEX):
        calls = CALLS[seed]
        if case[0] == name:
            yield seed, case, FILE["values"][start : start + calls]
        start += calls


def calls_of(case):
    name, steps = case[0], case[-1]
    if name in ("heun", "kdpm2", "kdpm2_ancestral", "dpmpp_sde", "flow_heun"):
        return 2 * steps - 1
    return {"plms": steps + 1, "pndm": steps + 9}.get(name, steps)


CALLS = [calls_of(case) for case in INDEX]


@pytest.mark.parametrize("name", TABLES)
def test_every_step_agrees_with_the_reference(name):
    make, family, final = TABLES[name]
    errors = {}
    for seed, case, expected in cases_of(name):
        _, beta, spacing, kind, karras, steps = case
        s = SCHEDULES[beta]
        table = make(s, reference_grid(s, family, final, spacing, karras, steps))
        to_x0 = lambda x, a, b, kind=kind: prediction.to_x0(network(x, b / a), x, a, b, kind)
        errors[tuple(case)] = error(replayed(case, seed, table, s, to_x0), expected)
    assert errors
    worst = max(errors, key=errors.get)
    assert errors[worst] < 2e-5, (worst, errors[worst], sum(e > 2e-5 for e in errors.values()), len(errors))


def test_the_file_is_read_to_its_end():
    assert sum(CALLS) == len(FILE["values"])
    assert {case[0] for case in INDEX} == {*TABLES, "flow_euler", "flow_heun", "ipndm", "consistency"}


@pytest.mark.parametrize(("name", "make"), [("flow_euler", ddim.euler), ("flow_heun", two_stage.flow_heun)])
def test_flows_agree_with_the_reference(name, make):
    s = schedule.flow(3.0)
    for seed, case, expected in cases_of(name):
        # its shift is applied twice: to the ends of the range, and to the even times between them
        sigma = np.linspace(1, 3 / 1002, case[-1])
        shifted = 3 * sigma / (1 + 2 * sigma)
        with np.errstate(divide="ignore"):  # the first is noise alone
            times = np.append(s.time(2 * (np.log1p(-shifted) - np.log(shifted))), 0)
        table = make(s, times)
        got = replayed(case, seed, table, s, lambda x, a, b: prediction.to_x0(network(x, b), x, a, b, "flow"))
        assert error(got, expected) < 2e-5, case


def test_ipndm_agrees_with_the_reference():
    for seed, case, expected in cases_of("ipndm"):
        sigma = np.linspace(0.95, 0, case[-1] + 1)
        s = schedule.vp()
        with np.errstate(divide="ignore"):
            times = s.time(np.log1p(-(sigma**2)) - 2 * np.log(sigma))
        to_x0 = lambda x, a, b: prediction.to_x0(network(x, b), x, a, b, "v")
        assert error(replayed(case, seed, adams.ipndm(s, times), s, to_x0), expected) < 2e-5, case


def test_consistency_agrees_with_the_reference():
    s = schedule.edm()
    for seed, case, expected in cases_of("consistency"):
        ramp = np.arange(case[-1]) * (100 // case[-1]) / 99
        levels = (80 ** (1 / 7) + ramp * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
        table = few_step.consistency(s, grid.from_levels(s, levels, 0.002 / 80), sigma_min=0.002)

        def to_x0(x, a, b):
            scalings = precondition.consistency(a, b)
            return scalings.skip * x + scalings.out * network(x, b)

        assert error(replayed(case, seed, table, s, to_x0, 80.0), expected) < 2e-5, case
