"""Rematerialisation by name: what the backward pass computes again instead of keeping it.

    none      nothing: all that the gradient needs is kept
    products  all but the outputs of matrix products and convolutions: norms, activations and scores' softmax again
    blocks    whole blocks, of which the inputs alone are kept: least memory, a third more work

Source: Chen et al. 2016, Training deep nets with sublinear memory cost, arXiv 1604.06174.
"""

from collections.abc import Sequence
from typing import Any, Literal, TypeVar

import flax.linen as nn

Remat = Literal["none", "products", "blocks"]
_Block = TypeVar("_Block", bound=type[nn.Module])


def recomputed(block: _Block, remat: Remat, methods: Sequence[str] | None = None) -> _Block:
    """Returns a module's class whose calls keep for the backward pass what `remat` says, and compute the rest again.

    Args:
      block: the class.
      remat: what is computed again.
      methods: those of the class that are meant; None: `__call__`.
    """
    if remat == "none":
        return block
    return nn.remat(block, policy=_is_product if remat == "products" else None, methods=methods)


def _is_product(primitive: Any, *_: Any, **__: Any) -> bool:
    return primitive.name in ("dot_general", "conv_general_dilated")
