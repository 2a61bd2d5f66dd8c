"""The discrete VAE, which other libraries have no class for: names and config.json of our own."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxdiff.models.autoencoder_dvae import DiscreteVAE, DVAEConfig
from jaxdiff.pretrained.rules import Rule, Rules
from jaxdiff.pretrained.rules.fields import each, settle, whole
from jaxdiff.typing import Params

KIND = "DiscreteVAE"
RULES: Rules = tuple(
    Rule(f"{half}.{theirs}", f"{half}/{ours}", "conv")
    for half in ("encoder", "decoder")
    for theirs, ours in (
        ("conv_in", "conv_in"),
        ("levels.{}.blocks.{}.convs.{}", "level_{}_block_{}/conv_{}"),
        ("levels.{}.blocks.{}.skip", "level_{}_block_{}/skip"),
        ("conv_out", "conv_out"),
    )
)
_FIELDS = {
    "block_out_channels": each(whole(4), (256, 512, 1024, 2048)),
    "layers_per_block": whole(2, most=100),
    "num_codes": whole(8192, 2),
    "embed_dim": whole(128),
}


def config(json: Mapping[str, Any]) -> DVAEConfig:
    """Returns the numbers of a discrete VAE.

    Raises:
      ValueError: names the fields whose values are not supported.
    """
    full = settle(KIND, json, _FIELDS, {})
    return DVAEConfig(
        channels=tuple(full["block_out_channels"]),
        layers=full["layers_per_block"],
        codes=full["num_codes"],
        embedding=full["embed_dim"],
    )


def published(net: DVAEConfig) -> dict[str, Any]:
    """Returns the config.json that `config` reads back."""
    return {
        "block_out_channels": list(net.channels),
        "layers_per_block": net.layers,
        "num_codes": net.codes,
        "embed_dim": net.embedding,
    }


def shapes(net: DVAEConfig, json: Mapping[str, Any]) -> Params:
    """Returns the parameters, as shapes."""
    x = jnp.zeros((1, net.unit, net.unit, 3))
    return jax.eval_shape(lambda: DiscreteVAE(net).init(jax.random.key(0), x))["params"]
