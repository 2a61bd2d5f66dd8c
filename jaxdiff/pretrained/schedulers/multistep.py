"""The multistep classes: DPM-Solver, UniPC, DEIS, SA-Solver, and DPM-Solver from a picture to noise."""

import dataclasses
from typing import Any

import numpy as np

from jaxdiff.diffusion.schedule import Schedule, flow
from jaxdiff.pretrained.schedulers.fields import Fields
from jaxdiff.pretrained.schedulers.placing import Placing
from jaxdiff.pretrained.schedulers.process import Floored, Process
from jaxdiff.pretrained.schedulers.shared import (
    SHIFTED,
    SMALLEST,
    bounds_of,
    end_of,
    kind_of,
    rule_of,
    schedule_of,
    spacing_of,
)


def _halves(f: Fields, final: str, last: str) -> tuple[Schedule, str, Placing]:
    """Returns schedule, kind and placing of the multistep classes.

    Args:
      f: the fields.
      final: where a walk over trained steps ends.
      last: where one over levels of a rule, or of a flow, ends.
    """
    if "use_dynamic_shifting" in f:
        f.only("use_dynamic_shifting", False, SHIFTED)
    schedule, rule, shift = schedule_of(f, SMALLEST), rule_of(f), f["flow_shift"]
    lu = "use_lu_lambdas" in f and f["use_lu_lambdas"] and rule != "karras"
    ends = (f["sigma_min"], f["sigma_max"]) if "sigma_min" in f else (None, None)
    spacing = spacing_of(f) if "timestep_spacing" in f else {"spacing": "linspace"}
    trained = None
    if "lambda_min_clipped" in f and not (rule or lu):
        below = np.searchsorted(
            schedule.log_snr(np.arange(schedule.steps, 0, -1) / schedule.steps) / 2, f["lambda_min_clipped"]
        )
        trained = schedule.steps - int(below)
    if f["use_flow_sigmas"]:
        if rule or lu:
            raise ValueError(f"{f.name}: use_flow_sigmas with another rule for sigmas is not supported: leave one out")
        kind = kind_of(f, {"flow_prediction": "flow", "sample": "x0"})
        unipc = "solver_p" in f
        terminal = f["shift_terminal"] if unipc else None
        placing = Placing(
            "flow",
            "unipc" if unipc else "halves",
            rounding="below",
            final=last,
            trained=schedule.steps,
            shift=shift,
            terminal=terminal,
        )
        return flow(1.0), kind, placing
    if "shift_terminal" in f:
        f.only("shift_terminal", None, "it takes use_flow_sigmas")
    kind = kind_of(f)
    if rule or lu:
        own = f["beta_schedule"] == "squaredcos_cap_v2" and f.name == "DPMSolverMultistepScheduler"
        if own or not (lu or rule == "karras"):
            schedule = Floored(schedule.knots, schedule.zero_terminal)
        rule = "exponential" if lu else rule
        placing = Placing("halves", rule=rule, ends=ends, rounding="nearest", final=last, **spacing)
    else:
        placing = Placing("halves", final=final, trained=trained, **spacing)
    return schedule, kind, placing


_SLOPES = {"midpoint": "midpoint", "heun": "exact", "logrho": "midpoint", "bh1": "midpoint", "bh2": "midpoint"}


def solver_of(f: Fields) -> tuple[str, dict[str, Any]]:
    """Returns sampler and options of DPM-Solver's multistep classes."""
    algorithm = f.choice("algorithm_type", ("dpmsolver++", "dpmsolver", "sde-dpmsolver++", "sde-dpmsolver", "deis"))
    order, plain = f["solver_order"], algorithm.removeprefix("sde-")
    # the released third order of the SDE has the wrong sign before its third term; `dpmpp_3m_sde` is what was meant
    known = (1, 2) if algorithm.startswith("sde") else (1, 2, 3)
    if order not in known:
        raise ValueError(f"{f.name}: solver_order={order} of {algorithm}: expected one of {known}")
    options = {
        "slope": _SLOPES[f.choice("solver_type", _SLOPES)],
        "lower_final": None if f["lower_order_final"] else False,
        "euler_final": f["euler_at_final"],
    }
    if plain == "dpmsolver":
        return "dpm_solver", {**options, "order": order, "tau": float(plain != algorithm)}
    sampler = "dpmpp_3m" if order == 3 else "dpmpp_2m" if plain == algorithm else "dpmpp_2m_sde"
    return sampler, options if order == 3 else {**options, "order": order}


def _mean_only(f: Fields) -> None:
    if f["variance_type"] in ("learned", "learned_range"):
        f.only("variance_type", None, "networks with a learned variance are sampled with DDPMScheduler")


def dpm_multistep(f: Fields) -> Process:
    """Reads DPMSolverMultistepScheduler."""
    _mean_only(f)
    sampler, options = solver_of(f)
    final = end_of(f)
    if sampler == "dpm_solver":
        f.only("final_sigmas_type", "sigma_min", "solvers in eps divide by the last sigma")
    schedule, kind, placing = _halves(f, final, final)
    return Process(schedule, kind, sampler, placing, options, **bounds_of(f))


def dpm_inverse(f: Fields) -> Process:
    """Reads DPMSolverMultistepInverseScheduler, from a picture to noise; the noise of an SDE cannot be undone."""
    _mean_only(f)
    f.only("use_flow_sigmas", False, "its levels fall, as on the way from noise")
    f.choice("algorithm_type", ("dpmsolver++", "dpmsolver", "deis"))
    sampler, options = solver_of(f)
    options = {
        **{name: options[name] for name in ("slope", "lower_final", "euler_final")},
        "order": f["solver_order"],
        "predicts": "eps" if sampler == "dpm_solver" else "x0",
    }
    schedule, kind, placing = _halves(f, "data", "data")
    return Process(schedule, kind, "dpm_inverse", dataclasses.replace(placing, up=True), options, **bounds_of(f))


def dpm_singlestep(f: Fields) -> Process:
    """Reads DPMSolverSinglestepScheduler."""
    _mean_only(f)
    algorithm = f.choice("algorithm_type", ("dpmsolver++", "dpmsolver", "sde-dpmsolver++", "deis"))
    order, slope, final = f["solver_order"], _SLOPES[f.choice("solver_type", _SLOPES)], end_of(f)
    if order not in (1, 2, 3) or (order == 3 and slope != "midpoint"):
        raise ValueError(f"{f.name}: solver_order={order}: expected 1, 2 or, with solver_type='midpoint', 3")
    options: dict[str, Any] = {"order": order, "slope": slope, "lower_final": f["lower_order_final"]}
    sampler = {"dpmsolver": "dpm_solver_single", "sde-dpmsolver++": "dpmpp_2s_sde"}.get(algorithm, "dpmpp_2s")
    if sampler == "dpm_solver_single":
        f.only("final_sigmas_type", "sigma_min", "solvers in eps divide by the last sigma")
    schedule, kind, placing = _halves(f, final, final)
    return Process(schedule, kind, sampler, placing, options, **bounds_of(f))


def unipc(f: Fields) -> Process:
    """Reads UniPCMultistepScheduler."""
    f.only("solver_p", None, "a predictor of another class")
    order, skip, x0 = f["solver_order"], f["disable_corrector"], f["predict_x0"]
    if order not in (1, 2, 3):
        raise ValueError(f"{f.name}: solver_order={order}: expected 1, 2 or 3")
    if not all(isinstance(n, int) for n in skip):
        raise ValueError(f"{f.name}: disable_corrector={skip!r}: expected the numbers of steps")
    variant = {"midpoint": "bh2", "heun": "bh2", "logrho": "bh2"}.get(f["solver_type"], f["solver_type"])
    if variant not in ("bh1", "bh2"):
        f.choice("solver_type", ("bh1", "bh2"))
    options = {
        "order": order,
        "variant": variant,
        "lower_final": f["lower_order_final"],
        "predicts": "x0" if x0 else "eps",
        "skip": tuple(skip),
    }
    schedule, kind, placing = _halves(f, end_of(f), end_of(f, low="last"))
    bounds = bounds_of(f)
    return Process(schedule, kind, "unipc", placing, options, **(bounds if x0 else {}))


def deis(f: Fields) -> Process:
    """Reads DEISMultistepScheduler, which always ends above clean data."""
    if f["solver_order"] not in (1, 2, 3):
        raise ValueError(f"{f.name}: solver_order={f['solver_order']}: expected 1, 2 or 3")
    options = {"order": f["solver_order"], "lower_final": None if f["lower_order_final"] else False}
    schedule, kind, placing = _halves(f, "first", "last")
    return Process(schedule, kind, "deis", placing, options, **bounds_of(f))


def sa_solver(f: Fields) -> Process:
    """Reads SASolverScheduler, with noise at the trained steps 200 to 800."""
    _mean_only(f)
    f.only("tau_func", None, "a function is not a field of a file")
    f.only("algorithm_type", "data_prediction", "only x0 is interpolated")
    orders = f["predictor_order"], f["corrector_order"]
    if not (1 <= orders[0] <= 3 and 1 <= orders[1] <= 4):
        raise ValueError(f"{f.name}: predictor_order, corrector_order={orders}: expected 1 to 3 and 1 to 4")
    schedule, kind, placing = _halves(f, "first", "last")
    steps = f["num_train_timesteps"]
    interval = (0.2 - 1e-9, 0.801 - 1e-9) if placing.way == "flow" else (200.5 / steps, 801.5 / steps)
    options = {"order": orders[0], "corrector": orders[1], "interval": interval, "lower_final": f["lower_order_final"]}
    return Process(schedule, kind, "sa_solver", placing, options, **bounds_of(f))
