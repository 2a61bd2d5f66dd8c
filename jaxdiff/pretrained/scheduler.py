"""scheduler_config.json of diffusers as our schedule, kind of prediction, sampler and grid.

`process` reads a config, field by field (`schedulers.fields`); `sampled` is the same model with another sampler, as the
reference library would make one of the model's config; `native` is the process of a model that was trained here.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxdiff.diffusion import prediction
from jaxdiff.pretrained.schedulers.classes import CLASSES
from jaxdiff.pretrained.schedulers.fields import DEFAULTS, read
from jaxdiff.pretrained.schedulers.placing import Placing
from jaxdiff.pretrained.schedulers.process import Process, native
from jaxdiff.sampling import SAMPLERS
from jaxdiff.sampling.registry import INVERSIONS, lookup

__all__ = ["Placing", "Process", "mended", "native", "process", "said", "sampled"]

_MULTI, _SINGLE = "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler"
_EPS = {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}
# sampler -> the class that has it, and what of its fields it means
_NAMED: dict[str, tuple[str, dict[str, Any]]] = {
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
    "dpm_solver": (_MULTI, _EPS),
    "dpmpp_2m": (_MULTI, {"algorithm_type": "dpmsolver++", "solver_order": 2}),
    "dpmpp_3m": (_MULTI, {"algorithm_type": "dpmsolver++", "solver_order": 3}),
    "dpmpp_2m_sde": (_MULTI, {"algorithm_type": "sde-dpmsolver++", "solver_order": 2}),
    "dpm_inverse": ("DPMSolverMultistepInverseScheduler", {}),
    "dpm_solver_single": (_SINGLE, _EPS),
    "dpmpp_2s": (_SINGLE, {"algorithm_type": "dpmsolver++", "solver_order": 2}),
    "dpmpp_2s_sde": (_SINGLE, {"algorithm_type": "sde-dpmsolver++", "solver_order": 2}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "deis": ("DEISMultistepScheduler", {"algorithm_type": "deis"}),
    "sa_solver": ("SASolverScheduler", {"algorithm_type": "data_prediction"}),
    "lcm": ("LCMScheduler", {}),
    "tcd": ("TCDScheduler", {}),
}
# samplers without a class there -> the one whose way of placing calls they take
_ALIKE = {
    "dpmpp_3m_sde": "dpmpp_2m_sde",
    "edm": "heun",
    "restart": "heun",
    "dpmpp_2s_ancestral": "kdpm2_ancestral",
    "repaint": "ddpm",
    "ddim_inverse": "ddim",
    "ipndm": "ddim",
    "consistency": "ddim",
}


_OLD = ("DDIMScheduler", "DDPMScheduler", "PNDMScheduler")
_STABLE_DIFFUSION = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


def process(config: Mapping[str, Any]) -> Process:
    """Returns the process of a scheduler_config.json.

    Raises:
      ValueError: for a class, a field or a value that is not supported, with those that are.
    """
    return _process(mended(config))


def _process(config: Mapping[str, Any]) -> Process:
    fields = read(config)
    try:
        process = CLASSES[fields.name](fields)
        prediction.check(process.kind, process.schedule)
    except ValueError as error:  # of the mathematics, which does not know where its numbers come from
        if fields.name in str(error):
            raise
        raise ValueError(f"{fields.name}: {error}") from None
    return process


def mended(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Adds to old files of Stable Diffusion what they lack.

    Before schedulers had the fields steps_offset and clip_sample, Stable Diffusion's pipelines began at step 1 and did
    not clip; the reference's pipelines still do so for its old files, whatever the class's defaults have become.
    """
    old = {"steps_offset", "clip_sample"}.isdisjoint(config) and config.get("_class_name") in _OLD
    if not old or any(config.get(field) != value for field, value in _STABLE_DIFFUSION.items()):
        return config
    return {**config, "steps_offset": 1, "clip_sample": False}


def said(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of a config but those that it calls defaults of its class: another class has its own."""
    defaults = {"_use_default_values", *config.get("_use_default_values", ())}
    return {field: value for field, value in config.items() if field not in defaults}


def sampled(model: Process, config: Mapping[str, Any], sampler: str) -> Process:
    """Returns the process of a published model with another sampler: the class that has it, made of the model's config.

    The model's spacing, offset, end and rule for levels are kept, as far as that class knows them.

    Args:
      model: the model's own.
      config: its scheduler_config.json.
      sampler: a name in `sampling.SAMPLERS` or `sampling.INVERSIONS`.

    Raises:
      ValueError: for an unknown sampler, or one that cannot be made of this config.
    """
    lookup("sampler", sampler, {**SAMPLERS, **INVERSIONS})
    name = _ALIKE.get(sampler, sampler)
    if name not in _NAMED or not isinstance(model.grid, Placing) or model.grid.way in ("edm", "flow"):
        return native(model.schedule, model.kind, sampler, clip=model.clip)
    (kind, means), config = _NAMED[name], mended(config)
    kept = {field: value for field, value in said(config).items() if field in DEFAULTS[kind]}
    process = _process({**kept, **means, "_class_name": kind})
    if name == sampler:
        return process
    bounds = {} if sampler in INVERSIONS else {k: v for k, v in process.options.items() if k in ("clip", "threshold")}
    return dataclasses.replace(process, sampler=sampler, options=bounds)
