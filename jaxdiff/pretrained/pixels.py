"""A pixel model that was trained here, as diffusers knows it: a UNet2DModel in a DDPMPipeline."""

from typing import Any

import numpy as np

from jaxdiff.diffusion import schedule as schedules
from jaxdiff.pretrained.read import Bundle, Component
from jaxdiff.pretrained.rules import unet_config
from jaxdiff.pretrained.schedulers.process import Process

_BETAS: dict[str, dict[str, Any]] = {
    "linear": {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02},
    "scaled_linear": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
}
_VARIANCES = {"small": "fixed_small", "large": "fixed_large", "learned": "learned_range"}
_PREDICTIONS = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}


def published(native: Bundle) -> Bundle:
    """Returns a model of our own training, with one U-Net, as `write_directory` takes it.

    Raises:
      ValueError: if a UNet2DModel cannot be such a network (conditioned on text, say), or a DDPMScheduler such a
        process; names the fields.
    """
    process, part = native.native, native.components["unet"]
    assert process is not None
    if native.index:  # what only our own models say
        raise ValueError("diffusers has no pipeline in pixels that takes a picture, or an embedding, as this run does")
    net, params = part.config, part.params
    json = {
        **unet_config.pixel_json(net, params["conv_in"]["kernel"].shape[2]),
        "sample_size": part.json["sample_size"],
    }
    kind, scheduler = "DDPMPipeline", "DDPMScheduler"
    index = {"_class_name": kind, "unet": ["diffusers", "UNet2DModel"], "scheduler": ["diffusers", scheduler]}
    unet_part = Component("UNet2DModel", json, net, params)
    return Bundle(kind, index, {"unet": unet_part}, {}, {"scheduler": scheduler_json(process, scheduler)})


def scheduler_json(process: Process, kind: str) -> dict[str, Any]:
    """Returns scheduler_config.json of a process of our own training, for a class that counts trained steps.

    Raises:
      ValueError: if such a class cannot express it.
    """
    knots: Any = getattr(process.schedule, "knots", ())
    name = next((name for name in _BETAS if np.array_equal(getattr(schedules, name)().knots, knots)), None)
    if name is None or process.kind not in _PREDICTIONS:
        raise ValueError(
            f"a {kind} has no such process: it knows the schedules {', '.join(_BETAS)} of 1000 steps and the "
            f"predictions {', '.join(_PREDICTIONS)}, and this run predicts {process.kind}"
        )
    fields = {**_BETAS[name], "prediction_type": _PREDICTIONS[process.kind], "clip_sample": False}
    if kind == "DDPMScheduler":
        fields["variance_type"] = _VARIANCES[process.options.get("variance", "small")]
    return {"_class_name": kind, **fields}
