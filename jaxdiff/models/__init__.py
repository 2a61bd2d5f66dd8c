"""The networks, each a Flax Linen module that reads beside its paper."""

from jaxdiff.models.config import KINDS, NetConfig

__all__ = ["KINDS", "NetConfig"]
