"""The classes of schedulers: each reads its fields as a `Process`."""

from collections.abc import Callable

import numpy as np

from jaxdiff.diffusion import schedule as schedules
from jaxdiff.diffusion.denoiser import Says
from jaxdiff.diffusion.schedule import Schedule, edm, flow
from jaxdiff.pretrained.schedulers import multistep
from jaxdiff.pretrained.schedulers.fields import Fields
from jaxdiff.pretrained.schedulers.placing import Placing
from jaxdiff.pretrained.schedulers.process import Levels, Process, SineSquared
from jaxdiff.pretrained.schedulers.shared import (
    KINDS,
    NO_SAMPLE,
    SHIFTED,
    SMALLEST,
    bounds_of,
    end_of,
    kind_of,
    rule_of,
    schedule_of,
    spacing_of,
)


def ddpm(f: Fields) -> Process:
    """Reads DDPMScheduler; a learned variance takes a network with twice as many channels."""
    variances = {"fixed_small": "small", "fixed_small_log": "small", "fixed_large": "large", "learned_range": "learned"}
    options = {"variance": variances[f.choice("variance_type", variances)], "final_noise": True}
    says: Says = "variance" if options["variance"] == "learned" else "prediction"
    schedule = schedule_of(f, more=("sigmoid", "laplace"))
    return Process(schedule, kind_of(f), "ddpm", Placing(**spacing_of(f)), options, says=says, **bounds_of(f))


def unclip(f: Fields) -> Process:
    """Reads UnCLIPScheduler: DDPM's, from the last trained step to the first."""
    variance = {"fixed_small_log": "small", "learned_range": "learned"}
    options = {"variance": variance[f.choice("variance_type", variance)], "final_noise": True}
    says: Says = "variance" if options["variance"] == "learned" else "prediction"
    f.choice("beta_schedule", ("squaredcos_cap_v2",))
    schedule = schedules.cosine(f["num_train_timesteps"])
    kind = kind_of(f, {"epsilon": "eps", "sample": "x0"})
    return Process(schedule, kind, "ddpm", Placing(spacing="linspace"), options, says=says, **bounds_of(f))


def ddim(f: Fields) -> Process:
    """Reads DDIMScheduler: where it keeps estimates in bounds, eps stays the network's own."""
    final, bounds = "data" if f["set_alpha_to_one"] else "first", bounds_of(f)
    options = {**bounds, "keep_eps": True} if bounds else {}
    return Process(schedule_of(f), kind_of(f), "ddim", Placing(**spacing_of(f), final=final, strides=True), options)


def ddim_inverse(f: Fields) -> Process:
    """Reads DDIMInverseScheduler, from a picture to noise."""
    f.only("clip_sample", False, "it clips at another noise level than the network saw")
    f.only("prediction_type", "epsilon", "it reads the output at another noise level than the network saw")
    f.choice("timestep_spacing", ("leading", "trailing"))
    bounds, final = bounds_of(f), "data" if f["set_alpha_to_one"] else "first"
    return Process(schedule_of(f), "eps", "ddim_inverse", Placing(**spacing_of(f), final=final, strides=True), **bounds)


def pndm(f: Fields) -> Process:
    """Reads PNDMScheduler: PLMS where it skips the Runge-Kutta steps."""
    sampler, kind = "plms" if f["skip_prk_steps"] else "pndm", kind_of(f, NO_SAMPLE)
    final = "data" if f["set_alpha_to_one"] else "first"
    return Process(
        schedule_of(f), kind, sampler, Placing(**spacing_of(f), final=final, strides=True), {"predicts": kind}
    )


def ipndm(f: Fields) -> Process:
    """Reads IPNDMScheduler, which has a schedule of its own."""
    f.only("trained_betas", None, "numbers for one walk, whatever its steps")
    return Process(SineSquared(), "v", "ipndm", Placing("even"))


def euler(f: Fields) -> Process:
    """Reads EulerDiscreteScheduler; with continuous time and v the network is called with log(sigma) / 4."""
    rule, kind, ends = rule_of(f), kind_of(f), (f["sigma_min"], f["sigma_max"])
    schedule = schedule_of(f, SMALLEST)
    trained = np.exp(-schedule.log_snr(np.array([1 / schedule.steps, 1.0])) / 2)
    if not rule:
        ends = (None, None)
    if f.choice("interpolation_type", ("linear", "log_linear")) == "log_linear":
        if not rule:
            f.only(
                "interpolation_type", "linear", "its levels are not those of the steps that the network is called with"
            )
        ends = tuple(own if end is None else end for own, end in zip(trained, ends, strict=True))
    final = end_of(f)
    if f.choice("timestep_type", ("discrete", "continuous")) == "continuous" and kind == "v":
        if not rule or final != "data" or None in ends:
            raise ValueError(f"{f.name}: timestep_type='continuous' takes use_karras_sigmas, sigma_min and sigma_max")
        return Process(Levels(ends[1]), kind, "euler", Placing("edm", rule=rule, ends=ends, **spacing_of(f)))
    if ends[1] is not None and ends[1] > trained[1] * (1 + 1e-6):
        raise ValueError(
            f"{f.name}: sigma_max={ends[1]} is beyond the {trained[1]:.6g} that the model was trained with"
        )
    return Process(schedule, kind, "euler", Placing("levels", rule=rule, ends=ends, final=final, **spacing_of(f)))


def levels(sampler: str, known: dict[str, str] = KINDS, rounding: str = "", more: tuple[str, ...] = ()) -> Callable:
    """Reads the classes that work on noise levels and have no fields of their own."""

    def read(f: Fields) -> Process:
        rule = rule_of(f) if "use_karras_sigmas" in f else ""
        placing = Placing("levels", rule=rule, rounding=rounding if rule == "karras" else "", **spacing_of(f))
        return Process(schedule_of(f, SMALLEST, more), kind_of(f, known), sampler, placing, **bounds_of(f))

    return read


def distilled(sampler: str) -> Callable:
    """Reads LCMScheduler and TCDScheduler."""

    def read(f: Fields) -> Process:
        lcm, teacher, steps = sampler == "lcm", f["original_inference_steps"], f["num_train_timesteps"]
        if not 1 <= teacher <= steps:
            raise ValueError(f"{f.name}: original_inference_steps={teacher}: expected 1 to {steps}")
        placing = Placing("distilled", final="data" if lcm else "first", teacher=teacher)
        options = {"scaling": f["timestep_scaling"]} if lcm else {}
        return Process(schedule_of(f), kind_of(f), sampler, placing, options, **(bounds_of(f) if lcm else {}))

    return read


def _edm(f: Fields, last: str) -> tuple[Schedule, str, Placing]:
    """Returns schedule, kind and placing of the classes in EDM's terms: Playground 2.5 (eps) and CosXL (v)."""
    low, high, data, kind = f["sigma_min"], f["sigma_max"], f["sigma_data"], f["prediction_type"]
    f.choice("prediction_type", ("epsilon", "v_prediction"))
    if (kind, data) not in (("epsilon", 0.5), ("v_prediction", 1.0)):
        raise ValueError(
            f"{f.name}: {kind} with sigma_data={data}: expected epsilon with 0.5, or v_prediction with 1.0"
        )
    rule = f.choice("sigma_schedule", ("karras", "exponential"))
    placing = Placing("edm", rule=rule, ends=(low, high), rho=f["rho"], final=end_of(f, low=last))
    return (edm(high), "edm", placing) if kind == "epsilon" else (Levels(high), "v", placing)


def edm_euler(f: Fields) -> Process:
    """Reads EDMEulerScheduler."""
    schedule, kind, placing = _edm(f, "last")
    return Process(schedule, kind, "euler", placing)


def edm_multistep(f: Fields) -> Process:
    """Reads EDMDPMSolverMultistepScheduler."""
    f.choice("algorithm_type", ("dpmsolver++", "sde-dpmsolver++", "deis"))
    sampler, options = multistep.solver_of(f)
    schedule, kind, placing = _edm(f, "low")
    return Process(schedule, kind, sampler, placing, options, **bounds_of(f))


def flow_euler(f: Fields) -> Process:
    """Reads FlowMatchEulerDiscreteScheduler; stochastic, each step noises the estimate anew."""
    f.only("use_dynamic_shifting", False, SHIFTED)
    f.only("invert_sigmas", False, "a walk from data to noise")
    placing = Placing(
        "flow",
        "match",
        rule=rule_of(f),
        trained=f["num_train_timesteps"],
        shift=f["shift"],
        terminal=f["shift_terminal"],
    )
    return Process(flow(1.0), "flow", "consistency" if f["stochastic_sampling"] else "flow_euler", placing)


def flow_heun(f: Fields) -> Process:
    """Reads FlowMatchHeunDiscreteScheduler."""
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
    "IPNDMScheduler": ipndm,
    "EulerDiscreteScheduler": euler,
    "EulerAncestralDiscreteScheduler": levels("euler_ancestral", NO_SAMPLE),
    "HeunDiscreteScheduler": levels("heun", more=("exp",)),
    "KDPM2DiscreteScheduler": levels("kdpm2", NO_SAMPLE, "nearest"),
    "KDPM2AncestralDiscreteScheduler": levels("kdpm2_ancestral", NO_SAMPLE, "nearest"),
    "LMSDiscreteScheduler": levels("lms"),
    "DPMSolverSDEScheduler": levels("dpmpp_sde", NO_SAMPLE),
    "DPMSolverMultistepScheduler": multistep.dpm_multistep,
    "DPMSolverMultistepInverseScheduler": multistep.dpm_inverse,
    "DPMSolverSinglestepScheduler": multistep.dpm_singlestep,
    "UniPCMultistepScheduler": multistep.unipc,
    "DEISMultistepScheduler": multistep.deis,
    "SASolverScheduler": multistep.sa_solver,
    "LCMScheduler": distilled("lcm"),
    "TCDScheduler": distilled("tcd"),
    "EDMEulerScheduler": edm_euler,
    "EDMDPMSolverMultistepScheduler": edm_multistep,
    "FlowMatchEulerDiscreteScheduler": flow_euler,
    "FlowMatchHeunDiscreteScheduler": flow_heun,
}
