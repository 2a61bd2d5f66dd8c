"""diffusers' StableUnCLIPImageNormalizer: the mean and the deviation of CLIP's embeddings of pictures."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxdiff.pretrained.rules import Rule, Rules
from jaxdiff.pretrained.rules.fields import settle, whole
from jaxdiff.typing import Params

RULES: Rules = (Rule("mean", "mean", "same"), Rule("std", "deviation", "same"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class NormalizerConfig:
    """The numbers of a normaliser.

    Attributes:
      width: width of the embeddings.
      dtype: dtype of the computation, which is float32.
    """

    width: int = 768
    dtype: str = "float32"


def config(json: Mapping[str, Any]) -> NormalizerConfig:
    """Returns the numbers of a StableUnCLIPImageNormalizer.

    Raises:
      ValueError: names the fields whose values are not supported.
    """
    return NormalizerConfig(width=settle("StableUnCLIPImageNormalizer", json, _FIELDS, {})["embedding_dim"])


_FIELDS = {"embedding_dim": whole(768)}


def shapes(net: NormalizerConfig, json: Mapping[str, Any]) -> Params:
    """Returns the parameters, as shapes."""
    one = jax.ShapeDtypeStruct((1, net.width), jnp.float32)
    return {"mean": one, "deviation": one}
