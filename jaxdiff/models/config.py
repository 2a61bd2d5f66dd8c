"""The facts about any network's config that the rest of the library may use."""

import abc
import dataclasses
from typing import Any

import flax.linen as nn

from jaxdiff.kinds import Kinds


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetConfig(abc.ABC):
    """The numbers of a network; a module of `jaxdiff.models` whose `Config` derives from it is a kind of network.

    A network that denoises is called as network(x [b h w c], t [b], cond, keys [b] or None) and tells, in `labels` and
    `pooled`, which conditions it takes; see `models.unet`.

    Attributes:
      dtype: dtype of the computation; parameters are float32.
    """

    dtype: str = "float32"

    @abc.abstractmethod
    def build(self) -> nn.Module:
        """Makes the network."""

    @abc.abstractmethod
    def check(self, *sides: int) -> None:
        """Refuses numbers that do not fit each other, or pictures with these sides.

        Raises:
          ValueError: names the fields, what they are, and what is expected.
        """

    def deterministic(self) -> "NetConfig":
        """Leaves dropout out."""
        dropout: dict[str, Any] = {"dropout": 0.0} if hasattr(self, "dropout") else {}
        return dataclasses.replace(self, **dropout)


DTYPES = ("float32", "bfloat16", "float16")


def check_dtype(name: str, dtype: str) -> None:
    """Refuses a dtype that no network computes in; `name` is the network's."""
    if dtype not in DTYPES:
        raise ValueError(f"{name}: dtype is {dtype!r}: expected one of {', '.join(DTYPES)}")


KINDS: Kinds[NetConfig] = Kinds("jaxdiff.models", NetConfig)
