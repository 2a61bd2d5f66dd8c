"""A pixel model that was trained here, as diffusers knows it: a UNet2DModel in a DDPMPipeline."""

from typing import Any

from jaxdiff.models.unet import UNetConfig
from jaxdiff.pretrained.read import Bundle, Component
from jaxdiff.pretrained.rules import unet
from jaxdiff.typing import Params

_BETAS: dict[str, dict[str, Any]] = {
    "linear": {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02},
    "scaled_linear": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
}
_PREDICTIONS = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}


def bundle(net: UNetConfig, params: Params, size: int, schedule: str, prediction: str) -> Bundle:
    """The pipeline of a U-Net that sees `size` x `size` pictures, for `write_directory`.

    Args:
      net: the U-Net's numbers.
      params: its parameters.
      size: side of the pictures.
      schedule: linear, scaled_linear or cosine, of 1000 steps.
      prediction: eps, x0 or v.

    Raises:
      ValueError: if a UNet2DModel cannot be such a network (told text, say); names the fields.
    """
    json = {**unet.pixel_json(net, params["conv_in"]["kernel"].shape[2]), "sample_size": size}
    kind, scheduler = "DDPMPipeline", "DDPMScheduler"
    index = {"_class_name": kind, "unet": ["diffusers", "UNet2DModel"], "scheduler": ["diffusers", scheduler]}
    told = {**_BETAS[schedule], "prediction_type": _PREDICTIONS[prediction], "clip_sample": False}
    unet_part = Component("UNet2DModel", json, net, params)
    return Bundle(kind, index, {"unet": unet_part}, {}, {"scheduler": {"_class_name": scheduler, **told}})
