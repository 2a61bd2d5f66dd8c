"""The process of a single file, read and written: v-prediction, zero SNR, and the EDM family's noise levels.

The file has no scheduler. AUTOMATIC1111's web UI and ComfyUI look for tensors whose names are the message:

    v_pred                                  the network predicts v (no numbers in it)
    ztsnr                                   and its schedule ends in pure noise (no numbers in it)
    edm_mean, edm_std                       EDM with sigma_data 0.5 (Playground 2.5); of the latents, for each channel
    edm_vpred.sigma_max, edm_vpred.sigma_min    v over noise levels, sigma_data 1 (CosXL)

They look for the first two in files of Stable Diffusion XL only. The metadata of ModelSpec say what is predicted too.

Sources: AUTOMATIC1111/stable-diffusion-webui#16567; ComfyUI, comfy/supported_models.py; Stability-AI/ModelSpec.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxdiff import __version__
from jaxdiff.pretrained.components import Json
from jaxdiff.pretrained.rules import Stored, few

Tensors = Mapping[str, np.ndarray | Stored]

MARKERS = ("v_pred", "ztsnr", "edm_mean", "edm_std", "edm_vpred.sigma_max", "edm_vpred.sigma_min")
_PREDICTIONS = {"epsilon": "epsilon", "eps": "epsilon", "v": "v_prediction", "v_prediction": "v_prediction"}
_ARCHITECTURES = {
    "sd1": {"epsilon": "stable-diffusion-v1", "v_prediction": "stable-diffusion-v1"},
    "sd2": {"epsilon": "stable-diffusion-v2-512", "v_prediction": "stable-diffusion-v2-768-v"},
    "sdxl": {"epsilon": "stable-diffusion-xl-v1-base", "v_prediction": "stable-diffusion-xl-v1-base"},
    "sdxl_refiner": {"epsilon": "stable-diffusion-xl-v1-refiner", "v_prediction": "stable-diffusion-xl-v1-refiner"},
    "upscale": {"epsilon": "stable-diffusion-x4-upscaler", "v_prediction": "stable-diffusion-x4-upscaler"},
}
_BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
_NOISE = {
    "num_train_timesteps": 1000,
    "beta_schedule": "linear",
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "trained_betas": None,
}
"""The fields of a scheduler_config.json that make its noise levels, with what their absence means."""
_WRITER = "jaxdiff "
_EDM = {"EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"}


def read(
    name: str, tensors: Tensors, note: Mapping[str, str], prediction: str | None, channels: int = 4
) -> dict[str, Any]:
    """Returns the scheduler_config.json of a file: its process, and the sampler of the model's authors.

    Args:
      name: the model in `presets.PRESETS`.
      tensors: tensors of the file.
      note: its metadata.
      prediction: epsilon or v_prediction, which counts more than what the file says; None: what it says.
      channels: that the U-Net takes.

    Raises:
      ValueError: if the file of a Stable Diffusion 2 does not say what is predicted, or says it in unknown words.
    """
    if {"edm_mean", "edm_std"} <= tensors.keys():
        levels = {"sigma_min": 0.002, "sigma_max": 80.0, "sigma_data": 0.5, "rho": 7.0}
        return {"_class_name": "EDMDPMSolverMultistepScheduler", **levels, "prediction_type": "epsilon"}
    if "edm_vpred.sigma_max" in tensors:
        levels = {"sigma_max": 120.0, "sigma_min": 0.002}
        levels |= {k: number(tensors, f"edm_vpred.{k}") for k in levels if f"edm_vpred.{k}" in tensors}
        more = {"sigma_data": 1.0, "sigma_schedule": "exponential", "prediction_type": "v_prediction"}
        return {"_class_name": "EDMEulerScheduler", **levels, **more}
    kind = prediction or _said(name, tensors, note)
    if name == "sd2" and kind is None and channels == 4:
        raise ValueError(
            "a file of Stable Diffusion 2 does not tell what its network predicts: pass prediction='v_prediction' for "
            "the 768 model or prediction='epsilon' for the base (512) model"
        )
    kind = kind or ("v_prediction" if name == "upscale" else "epsilon")
    betas = {**_BETAS, "beta_start": 0.0001, "beta_end": 0.02} if name == "upscale" else _BETAS
    config = {**betas, "steps_offset": 1, "prediction_type": kind, "timestep_spacing": "leading"}
    if kind == "v_prediction" and ("ztsnr" in tensors or _true(note.get("modelspec.use_ztsnr"))):
        # the last trained step is pure noise, and a walk has to begin there: Lin et al. 2024, arXiv 2305.08891, 3.3
        config |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    if name.startswith("sdxl"):
        return {"_class_name": "EulerDiscreteScheduler", **config}
    return {"_class_name": "DDIMScheduler", **config, "set_alpha_to_one": False, "clip_sample": False}


def latents(tensors: Tensors) -> dict[str, list[float]]:
    """Returns the autoencoder's latents_mean and latents_std, where the file says them."""
    if not {"edm_mean", "edm_std"} <= tensors.keys():
        return {}
    named = {"latents_mean": "edm_mean", "latents_std": "edm_std"}
    return {field: np.asarray(tensors[key], np.float64).ravel().tolist() for field, key in named.items()}


def number(tensors: Tensors, name: str) -> float:
    """Returns the one number of a tensor, whatever its shape.

    Raises:
      ValueError: if it holds another count, or no finite one.
    """
    x = np.asarray(tensors[name], np.float64).ravel()
    if x.size != 1 or not np.isfinite(x).all():
        raise ValueError(f"{name} has shape {tuple(tensors[name].shape)}: expected one finite number")
    return float(x[0])


def write(name: str, config: Json, vae: Json) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Returns the tensors and metadata by which `read` and other tools know the process of a scheduler_config.json.

    Args:
      name: the model in `presets.PRESETS`.
      config: scheduler_config.json.
      vae: the autoencoder's config.json.

    Raises:
      ValueError: for a process that one file cannot say; names the fields.
    """
    kind = config.get("prediction_type", "epsilon")
    note = signature()
    if kind not in _ARCHITECTURES[name]:
        raise ValueError(f"one file cannot say prediction_type={kind!r}, only epsilon or v_prediction: {_INSTEAD}")
    note |= {"modelspec.architecture": _ARCHITECTURES[name][kind]}
    note |= {"modelspec.prediction_type": "v" if kind == "v_prediction" else "epsilon"}
    empty = np.zeros(0, np.float32)
    tensors: dict[str, np.ndarray] = {}
    mean, std = vae.get("latents_mean"), vae.get("latents_std")
    if config.get("_class_name") in _EDM and kind == "v_prediction":
        levels = {"sigma_max": config.get("sigma_max", 80.0), "sigma_min": config.get("sigma_min", 0.002)}
        tensors = {f"edm_vpred.{k}": np.array(value, np.float32) for k, value in levels.items()}
    elif config.get("_class_name") in _EDM:
        if mean is None or std is None:
            raise ValueError(f"one file says EDM by latents_mean and latents_std, and this vae has none: {_INSTEAD}")
        shape = (1, -1, 1, 1)
        tensors = {k: np.array(x, np.float32).reshape(shape) for k, x in {"edm_mean": mean, "edm_std": std}.items()}
    elif kind == "v_prediction":
        tensors = {"v_pred": empty, **({"ztsnr": empty} if config.get("rescale_betas_zero_snr") else {})}
    if "edm_mean" not in tensors and (mean is not None or std is not None):
        raise ValueError(f"one file cannot say the vae's latents_mean and latents_std without EDM: {_INSTEAD}")
    back = read(name, tensors, note, None)
    fields = ("sigma_data", "sigma_min", "sigma_max") if back["_class_name"] in _EDM else (*_NOISE, _ZERO)
    defaults = {**_NOISE, _ZERO: False, "sigma_data": 0.5, "sigma_min": 0.002, "sigma_max": 80.0}
    values = {k: config.get(k, defaults[k]) for k in fields}
    lost = [f"{k}={v!r}" for k, v in values.items() if not _same(v, back.get(k, defaults[k]))]
    if lost:
        raise ValueError(f"one file cannot say {few(lost)} of the scheduler: {_INSTEAD}")
    return tensors, note


def signature() -> dict[str, str]:
    """Returns the metadata by which `ours` knows what was written here."""
    return {"modelspec.sai_model_spec": "1.0.0", "modelspec.implementation": f"{_WRITER}{__version__}"}


def ours(note: Mapping[str, str]) -> bool:
    """Returns whether a file with these metadata was written here."""
    return note.get("modelspec.implementation", "").startswith(_WRITER)


_ZERO = "rescale_betas_zero_snr"
_INSTEAD = "write a directory instead"
_USUAL: tuple[Any, ...] = (None, False, 0, [])
"""What most fields of a scheduler_config.json are where they are absent."""
_DEFAULTS = {
    "clip_sample_range": 1.0,
    "sample_max_value": 1.0,
    "dynamic_thresholding_ratio": 0.995,
    "interpolation_type": "linear",
    "timestep_type": "discrete",
    "final_sigmas_type": "zero",
}
"""What others are."""


def unsaid(config: Json, back: Json, *, noise: bool = False) -> list[str]:
    """Returns the fields of a scheduler_config.json that differ in another, `back`.

    Those of the process only with `noise`.
    """
    process = {*_NOISE, _ZERO, "prediction_type", "sigma_data", "sigma_min", "sigma_max"}
    names = [k for k in config if k == "_class_name" or not (k.startswith("_") or k in process)]
    differ = [k for k in names if config[k] != back.get(k, config[k] if config[k] in _USUAL else _DEFAULTS.get(k))]
    if noise:
        differ += [k for k, usual in _NOISE.items() if not _same(config.get(k, usual), back.get(k, usual))]
    return [f"{k}={config.get(k)!r}" for k in differ]


def _said(name: str, tensors: Tensors, note: Mapping[str, str]) -> str | None:
    """Returns what is predicted, by tensors and then by metadata; None: neither says it."""
    if "v_pred" in tensors:
        return "v_prediction"
    for key in ("modelspec.prediction_type", "modelspec.predict_key"):
        if key in note:
            if note[key] not in _PREDICTIONS:
                raise ValueError(
                    f"the file's metadata say {key}={note[key][:80]!r}: expected one of {', '.join(_PREDICTIONS)}; "
                    "pass prediction to say it"
                )
            return _PREDICTIONS[note[key]]
    kinds = [k for k, text in _ARCHITECTURES[name].items() if text == note.get("modelspec.architecture")]
    return kinds[0] if len(kinds) == 1 else None


def _true(text: str | None) -> bool:
    return (text or "").lower() in ("true", "1", "yes")


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, int | float) and isinstance(b, int | float):
        return bool(np.isclose(a, b, rtol=1e-6, atol=0))
    return bool(a == b)
