"""What each class of scheduler means: its fields as a `Process`."""

from collections.abc import Callable
from typing import Any

import numpy as np

from jaxdiff.diffusion import schedule as schedules
from jaxdiff.diffusion.denoiser import Says
from jaxdiff.diffusion.schedule import Discrete, Schedule, edm, flow
from jaxdiff.pretrained.schedulers.fields import Fields
from jaxdiff.pretrained.schedulers.placing import Placing
from jaxdiff.pretrained.schedulers.process import Floored, Levels, Process

_KINDS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
_NO_SAMPLE = {"epsilon": "eps", "v_prediction": "v"}
_SPACINGS = ("leading", "trailing", "linspace")
_SHIFTED = "a model whose shift depends on the picture's size has no single walk"
_RULES = {"use_karras_sigmas": "karras", "use_exponential_sigmas": "exponential", "use_beta_sigmas": "beta"}
_SMALLEST = 2.0**-24
"""Alpha squared at the last step of zero terminal SNR, in the classes that divide by it."""


def _kind(f: Fields, known: dict[str, str] = _KINDS) -> str:
    return known[f.choice("prediction_type", known)]


def _schedule(f: Fields, smallest: float = 0.0, more: tuple[str, ...] = ()) -> Discrete:
    """The betas; with zero terminal SNR, alpha squared ends at `smallest`."""
    steps, first, last = f["num_train_timesteps"], f["beta_start"], f["beta_end"]
    if steps < 2:
        raise ValueError(f"{f.name}: num_train_timesteps={steps}: expected at least 2")
    makers: dict[str, Callable[[], Discrete]] = {
        "linear": lambda: schedules.linear(steps, first, last),
        "scaled_linear": lambda: schedules.scaled_linear(steps, first, last),
        "squaredcos_cap_v2": lambda: schedules.cosine(steps),
        "sigmoid": lambda: schedules.sigmoid(steps, first, last),
        "laplace": lambda: schedules.from_alpha_bar(_laplace, steps),
        "exp": lambda: schedules.from_alpha_bar(lambda u: np.exp(-12 * u), steps),
    }
    betas = f["trained_betas"]
    if betas is None:
        made = makers[f.choice("beta_schedule", ("linear", "scaled_linear", "squaredcos_cap_v2", *more))]()
    else:
        if not isinstance(betas, list) or not all(isinstance(b, int | float) for b in betas):
            raise ValueError(f"{f.name}: trained_betas of type {type(betas).__name__}: expected a list of numbers")
        if len(betas) != steps:
            raise ValueError(f"{f.name}: {len(betas)} trained_betas, and num_train_timesteps={steps}: expected as many")
        made = schedules.discrete(np.asarray(betas, np.float64))
    if f.get("rescale_betas_zero_snr"):
        made = schedules.zero_terminal(made)
        if smallest:
            if made.knots[-1] <= np.log(smallest):
                raise ValueError(
                    f"{f.name}: rescale_betas_zero_snr on these betas: the step before the last would be noisier than "
                    "the last, which this class ends at 2^-24: take DDIMScheduler"
                )
            made = schedules.from_log_snr(np.append(made.knots, np.log(smallest) - np.log1p(-smallest)))
    return made


def _laplace(u: np.ndarray) -> np.ndarray:
    lam = -0.5 * np.copysign(1, 0.5 - u) * np.log(1 - 2 * np.abs(0.5 - u) + 1e-6)
    return np.sqrt(1 / (1 + np.exp(-lam)))


def _bounds(f: Fields) -> dict[str, Any]:
    """What keeps estimates in bounds: `clip`, `threshold`, or neither."""
    found: dict[str, Any] = {}
    if "clip_sample" in f:
        clip, reach = f["clip_sample"], f["clip_sample_range"]
        found = {"clip": reach} if clip else {}
    if "thresholding" in f:
        threshold, ratio, most = f["thresholding"], f["dynamic_thresholding_ratio"], f["sample_max_value"]
        found = {"threshold": (ratio, most)} if threshold else found
    return found


def _rule(f: Fields) -> str:
    """How levels are spaced, if by a rule."""
    chosen = [field for field in _RULES if f[field]]
    if len(chosen) > 1:
        raise ValueError(f"{f.name}: {' and '.join(chosen)}: expected at most one of them")
    return _RULES[chosen[0]] if chosen else ""


def _spaced(f: Fields) -> dict[str, Any]:
    return {"spacing": f.choice("timestep_spacing", _SPACINGS), "offset": f["steps_offset"]}


def _end(f: Fields, field: str = "final_sigmas_type", low: str = "first") -> str:
    return {"zero": "data", "sigma_min": low}[f.choice(field, ("zero", "sigma_min"))]


def ddpm(f: Fields) -> Process:
    """DDPMScheduler; a learned variance takes a network with twice as many channels."""
    variances = {"fixed_small": "small", "fixed_small_log": "small", "fixed_large": "large", "learned_range": "learned"}
    options = {"variance": variances[f.choice("variance_type", variances)], "final_noise": True}
    says: Says = "variance" if options["variance"] == "learned" else "prediction"
    schedule = _schedule(f, more=("sigmoid", "laplace"))
    return Process(schedule, _kind(f), "ddpm", Placing(**_spaced(f)), options, says=says, **_bounds(f))


def unclip(f: Fields) -> Process:
    """UnCLIPScheduler: DDPM's, from the last trained step to the first."""
    variance = {"fixed_small_log": "small", "learned_range": "learned"}
    options = {"variance": variance[f.choice("variance_type", variance)], "final_noise": True}
    says: Says = "variance" if options["variance"] == "learned" else "prediction"
    f.choice("beta_schedule", ("squaredcos_cap_v2",))
    made = schedules.cosine(f["num_train_timesteps"])
    kind = _kind(f, {"epsilon": "eps", "sample": "x0"})
    return Process(made, kind, "ddpm", Placing(spacing="linspace"), options, says=says, **_bounds(f))


def ddim(f: Fields) -> Process:
    """DDIMScheduler: where it keeps estimates in bounds, eps stays the network's own."""
    final, bounds = "data" if f["set_alpha_to_one"] else "first", _bounds(f)
    options = {**bounds, "keep_eps": True} if bounds else {}
    return Process(_schedule(f), _kind(f), "ddim", Placing(**_spaced(f), final=final, strides=True), options)


def ddim_inverse(f: Fields) -> Process:
    """DDIMInverseScheduler, from a picture to noise."""
    f.only("clip_sample", False, "it clips at another noise level than the network saw")
    f.only("prediction_type", "epsilon", "it reads the output at another noise level than the network saw")
    f.choice("timestep_spacing", ("leading", "trailing"))
    bounds, final = _bounds(f), "data" if f["set_alpha_to_one"] else "first"
    return Process(_schedule(f), "eps", "ddim_inverse", Placing(**_spaced(f), final=final, strides=True), **bounds)


def pndm(f: Fields) -> Process:
    """PNDMScheduler: PLMS where it skips the Runge-Kutta steps."""
    sampler, kind = "plms" if f["skip_prk_steps"] else "pndm", _kind(f, _NO_SAMPLE)
    final = "data" if f["set_alpha_to_one"] else "first"
    return Process(_schedule(f), kind, sampler, Placing(**_spaced(f), final=final, strides=True), {"predicts": kind})


def euler(f: Fields) -> Process:
    """EulerDiscreteScheduler; with continuous time and v it is told log(sigma) / 4."""
    rule, kind, ends = _rule(f), _kind(f), (f["sigma_min"], f["sigma_max"])
    schedule = _schedule(f, _SMALLEST)
    trained = np.exp(-schedule.log_snr(np.array([1 / schedule.steps, 1.0])) / 2)
    if not rule:
        ends = (None, None)
    if f.choice("interpolation_type", ("linear", "log_linear")) == "log_linear":
        if not rule:
            f.only("interpolation_type", "linear", "its levels are not those of the steps that the network is told")
        ends = tuple(own if end is None else end for own, end in zip(trained, ends, strict=True))
    final = _end(f)
    if f.choice("timestep_type", ("discrete", "continuous")) == "continuous" and kind == "v":
        if not rule or final != "data" or None in ends:
            raise ValueError(f"{f.name}: timestep_type='continuous' takes use_karras_sigmas, sigma_min and sigma_max")
        return Process(Levels(ends[1]), kind, "euler", Placing("edm", rule=rule, ends=ends, **_spaced(f)))
    if ends[1] is not None and ends[1] > trained[1] * (1 + 1e-6):
        raise ValueError(
            f"{f.name}: sigma_max={ends[1]} is beyond the {trained[1]:.6g} that the model was trained with"
        )
    return Process(schedule, kind, "euler", Placing("levels", rule=rule, ends=ends, final=final, **_spaced(f)))


def levels(sampler: str, known: dict[str, str] = _KINDS, told: str = "", more: tuple[str, ...] = ()) -> Callable:
    """The classes that work on noise levels and have no fields of their own."""

    def read(f: Fields) -> Process:
        rule = _rule(f) if "use_karras_sigmas" in f else ""
        placing = Placing("levels", rule=rule, told=told if rule == "karras" else "", **_spaced(f))
        return Process(_schedule(f, _SMALLEST, more), _kind(f, known), sampler, placing, **_bounds(f))

    return read


def _halves(f: Fields, final: str, last: str) -> tuple[Schedule, str, Placing]:
    """Schedule, kind and placing of the multistep classes.

    Args:
      f: the fields.
      final: where a walk over trained steps ends.
      last: where one over levels of a rule, or of a flow, ends.
    """
    if "use_dynamic_shifting" in f:
        f.only("use_dynamic_shifting", False, _SHIFTED)
    schedule, rule, shift = _schedule(f, _SMALLEST), _rule(f), f["flow_shift"]
    lu = "use_lu_lambdas" in f and f["use_lu_lambdas"] and rule != "karras"
    ends = (f["sigma_min"], f["sigma_max"]) if "sigma_min" in f else (None, None)
    spacing = _spaced(f) if "timestep_spacing" in f else {"spacing": "linspace"}
    trained = None
    if "lambda_min_clipped" in f and not (rule or lu):
        below = np.searchsorted(
            schedule.log_snr(np.arange(schedule.steps, 0, -1) / schedule.steps) / 2, f["lambda_min_clipped"]
        )
        trained = schedule.steps - int(below)
    if f["use_flow_sigmas"]:
        if rule or lu:
            raise ValueError(f"{f.name}: use_flow_sigmas with another rule for sigmas is not supported: leave one out")
        kind = _kind(f, {"flow_prediction": "flow", "sample": "x0"})
        unipc = "solver_p" in f
        terminal = f["shift_terminal"] if unipc else None
        placing = Placing(
            "flow",
            "unipc" if unipc else "halves",
            told="below",
            final=last,
            trained=schedule.steps,
            shift=shift,
            terminal=terminal,
        )
        return flow(1.0), kind, placing
    if "shift_terminal" in f:
        f.only("shift_terminal", None, "it takes use_flow_sigmas")
    kind = _kind(f)
    if rule or lu:
        told = "nearest" if lu or rule == "karras" else "below"
        if told == "nearest" and f["beta_schedule"] == "squaredcos_cap_v2" and f.name == "DPMSolverMultistepScheduler":
            told = "below"
        if told == "below":
            schedule, told = Floored(schedule.knots, schedule.zero_terminal), "nearest"
        placing = Placing("halves", rule=rule if not lu else "exponential", ends=ends, told=told, final=last, **spacing)
    else:
        placing = Placing("halves", final=final, trained=trained, **spacing)
    return schedule, kind, placing


_SLOPES = {"midpoint": "midpoint", "heun": "exact", "logrho": "midpoint", "bh1": "midpoint", "bh2": "midpoint"}


def _multistep(f: Fields) -> tuple[str, dict[str, Any]]:
    """Sampler and options of DPM-Solver's multistep classes."""
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
    """DPMSolverMultistepScheduler."""
    _mean_only(f)
    sampler, options = _multistep(f)
    final = _end(f)
    if sampler == "dpm_solver":
        f.only("final_sigmas_type", "sigma_min", "solvers in eps divide by the last sigma")
    schedule, kind, placing = _halves(f, final, final)
    return Process(schedule, kind, sampler, placing, options, **_bounds(f))


def dpm_singlestep(f: Fields) -> Process:
    """DPMSolverSinglestepScheduler."""
    _mean_only(f)
    algorithm = f.choice("algorithm_type", ("dpmsolver++", "dpmsolver", "sde-dpmsolver++", "deis"))
    order, slope, final = f["solver_order"], _SLOPES[f.choice("solver_type", _SLOPES)], _end(f)
    if order not in (1, 2, 3) or (order == 3 and slope != "midpoint"):
        raise ValueError(f"{f.name}: solver_order={order}: expected 1, 2 or, with solver_type='midpoint', 3")
    options: dict[str, Any] = {"order": order, "slope": slope, "lower_final": f["lower_order_final"]}
    sampler = {"dpmsolver": "dpm_solver_single", "sde-dpmsolver++": "dpmpp_2s_sde"}.get(algorithm, "dpmpp_2s")
    if sampler == "dpm_solver_single":
        f.only("final_sigmas_type", "sigma_min", "solvers in eps divide by the last sigma")
    schedule, kind, placing = _halves(f, final, final)
    return Process(schedule, kind, sampler, placing, options, **_bounds(f))


def unipc(f: Fields) -> Process:
    """UniPCMultistepScheduler."""
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
    schedule, kind, placing = _halves(f, _end(f), _end(f, low="last"))
    bounds = _bounds(f)
    return Process(schedule, kind, "unipc", placing, options, **(bounds if x0 else {}))


def deis(f: Fields) -> Process:
    """DEISMultistepScheduler, which always ends above clean data."""
    if f["solver_order"] not in (1, 2, 3):
        raise ValueError(f"{f.name}: solver_order={f['solver_order']}: expected 1, 2 or 3")
    options = {"order": f["solver_order"], "lower_final": None if f["lower_order_final"] else False}
    schedule, kind, placing = _halves(f, "first", "last")
    return Process(schedule, kind, "deis", placing, options, **_bounds(f))


def sa_solver(f: Fields) -> Process:
    """SASolverScheduler, with noise at the trained steps 200 to 800."""
    _mean_only(f)
    f.only("tau_func", None, "a function is no field of a file")
    f.only("algorithm_type", "data_prediction", "only x0 is interpolated")
    orders = f["predictor_order"], f["corrector_order"]
    if not (1 <= orders[0] <= 3 and 1 <= orders[1] <= 4):
        raise ValueError(f"{f.name}: predictor_order, corrector_order={orders}: expected 1 to 3 and 1 to 4")
    schedule, kind, placing = _halves(f, "first", "last")
    steps = f["num_train_timesteps"]
    interval = (0.2 - 1e-9, 0.801 - 1e-9) if placing.way == "flow" else (200.5 / steps, 801.5 / steps)
    options = {"order": orders[0], "corrector": orders[1], "interval": interval, "lower_final": f["lower_order_final"]}
    return Process(schedule, kind, "sa_solver", placing, options, **_bounds(f))


def distilled(sampler: str) -> Callable:
    """LCMScheduler and TCDScheduler."""

    def read(f: Fields) -> Process:
        lcm, teacher, steps = sampler == "lcm", f["original_inference_steps"], f["num_train_timesteps"]
        if not 1 <= teacher <= steps:
            raise ValueError(f"{f.name}: original_inference_steps={teacher}: expected 1 to {steps}")
        placing = Placing("distilled", final="data" if lcm else "first", teacher=teacher)
        options = {"scaling": f["timestep_scaling"]} if lcm else {}
        return Process(_schedule(f), _kind(f), sampler, placing, options, **(_bounds(f) if lcm else {}))

    return read


def _edm(f: Fields, last: str) -> tuple[Schedule, str, Placing]:
    """Schedule, kind and placing of the classes in EDM's terms: Playground 2.5 (eps) and CosXL (v)."""
    low, high, data, kind = f["sigma_min"], f["sigma_max"], f["sigma_data"], f["prediction_type"]
    f.choice("prediction_type", ("epsilon", "v_prediction"))
    if (kind, data) not in (("epsilon", 0.5), ("v_prediction", 1.0)):
        raise ValueError(
            f"{f.name}: {kind} with sigma_data={data}: expected epsilon with 0.5, or v_prediction with 1.0"
        )
    rule = f.choice("sigma_schedule", ("karras", "exponential"))
    placing = Placing("edm", rule=rule, ends=(low, high), rho=f["rho"], final=_end(f, low=last))
    return (edm(high), "edm", placing) if kind == "epsilon" else (Levels(high), "v", placing)


def edm_euler(f: Fields) -> Process:
    """EDMEulerScheduler."""
    schedule, kind, placing = _edm(f, "last")
    return Process(schedule, kind, "euler", placing)


def edm_multistep(f: Fields) -> Process:
    """EDMDPMSolverMultistepScheduler."""
    f.choice("algorithm_type", ("dpmsolver++", "sde-dpmsolver++", "deis"))
    sampler, options = _multistep(f)
    schedule, kind, placing = _edm(f, "low")
    return Process(schedule, kind, sampler, placing, options, **_bounds(f))


def flow_euler(f: Fields) -> Process:
    """FlowMatchEulerDiscreteScheduler; stochastic, each step noises the estimate anew."""
    f.only("use_dynamic_shifting", False, _SHIFTED)
    f.only("invert_sigmas", False, "a walk from data to noise")
    placing = Placing(
        "flow", "match", rule=_rule(f), trained=f["num_train_timesteps"], shift=f["shift"], terminal=f["shift_terminal"]
    )
    return Process(flow(1.0), "flow", "consistency" if f["stochastic_sampling"] else "flow_euler", placing)


def flow_heun(f: Fields) -> Process:
    """FlowMatchHeunDiscreteScheduler."""
    placing = Placing("flow", "match", trained=f["num_train_timesteps"], shift=f["shift"])
    return Process(flow(1.0), "flow", "flow_heun", placing)


CLASSES: dict[str, Callable[[Fields], Process]] = {
    "DDPMScheduler": ddpm,
    "DDPMParallelScheduler": ddpm,
    "UnCLIPScheduler": unclip,
    "DDIMScheduler": ddim,
    "DDIMParallelScheduler": ddim,
    "DDIMInverseScheduler": ddim_inverse,
    "PNDMScheduler": pndm,
    "EulerDiscreteScheduler": euler,
    "EulerAncestralDiscreteScheduler": levels("euler_ancestral", _NO_SAMPLE),
    "HeunDiscreteScheduler": levels("heun", more=("exp",)),
    "KDPM2DiscreteScheduler": levels("kdpm2", _NO_SAMPLE, "nearest"),
    "KDPM2AncestralDiscreteScheduler": levels("kdpm2_ancestral", _NO_SAMPLE, "nearest"),
    "LMSDiscreteScheduler": levels("lms"),
    "DPMSolverSDEScheduler": levels("dpmpp_sde", _NO_SAMPLE),
    "DPMSolverMultistepScheduler": dpm_multistep,
    "DPMSolverSinglestepScheduler": dpm_singlestep,
    "UniPCMultistepScheduler": unipc,
    "DEISMultistepScheduler": deis,
    "SASolverScheduler": sa_solver,
    "LCMScheduler": distilled("lcm"),
    "TCDScheduler": distilled("tcd"),
    "EDMEulerScheduler": edm_euler,
    "EDMDPMSolverMultistepScheduler": edm_multistep,
    "FlowMatchEulerDiscreteScheduler": flow_euler,
    "FlowMatchHeunDiscreteScheduler": flow_heun,
}
