"""The fields of scheduler_config.json: which each class takes, their defaults, and what is made of the rest.

A config is read field by field: one that a class takes is honoured, or refused by name, or listed in `HARMLESS`. One
that only other classes take is passed over, as the reference library does: files carry them since a model changed its
scheduler. One that no class takes is refused.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

_BETAS = {
    "num_train_timesteps": 1000,
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "prediction_type": "epsilon",
}
_LATENT = {**_BETAS, "beta_start": 0.00085, "beta_end": 0.012}
_CLIP = {"clip_sample": True, "clip_sample_range": 1.0}
_THRESHOLD = {"thresholding": False, "dynamic_thresholding_ratio": 0.995, "sample_max_value": 1.0}
_LEADING = {"timestep_spacing": "leading", "steps_offset": 0}
_LINSPACE = {"timestep_spacing": "linspace", "steps_offset": 0}
_ZERO_SNR = {"rescale_betas_zero_snr": False}
_RULES = {"use_karras_sigmas": False, "use_exponential_sigmas": False, "use_beta_sigmas": False}
_FLOW = {"use_flow_sigmas": False, "flow_shift": 1.0}
_SHIFT = {"use_dynamic_shifting": False, "time_shift_type": "exponential"}
_STEPS = {**_BETAS, **_CLIP, **_THRESHOLD, **_LEADING, **_ZERO_SNR}
_MULTISTEP = {**_BETAS, **_THRESHOLD, **_RULES, **_FLOW, "solver_order": 2, "lower_order_final": True}
_SOLVER = {"algorithm_type": "dpmsolver++", "solver_type": "midpoint", "final_sigmas_type": "zero"}
_CLIPPED = {"lambda_min_clipped": -math.inf, "variance_type": None}
_DISTILLED = {
    **_LATENT,
    **_THRESHOLD,
    **_LEADING,
    **_ZERO_SNR,
    "beta_schedule": "scaled_linear",
    "original_inference_steps": 50,
    "clip_sample": False,
    "clip_sample_range": 1.0,
    "set_alpha_to_one": True,
    "timestep_scaling": 10.0,
}
_EDM = {
    "sigma_min": 0.002,
    "sigma_max": 80.0,
    "sigma_data": 0.5,
    "sigma_schedule": "karras",
    "rho": 7.0,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "final_sigmas_type": "zero",
}

DEFAULTS: dict[str, dict[str, Any]] = {
    "DDPMScheduler": {**_STEPS, "variance_type": "fixed_small"},
    "UnCLIPScheduler": {
        "num_train_timesteps": 1000,
        "variance_type": "fixed_small_log",
        **_CLIP,
        "prediction_type": "epsilon",
        "beta_schedule": "squaredcos_cap_v2",
    },
    "DDIMScheduler": {**_STEPS, "set_alpha_to_one": True},
    "DDIMInverseScheduler": {**_BETAS, **_CLIP, **_LEADING, **_ZERO_SNR, "set_alpha_to_one": True},
    "PNDMScheduler": {**_BETAS, **_LEADING, "skip_prk_steps": False, "set_alpha_to_one": False},
    "EulerDiscreteScheduler": {
        **_BETAS,
        **_LINSPACE,
        **_RULES,
        **_ZERO_SNR,
        "interpolation_type": "linear",
        "sigma_min": None,
        "sigma_max": None,
        "timestep_type": "discrete",
        "final_sigmas_type": "zero",
    },
    "EulerAncestralDiscreteScheduler": {**_BETAS, **_LINSPACE, **_ZERO_SNR},
    "HeunDiscreteScheduler": {**_LATENT, **_LINSPACE, **_RULES, "clip_sample": False, "clip_sample_range": 1.0},
    "KDPM2DiscreteScheduler": {**_LATENT, **_LINSPACE, **_RULES},
    "KDPM2AncestralDiscreteScheduler": {**_LATENT, **_LINSPACE, **_RULES},
    "LMSDiscreteScheduler": {**_BETAS, **_LINSPACE, **_RULES},
    "DPMSolverSDEScheduler": {**_LATENT, **_LINSPACE, **_RULES, "noise_sampler_seed": None},
    "DPMSolverMultistepScheduler": {
        **_MULTISTEP,
        **_SOLVER,
        **_CLIPPED,
        **_LINSPACE,
        **_ZERO_SNR,
        **_SHIFT,
        "euler_at_final": False,
        "use_lu_lambdas": False,
    },
    "DPMSolverSinglestepScheduler": {**_MULTISTEP, **_SOLVER, **_CLIPPED, **_SHIFT, "lower_order_final": False},
    "UniPCMultistepScheduler": {
        **_MULTISTEP,
        **_LINSPACE,
        **_ZERO_SNR,
        **_SHIFT,
        "predict_x0": True,
        "solver_type": "bh2",
        "disable_corrector": [],
        "solver_p": None,
        "final_sigmas_type": "zero",
        "sigma_min": None,
        "sigma_max": None,
        "shift_terminal": None,
    },
    "DEISMultistepScheduler": {
        **_MULTISTEP,
        **_LINSPACE,
        **_SHIFT,
        "algorithm_type": "deis",
        "solver_type": "logrho",
    },
    "SASolverScheduler": {
        **_BETAS,
        **_THRESHOLD,
        **_RULES,
        **_FLOW,
        **_CLIPPED,
        **_LINSPACE,
        "predictor_order": 2,
        "corrector_order": 2,
        "tau_func": None,
        "algorithm_type": "data_prediction",
        "lower_order_final": True,
    },
    "LCMScheduler": _DISTILLED,
    "TCDScheduler": _DISTILLED,
    "EDMEulerScheduler": _EDM,
    "EDMDPMSolverMultistepScheduler": {
        **_EDM,
        **_THRESHOLD,
        "solver_order": 2,
        "algorithm_type": "dpmsolver++",
        "solver_type": "midpoint",
        "lower_order_final": True,
        "euler_at_final": False,
    },
    "FlowMatchEulerDiscreteScheduler": {
        "num_train_timesteps": 1000,
        "shift": 1.0,
        "use_dynamic_shifting": False,
        "base_shift": 0.5,
        "max_shift": 1.15,
        "base_image_seq_len": 256,
        "max_image_seq_len": 4096,
        "invert_sigmas": False,
        "shift_terminal": None,
        **_RULES,
        "time_shift_type": "exponential",
        "stochastic_sampling": False,
    },
    "FlowMatchHeunDiscreteScheduler": {"num_train_timesteps": 1000, "shift": 1.0},
}
DEFAULTS["DDPMParallelScheduler"] = DEFAULTS["DDPMScheduler"]
DEFAULTS["DDIMParallelScheduler"] = DEFAULTS["DDIMScheduler"]

_ONLY_SHIFTED = "read with use_dynamic_shifting alone, which is refused"
HARMLESS: dict[str, dict[str, str]] = {
    "DPMSolverSDEScheduler": {"noise_sampler_seed": "noise comes from the keys of the call"},
    "DPMSolverMultistepScheduler": {"time_shift_type": _ONLY_SHIFTED},
    "DPMSolverSinglestepScheduler": {"time_shift_type": _ONLY_SHIFTED},
    "UniPCMultistepScheduler": {"time_shift_type": _ONLY_SHIFTED},
    "DEISMultistepScheduler": {
        "time_shift_type": _ONLY_SHIFTED,
        "algorithm_type": "another class's, for which DEIS is taken all the same",
        "solver_type": "another class's, for which logrho is taken all the same",
    },
    "LCMScheduler": {
        "timestep_spacing": "the calls are among the steps of the teacher",
        "steps_offset": "the same",
        "set_alpha_to_one": "the last step gives the estimate itself",
    },
    "TCDScheduler": {
        "timestep_spacing": "the calls are among the steps of the teacher",
        "steps_offset": "the same",
        "set_alpha_to_one": "the walk ends at the first trained step",
        "timestep_scaling": "of LCM's boundary condition, which TCD has not",
        **dict.fromkeys(("clip_sample", "clip_sample_range", *_THRESHOLD), "TCD's step bounds nothing"),
    },
    "EDMEulerScheduler": {"num_train_timesteps": "of a table that every call replaces"},
    "EDMDPMSolverMultistepScheduler": {"num_train_timesteps": "of a table that every call replaces"},
    "FlowMatchEulerDiscreteScheduler": {
        "base_shift": _ONLY_SHIFTED,
        "max_shift": _ONLY_SHIFTED,
        "base_image_seq_len": _ONLY_SHIFTED,
        "max_image_seq_len": _ONLY_SHIFTED,
        "time_shift_type": _ONLY_SHIFTED,
    },
}
"""Fields that cannot change the walk, with the reason."""

_LEVEL = (1e-6, 1e6)
RANGES: dict[str, tuple[float, float]] = {
    "num_train_timesteps": (1, 10**5),
    "beta_start": (1e-12, 1.0),
    "beta_end": (1e-12, 1.0),
    "clip_sample_range": _LEVEL,
    "sample_max_value": _LEVEL,
    "dynamic_thresholding_ratio": (0.0, 1.0),
    "steps_offset": (0, 10**5),
    "sigma_min": _LEVEL,
    "sigma_max": _LEVEL,
    "sigma_data": _LEVEL,
    "rho": (1.0, 100.0),
    "shift": (1e-3, 1e3),
    "flow_shift": (1e-3, 1e3),
    "shift_terminal": (0.0, 0.999),
    "timestep_scaling": _LEVEL,
    "original_inference_steps": (1, 10**5),
}
"""The least and the most of each number: no published model is near them, and beyond them arithmetic fails."""

_KNOWN = {field for fields in DEFAULTS.values() for field in fields} | {"eta", "prior_type", "s_noise"}
"""What any class of the reference library takes that a model with a U-Net may have had."""


class Fields(dict[str, Any]):
    """The fields of one scheduler, all of them, with the class's name; it remembers which were read."""

    def __init__(self, name: str, values: Mapping[str, Any]):
        """Takes the class's name and a value for each of its fields."""
        super().__init__(values)
        self.name, self.seen = name, set[str]()

    def __getitem__(self, field: str) -> Any:
        self.seen.add(field)
        return super().__getitem__(field)

    def get(self, field: str, default: Any = None) -> Any:
        """A field, or what stands for it in classes that do not take it."""
        return self[field] if field in self else default  # noqa: SIM401

    def choice(self, field: str, known: Iterable[str]) -> str:
        """A field that is one of `known`.

        Raises:
          ValueError: if it is not; lists them.
        """
        value, known = self[field], list(known)
        if value not in known:
            raise ValueError(f"{self.name}: {field}={value!r}: expected one of {', '.join(known)}")
        return str(value)

    def only(self, field: str, value: Any, why: str) -> None:
        """Refuses a field that is not `value`.

        Raises:
          ValueError: says what was given, and why it is refused.
        """
        if self[field] != value:
            raise ValueError(f"{self.name}: {field}={self[field]!r} is not supported, only {value!r}: {why}")


def read(config: Mapping[str, Any]) -> Fields:
    """The fields of a scheduler_config.json; those it lacks, or says were defaults, have the class's defaults.

    Raises:
      ValueError: for a class that is not supported, a field that no class takes, or a value of another type.
    """
    name = config.get("_class_name")
    if not isinstance(name, str) or name not in DEFAULTS:
        raise ValueError(f"scheduler {name!r} is not supported: expected one of {', '.join(DEFAULTS)}")
    values, absent = dict(DEFAULTS[name]), config.get("_use_default_values", [])
    if not isinstance(absent, list):
        raise ValueError(f"{name}: _use_default_values={absent!r}: expected a list of fields")
    for field, value in config.items():
        if field.startswith("_") or field in absent:
            continue
        if field not in _KNOWN:
            raise ValueError(f"{name}: {field} is a field of no scheduler: check its spelling, or remove it")
        if field in values:
            values[field] = _checked(name, field, value, DEFAULTS[name][field])
    return Fields(name, values)


def _checked(name: str, field: str, value: Any, default: Any) -> Any:
    """The value, if it is of the kind of the field's default, and in its range; null stands for the default."""
    if value is None:
        return default
    number = (type(value) is float and not math.isnan(value)) or (type(value) is int and abs(value) < 10**300)
    if default is None and field in RANGES:
        default = 1.0
    if default is None:
        return value
    fits = {
        bool: isinstance(value, bool),
        int: number and value == math.floor(value) if number and not math.isinf(value) else False,
        float: number,
        str: isinstance(value, str),
        list: isinstance(value, list),
    }
    if not fits[type(default)]:
        raise ValueError(f"{name}: {field}={value!r}: expected {type(default).__name__}, like {default!r}")
    least, most = RANGES.get(field, (-math.inf, math.inf))
    if number and not least <= value <= most:
        raise ValueError(f"{name}: {field}={value!r}: expected {least:g} to {most:g}")
    return value if isinstance(default, bool) else type(default)(value)
