"""What the reference schedulers (diffusers 0.42.1, torch 2.13) make of their fields: schedulers_fields.json and .npz.

    python tests/reference/schedulers_fields.py

The first file has the constructor's fields and defaults of each class. The second has where a walk ends, two of four
numbers, over a made-up network that hears the timestep it is told, for every class and field at 1, 2, 7 and 20 steps;
NaN where the reference fails, or gives what is not finite. Then the same for samplers made of a model's config by name.
As in schedulers.py everything runs in float64, and call n's noise is the n-th number of a generator seeded by the
case's number.
"""

import inspect
import json
import logging
import math
import pathlib
import warnings

import numpy as np
import torch
from schedulers import dpm_sde, ds, noise_of_call

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)
START = [0.8, -0.3, 1.6, 0.05]
STEPS = (1, 2, 7, 20)
SL = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
NAMES = [
    "DDPMScheduler",
    "DDPMParallelScheduler",
    "DDIMScheduler",
    "DDIMParallelScheduler",
    "DDIMInverseScheduler",
    "PNDMScheduler",
    "IPNDMScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "LMSDiscreteScheduler",
    "DPMSolverSDEScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverMultistepInverseScheduler",
    "DPMSolverSinglestepScheduler",
    "UniPCMultistepScheduler",
    "DEISMultistepScheduler",
    "SASolverScheduler",
    "LCMScheduler",
    "TCDScheduler",
    "EDMEulerScheduler",
    "EDMDPMSolverMultistepScheduler",
    "FlowMatchEulerDiscreteScheduler",
    "FlowMatchHeunDiscreteScheduler",
]
MAKE = {name: getattr(dpm_sde if "SDE" in name else ds, name) for name in NAMES}
FIELDS = {
    name: {k: p.default for k, p in inspect.signature(make.__init__).parameters.items() if k not in ("self", "kwargs")}
    for name, make in MAKE.items()
}
# field -> other values; a dict is a value of several fields that go together
LOW = {"final_sigmas_type": "sigma_min"}
VALUES = {
    "num_train_timesteps": [500],
    "beta_start": [0.002],
    "beta_end": [0.02],
    "beta_schedule": ["linear", "squaredcos_cap_v2", "sigmoid", "laplace", "exp"],
    "trained_betas": [{"trained_betas": np.linspace(0.001, 0.03, 300).tolist(), "num_train_timesteps": 300}],
    "prediction_type": ["sample", "v_prediction"],
    "variance_type": ["fixed_large", "fixed_small_log", "learned_range"],
    "clip_sample": [True, False],
    "clip_sample_range": [{"clip_sample": True, "clip_sample_range": 0.7}],
    "thresholding": [True],
    "dynamic_thresholding_ratio": [{"thresholding": True, "dynamic_thresholding_ratio": 0.6, "sample_max_value": 9.0}],
    "sample_max_value": [{"thresholding": True, "sample_max_value": 1.5}],
    "timestep_spacing": ["leading", "trailing", "linspace"],
    "steps_offset": [{"timestep_spacing": "leading", "steps_offset": 1}],
    "rescale_betas_zero_snr": [
        {"rescale_betas_zero_snr": True, "prediction_type": kind, "timestep_spacing": "trailing", **more}
        for kind, more in (("v_prediction", {}), ("v_prediction", {"use_karras_sigmas": True}), ("epsilon", {}))
    ],
    "set_alpha_to_one": [True, False],
    "skip_prk_steps": [True, {"skip_prk_steps": True, "prediction_type": "v_prediction"}],
    "use_karras_sigmas": [True, {"use_karras_sigmas": True, **LOW}],
    "use_exponential_sigmas": [True],
    "use_beta_sigmas": [True],
    "use_lu_lambdas": [True],
    "use_flow_sigmas": [{"use_flow_sigmas": True, "prediction_type": "flow_prediction"}],
    "flow_shift": [{"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0}],
    "shift_terminal": [
        {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "shift_terminal": 0.1234},
        {"shift_terminal": 0.1234},
    ],
    "final_sigmas_type": ["sigma_min"],
    "sigma_min": [{"use_karras_sigmas": True, "sigma_min": 0.1}, {"sigma_min": 0.01}],
    "sigma_max": [{"use_exponential_sigmas": True, "sigma_max": 9.0}, {"sigma_max": 40.0}],
    "interpolation_type": [{"interpolation_type": "log_linear", "use_karras_sigmas": True}],
    "timestep_type": [
        {
            "timestep_type": "continuous",
            "prediction_type": "v_prediction",
            "use_karras_sigmas": True,
            "sigma_min": 0.002,
        }
        | {"sigma_max": 120.0},
        "continuous",
    ],
    "solver_order": [1, 3],
    "solver_type": ["heun", "bh1", {"solver_type": "heun", "solver_order": 3}, {"solver_type": "bh1", **LOW}],
    "lower_order_final": [True, False, {"lower_order_final": False, **LOW}, {"lower_order_final": True, **LOW}],
    "euler_at_final": [{"euler_at_final": True, **LOW}],
    "lambda_min_clipped": [{"lambda_min_clipped": -5.1, "beta_schedule": "squaredcos_cap_v2"}],
    "algorithm_type": [
        {"algorithm_type": kind, "solver_order": order, **LOW}
        for kind in ("dpmsolver", "sde-dpmsolver", "sde-dpmsolver++")
        for order in (1, 2, 3)
    ],
    "predict_x0": [{"predict_x0": False, **LOW}],
    "disable_corrector": [[0, 1]],
    "predictor_order": [3],
    "corrector_order": [4, 1],
    "original_inference_steps": [100],
    "timestep_scaling": [0.02],
    "sigma_data": [{"sigma_data": 1.0, "prediction_type": "v_prediction"}],
    "sigma_schedule": ["exponential"],
    "rho": [5.0],
    "shift": [3.0],
    "stochastic_sampling": [True],
}
MODELS = {
    "sd1": {"_class_name": "PNDMScheduler", **SL, "num_train_timesteps": 1000, "trained_betas": None}
    | {"clip_sample": False, "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1},
    "sdxl": {"_class_name": "EulerDiscreteScheduler", **SL, "num_train_timesteps": 1000, "trained_betas": None}
    | {"clip_sample": False, "interpolation_type": "linear", "prediction_type": "epsilon", "sample_max_value": 1.0}
    | {"set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1, "timestep_spacing": "leading"}
    | {"use_karras_sigmas": False},
    "turbo": {"_class_name": "EulerDiscreteScheduler", **SL, "timestep_spacing": "trailing", "use_karras_sigmas": True},
    "v": {"_class_name": "DDIMScheduler", **SL, "prediction_type": "v_prediction", "clip_sample": False}
    | {"set_alpha_to_one": False, "steps_offset": 1, "timestep_spacing": "leading"}
    | {"_use_default_values": ["timestep_spacing"]},
    "pixels": {"_class_name": "DDPMScheduler", "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
    | {"clip_sample": True, "num_train_timesteps": 1000, "variance_type": "fixed_large"},
}
EPS = {"algorithm_type": "dpmsolver", **LOW}
MULTI, SINGLE = "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler"
SAMPLERS = {
    "ddpm": ("DDPMScheduler", {}),
    "ddim": ("DDIMScheduler", {}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": False}),
    "plms": ("PNDMScheduler", {"skip_prk_steps": True}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_ancestral": ("EulerAncestralDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "kdpm2": ("KDPM2DiscreteScheduler", {}),
    "kdpm2_ancestral": ("KDPM2AncestralDiscreteScheduler", {}),
    "lms": ("LMSDiscreteScheduler", {}),
    "dpmpp_sde": ("DPMSolverSDEScheduler", {}),
    "dpm_solver": (MULTI, EPS),
    "dpmpp_2m": (MULTI, {}),
    "dpmpp_3m": (MULTI, {"solver_order": 3}),
    "dpmpp_2m_sde": (MULTI, {"algorithm_type": "sde-dpmsolver++"}),
    "dpm_inverse": ("DPMSolverMultistepInverseScheduler", {}),
    "dpm_solver_single": (SINGLE, EPS),
    "dpmpp_2s": (SINGLE, {}),
    "dpmpp_2s_sde": (SINGLE, {"algorithm_type": "sde-dpmsolver++"}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "deis": ("DEISMultistepScheduler", {}),
    "sa_solver": ("SASolverScheduler", {}),
    "lcm": ("LCMScheduler", {}),
    "tcd": ("TCDScheduler", {}),
}


def network(x, told):
    return 0.5 * x + 0.4 * torch.tanh(1.3 * x + 0.2) * math.cos(float(told) / 300) + 0.1


def walk(scheduler, steps, seed):
    """The first two numbers at the end."""
    noises = np.random.default_rng(seed).standard_normal(4 * STEPS[-1])
    scheduler.set_timesteps(steps)
    scheduler.is_scale_input_called = True
    x = torch.tensor(START).reshape(1, 1, 2, 2) * float(getattr(scheduler, "init_noise_sigma", 1.0))
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)  # it looks for its first step by a rounded time, which may come twice
    for n, t in enumerate(scheduler.timesteps):
        noise_of_call[0] = noises[n]
        scaled = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        y = network(scaled, t)
        if "DDPM" in type(scheduler).__name__ and scheduler.variance_type == "learned_range":
            y = torch.cat([y, torch.sin(3 * scaled)], dim=1)
        x = scheduler.step(y, t, x).prev_sample
    return x.flatten()[:2].tolist()


def end(make, steps, seed):
    try:
        found = walk(make(), steps, seed)
    except Exception:  # whatever it is that the reference does not do
        return [math.nan] * 2
    return found if np.all(np.isfinite(found)) and np.abs(found).max() < 1e30 else [math.nan] * 2


def main():
    path = pathlib.Path(__file__)
    path.with_suffix(".json").write_text(
        json.dumps(FIELDS, indent=1, default=str).replace("-Infinity", '"-inf"') + "\n"
    )
    index, values = [], []
    for name, fields in FIELDS.items():
        base = {k: v for k, v in SL.items() if k in fields}
        base |= {"clip_sample": False} if name == "DDIMInverseScheduler" else {}  # the rest is refused
        changes = [{}]
        for field in fields:
            for value in VALUES.get(field, []):
                changes.append(value if isinstance(value, dict) else {field: value})
        for change in changes:
            change = {k: v for k, v in change.items() if k in fields or len(change) == 1}
            if any(old == [name, change] for old in (case[:2] for case in index)):
                continue
            for steps in STEPS:
                values.append(end(lambda n=name, c={**base, **change}: MAKE[n](**c), steps, len(index)))
                index.append([name, change, steps])
    for model, config in MODELS.items():
        for sampler, (name, more) in SAMPLERS.items():
            for steps in (7, 20):
                values.append(end(lambda n=name, c=config, m=more: MAKE[n].from_config(c, **m), steps, len(index)))
                index.append([model, sampler, steps])
    np.savez_compressed(
        path.with_suffix(".npz"),
        index=np.frombuffer(json.dumps([MODELS, index], separators=(",", ":")).encode(), np.uint8),
        values=np.asarray(values, np.float32),
    )
    print(
        len(index),
        "cases,",
        int(np.isnan(values).any(1).sum()),
        "without an end,",
        path.with_suffix(".npz").stat().st_size,
        "bytes",
    )


if __name__ == "__main__":
    main()
