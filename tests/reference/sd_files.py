"""A small file by torch.save, and the calls that diffusers' schedulers make: sd_tensors.bin, sd_calls.json and others.

    python tests/reference/sd_files.py

sd_tensors.bin has several dtypes, a transposed view, a view into a shared storage, a scalar and a parameter;
sd_nested.ckpt is as trainers save it, and names a class; sd_word.pt is a textual inversion as web UIs save it.
sd_calls.json has timesteps, what the first noise is multiplied by, and the final sigma (in x = x0 + sigma eps) where
the class keeps one.
"""

import json
import pathlib

import diffusers
import torch

HERE = pathlib.Path(__file__)
SD = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
CONFIGS = [
    ("PNDMScheduler", {**SD, "skip_prk_steps": True, "set_alpha_to_one": False, "steps_offset": 1}),
    ("DDIMScheduler", {**SD, "set_alpha_to_one": False, "steps_offset": 1, "clip_sample": False}),
    (
        "DDIMScheduler",
        {"timestep_spacing": "trailing", "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"},
    ),
    ("DDIMScheduler", {"timestep_spacing": "linspace"}),
    ("DDPMScheduler", {"variance_type": "fixed_large", "beta_schedule": "squaredcos_cap_v2"}),
    ("EulerDiscreteScheduler", {**SD, "timestep_spacing": "leading", "steps_offset": 1}),
    ("EulerDiscreteScheduler", SD),
    ("EulerDiscreteScheduler", {**SD, "use_karras_sigmas": True}),
    ("EulerAncestralDiscreteScheduler", {**SD, "timestep_spacing": "trailing"}),
    ("DPMSolverMultistepScheduler", SD),
    ("DPMSolverMultistepScheduler", {**SD, "use_karras_sigmas": True}),
    ("DPMSolverMultistepScheduler", {**SD, "timestep_spacing": "leading", "steps_offset": 1, "solver_order": 3}),
    ("UniPCMultistepScheduler", {**SD, "final_sigmas_type": "sigma_min"}),
    ("UniPCMultistepScheduler", {"trained_betas": [0.001 * (i + 1) for i in range(100)], "num_train_timesteps": 100}),
]


def main():
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    tensors = {
        "plain": base,
        "transposed": base.T,
        "view": base[1:3, 2:5],
        "half": base.half(),
        "bfloat": base.bfloat16(),
        "long": torch.arange(5),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    torch.save(tensors, HERE.with_name("sd_tensors.bin"))
    layers = {"a.weight": torch.ones(2, 3), "a.bias": torch.zeros(2)}
    around = {"epoch": 3, "callbacks": {torch.nn.Linear: {"monitor": "loss"}}, "optimizer_states": [{"lr": 0.1}]}
    torch.save({"state_dict": layers, **around}, HERE.with_name("sd_nested.ckpt"))
    word = {"string_to_token": {"*": 265}, "string_to_param": {"*": torch.ones(3, 4)}, "name": "word", "step": 100}
    torch.save(word, HERE.with_name("sd_word.pt"))
    rows = []
    for name, config in CONFIGS:
        scheduler = getattr(diffusers, name)(**config)
        scheduler.set_timesteps(10)
        calls = [float(t) for t in scheduler.timesteps]
        last = float(scheduler.sigmas[-1]) if hasattr(scheduler, "sigmas") else None
        start = float(scheduler.init_noise_sigma)
        rows.append({"config": dict(scheduler.config), "class": name, "calls": calls, "last": last, "start": start})
    text = json.dumps(rows, default=lambda x: x.tolist(), indent=None)
    HERE.with_name("sd_calls.json").write_text(text.replace('{"config"', '\n{"config"') + "\n")


if __name__ == "__main__":
    main()
