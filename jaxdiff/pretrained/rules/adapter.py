"""diffusers' T2IAdapter: names, and config.json."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxdiff.models.adapter import Adapter, AdapterConfig
from jaxdiff.pretrained.rules import Rule, Rules, under
from jaxdiff.pretrained.rules.fields import each, one_of, settle, whole
from jaxdiff.typing import Params

RULES: Rules = under(
    "adapter",
    "",
    (
        Rule("conv_in", "conv_in", "conv"),
        Rule("body.{}.in_conv", "level_{}_in", "conv"),
        Rule("body.{}.resnets.{}.block1", "level_{}_{}_conv1", "conv"),
        Rule("body.{}.resnets.{}.block2", "level_{}_{}_conv2", "conv"),
    ),
)
_FIELDS = {
    "in_channels": whole(3),
    "channels": each(whole(1), (320, 640, 1280, 1280)),
    "num_res_blocks": whole(2, most=100),
    "downscale_factor": whole(8, most=100),
    "adapter_type": one_of("full_adapter", "full_adapter_xl"),
}


def config(json: Mapping[str, Any]) -> AdapterConfig:
    """Returns the numbers of a T2IAdapter.

    Raises:
      ValueError: names the fields whose values are not supported.
    """
    full = settle("T2IAdapter", json, _FIELDS, {})
    channels = tuple(full["channels"])
    return AdapterConfig(
        in_channels=full["in_channels"],
        channels=channels,
        layers=full["num_res_blocks"],
        factor=full["downscale_factor"],
        halved=(2,) if full["adapter_type"] == "full_adapter_xl" else tuple(range(1, len(channels))),
    )


def shapes(net: AdapterConfig, json: Mapping[str, Any]) -> Params:
    """Returns the parameters, as shapes."""
    hint = jnp.zeros((1, net.unit, net.unit, net.in_channels))
    return jax.eval_shape(lambda: Adapter(net).init(jax.random.key(0), hint))["params"]
