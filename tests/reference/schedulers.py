"""Trajectories of the reference schedulers (diffusers 0.42.1, torch 2.13) over a made-up network: schedulers.npz.

    python tests/reference/schedulers.py

Each case is one scheduler on one number. The network sees the variance-preserving picture x and the noise level s =
sigma / alpha, and says 0.8 u / sqrt(1 + u^2) (0.3 + 1 / (1 + s^2)) with u = 1.7 x + 0.5. The file keeps what it sees
at every call after the first, and the result. Cases of stochastic schedulers draw call n's noise as the n-th number of
a generator seeded by the case's number, which the test repeats. Everything runs in float64, which the schedulers do
not offer: their float32 is replaced before they are imported.
"""

import itertools
import json
import math
import pathlib
import sys
import types

import diffusers.utils.torch_utils
import numpy as np
import torch
import transformers  # noqa: F401  (before NumPy's float32 is replaced)

torch.float32 = torch.float64
np.float32 = np.float64
torch.set_default_dtype(torch.float64)
noise_of_call = [0.0]
diffusers.utils.torch_utils.randn_tensor = lambda shape, **kwargs: torch.full(tuple(shape), noise_of_call[0])
sys.modules["torchsde"] = types.ModuleType("torchsde")  # only its Brownian tree is wanted, and that is replaced below
import diffusers.schedulers as ds  # noqa: E402
from diffusers.schedulers import scheduling_dpmsolver_sde as dpm_sde  # noqa: E402

BETAS = {
    "linear": {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02},
    "scaled_linear": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
}
KINDS = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}
SPACINGS = ("leading", "linspace", "trailing")
STEPS = (5, 10, 20, 50)


def network(x, s):
    u = 1.7 * x + 0.5
    return 0.8 * u / math.sqrt(1 + u * u) * (0.3 + 1 / (1 + s * s))


class Brownian:
    """The noise of `sigma -> sigma_next` from one path; a whole step reuses what its first half drew."""

    def __init__(self, *args, **kwargs):
        self.half = None

    def __call__(self, sigma, sigma_next):
        sigma, sigma_next = float(sigma), float(sigma_next)
        if self.half is None:
            self.half = (sigma_next, noise_of_call[0])
            return noise_of_call[0]
        middle, early = self.half
        self.half = None
        late = math.sqrt(middle - sigma_next) * noise_of_call[0]
        return (math.sqrt(sigma - middle) * early + late) / math.sqrt(sigma - sigma_next)


dpm_sde.BrownianTreeNoiseSampler = Brownian


def level_of(scheduler, t, n, sample, x):
    """sigma / alpha at this call."""
    if float(x) != float(sample):  # the scheduler works in x / alpha: sample / x = sqrt(1 + s^2)
        return math.sqrt((float(sample) / float(x)) ** 2 - 1)
    if hasattr(scheduler, "sigmas") and len(scheduler.sigmas) == len(scheduler.timesteps) + 1:
        return float(scheduler.sigmas[n])
    abar = float(scheduler.alphas_cumprod[int(t)])
    return math.sqrt((1 - abar) / abar)


def trajectory(scheduler, steps, seed, **options):
    rng = np.random.default_rng(seed)
    x_init, noises = rng.uniform(-1, 1), rng.standard_normal(4 * steps)
    scheduler.set_timesteps(steps)
    if hasattr(scheduler, "sigmas") and abs(scheduler.sigmas[-1] / scheduler.sigmas[-2] - 1) < 1e-9:
        scheduler.sigmas[-1] = scheduler.sigmas[-2] / 2  # as they come the last step goes nowhere
    sample = torch.full((1, 1), x_init)
    scheduler.is_scale_input_called = True
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)  # it looks for its first step by a rounded time, which may come twice
    seen = []
    for n, t in enumerate(scheduler.timesteps):
        if n == 0 and hasattr(scheduler, "scale_model_input"):
            scaled = scheduler.scale_model_input(sample, t)
            sample = sample * (sample / scaled)
        x = scheduler.scale_model_input(sample, t)
        s = level_of(scheduler, t, n, sample, x)
        seen.append(float(x))
        noise_of_call[0] = noises[n]
        y = torch.full((1, 1), network(float(x), s))
        if getattr(scheduler, "variance_type", None) == "learned_range":
            y = torch.cat([y, torch.sin(3 * x)], dim=1)
        sample = scheduler.step(y, t, sample, **options).prev_sample
    return [*seen[1:], float(sample)]


multi, single = ds.DPMSolverMultistepScheduler, ds.DPMSolverSinglestepScheduler


def cases():
    every = {"betas": BETAS, "spacings": SPACINGS, "kinds": KINDS, "karras": (False, True), "steps": STEPS}
    some = {**every, "betas": ("scaled_linear",), "spacings": ("trailing",), "steps": (5, 20)}
    few = {**every, "betas": ("linear",), "spacings": ("leading",), "karras": (False,), "steps": (10,)}
    no_x0 = {"kinds": ("eps", "v")}
    whole = {"spacings": ("leading", "trailing"), "karras": (False,)}  # the others do not step where they call
    low = {"final_sigmas_type": "sigma_min"}
    ends = {"lower_order_final": True}
    return [
        ("euler", ds.EulerDiscreteScheduler, every, {}, {}),
        ("euler_ancestral", ds.EulerAncestralDiscreteScheduler, {**every, **no_x0, "karras": (False,)}, {}, {}),
        ("heun", ds.HeunDiscreteScheduler, every, {}, {}),
        ("kdpm2", ds.KDPM2DiscreteScheduler, {**every, **no_x0}, {}, {}),
        ("kdpm2_ancestral", ds.KDPM2AncestralDiscreteScheduler, {**every, **no_x0}, {}, {}),
        ("lms", ds.LMSDiscreteScheduler, every, {}, {}),
        ("dpmpp_sde", dpm_sde.DPMSolverSDEScheduler, {**every, **no_x0}, {}, {}),
        ("ddpm small", ds.DDPMScheduler, {**every, "karras": (False,)}, {"clip_sample": False}, {}),
        ("ddpm large", ds.DDPMScheduler, few, {"clip_sample": False, "variance_type": "fixed_large"}, {}),
        ("ddpm learned", ds.DDPMScheduler, few, {"clip_sample": False, "variance_type": "learned_range"}, {}),
        ("ddim 0", ds.DDIMScheduler, {**every, **whole}, {"clip_sample": False}, {}),
        ("ddim 0.6", ds.DDIMScheduler, {**every, **whole}, {"clip_sample": False}, {"eta": 0.6}),
        ("ddim first", ds.DDIMScheduler, few, {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}, {}),
        ("ddim_inverse", ds.DDIMInverseScheduler, {**every, **whole, "kinds": ("eps",)}, {"clip_sample": False}, {}),
        # with v it turns the mean of v over several points into eps at one of them
        (
            "plms",
            ds.PNDMScheduler,
            {**every, **whole, "kinds": ("eps",)},
            {"skip_prk_steps": True, "set_alpha_to_one": True},
            {},
        ),
        ("pndm", ds.PNDMScheduler, {**every, **whole, "kinds": ("eps",)}, {"set_alpha_to_one": True}, {}),
        ("dpmpp_2m", multi, every, {}, {}),
        ("dpmpp_2m exact", multi, some, {"solver_type": "heun"}, {}),
        ("dpmpp_2m first", multi, some, low, {}),
        ("dpmpp_3m", multi, every, {"solver_order": 3}, {}),
        ("dpmpp_2m_sde", multi, every, {"algorithm_type": "sde-dpmsolver++"}, {}),
        ("dpm_solver 1", multi, some, {"algorithm_type": "dpmsolver", "solver_order": 1, **low}, {}),
        ("dpm_solver 2", multi, every, {"algorithm_type": "dpmsolver", **low}, {}),
        ("dpm_solver 3", multi, every, {"algorithm_type": "dpmsolver", "solver_order": 3, **low}, {}),
        ("dpm_solver sde", multi, some, {"algorithm_type": "sde-dpmsolver", **low}, {}),
        ("dpmpp_2s", single, {**every, "spacings": ("linspace",)}, ends, {}),
        (
            "dpmpp_2s sde",
            single,
            {**some, "spacings": ("linspace",)},
            {"algorithm_type": "sde-dpmsolver++", **ends},
            {},
        ),
        *(
            (f"dpm_solver_single {k}", single, {**(some if k == 1 else every), "spacings": ("linspace",)}, o, {})
            for k in (1, 2, 3)
            for o in [{"algorithm_type": "dpmsolver", "solver_order": k, **low}]
        ),
        ("deis 3", ds.DEISMultistepScheduler, every, {"solver_order": 3}, {}),
        ("deis 2", ds.DEISMultistepScheduler, some, {"solver_order": 2}, {}),
        *(
            (f"unipc {k} {b}", ds.UniPCMultistepScheduler, every if (k, b) == (2, "bh2") else some, o, {})
            for k in (1, 2, 3)
            for b in ("bh1", "bh2")
            for o in [{"solver_order": k, "solver_type": b, **(low if b == "bh1" else {})}]
        ),
        ("unipc plain", ds.UniPCMultistepScheduler, few, {"disable_corrector": list(range(50))}, {}),
        ("sa_solver 2 2", ds.SASolverScheduler, every, {}, {}),
        ("sa_solver 3 4", ds.SASolverScheduler, some, {"predictor_order": 3, "corrector_order": 4}, {}),
        ("lcm", ds.LCMScheduler, {**every, "spacings": ("leading",), "karras": (False,)}, {"clip_sample": False}, {}),
        *(
            (
                f"tcd {eta}",
                ds.TCDScheduler,
                {**few, "betas": BETAS, "steps": STEPS},
                {"clip_sample": False},
                {"eta": eta},
            )
            for eta in (0.0, 0.3, 1.0)
        ),
    ]


OWN = {"ipndm": "betas", "consistency": "sigmas"}


def special():
    """Schedulers with schedules of their own."""
    for steps in STEPS:
        yield "flow_euler", steps, ds.FlowMatchEulerDiscreteScheduler(shift=3.0), {}
        yield "flow_heun", steps, ds.FlowMatchHeunDiscreteScheduler(shift=3.0), {}
        u = np.linspace(0.95, 0, steps + 1)
        yield "ipndm", steps, ds.IPNDMScheduler(trained_betas=u.tolist()), {}
        yield "consistency", steps, ds.CMStochasticIterativeScheduler(100, clip_denoised=False), {}


def special_trajectory(name, steps, scheduler, seed):
    rng = np.random.default_rng(seed)
    x_init, noises = rng.uniform(-1, 1), rng.standard_normal(4 * steps)
    scheduler.set_timesteps(steps)
    scheduler.is_scale_input_called = True
    x = torch.full((1, 1), x_init * (80 if name == "consistency" else 1))
    seen = []
    for n, t in enumerate(scheduler.timesteps):
        u = float(getattr(scheduler, OWN[name])[n]) if name in OWN else float(t) / 1000
        noise_of_call[0] = noises[n]
        seen.append(float(x))
        x = scheduler.step(torch.full((1, 1), network(float(x), u)), t, x).prev_sample
    return [*seen[1:], float(x)]


def main():
    index, values = [], []
    for name, make, product, config, options in cases():
        for beta, spacing, kind, karras, steps in itertools.product(
            *(product[k] for k in ("betas", "spacings", "kinds", "karras", "steps"))
        ):
            if karras and spacing == "linspace" and make in (multi, ds.UniPCMultistepScheduler, ds.SASolverScheduler):
                continue  # their Karras levels do not depend on the spacing
            setting = {**BETAS[beta], **config, "prediction_type": KINDS[kind]}
            if make not in (ds.DPMSolverSinglestepScheduler, ds.LCMScheduler, ds.TCDScheduler):
                setting["timestep_spacing"] = spacing
            if karras:
                setting["use_karras_sigmas"] = True
            if name.startswith("pndm") and steps < 10:
                continue
            if make is ds.LCMScheduler:
                setting["original_inference_steps"] = 50
            seen = trajectory(make(**setting), steps, len(index), **options)
            index.append([name, beta, spacing, kind, karras, steps])
            values += seen
            assert np.all(np.isfinite(seen)), index[-1]
    for name, steps, scheduler, _ in special():
        seen = special_trajectory(name, steps, scheduler, len(index))
        index.append([name, "", "", "flow" if "flow" in name else "v", False, steps])
        values += seen
    path = pathlib.Path(__file__).with_suffix(".npz")
    single = np.dtype("f4")
    np.savez_compressed(
        path,
        index=np.frombuffer(json.dumps(index, separators=(",", ":")).encode(), np.uint8),
        values=np.asarray(values, single),
    )
    print(len(index), "cases", len(values), "values", path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
