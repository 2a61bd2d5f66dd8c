"""Numbers of a U-Net that do not fit each other, refused by name before anything is traced."""

import math
from typing import Any

from jaxdiff.models.config import check_dtype

KINDS = ("none", "self", "cross", "joint", "context")
ACTIVATIONS = ("silu", "gelu")
ADDITIONS = ("", "text", "image", "text_image", "plain")
TOKENS = ("", "text", "image", "text_image")


def check(net: Any, sides: tuple[int, ...]) -> None:
    """Refuses numbers of a `UNetConfig` that do not fit each other, or pictures with these sides.

    Raises:
      ValueError: names the fields, what they are, and what is expected.
    """
    levels = len(net.channels)
    if not levels:
        raise ValueError("UNet: channels is empty: expected the width of each level")
    for name in ("attention", "heads", "depth", *(("level_layers",) if net.level_layers else ())):
        if len(getattr(net, name)) != levels:
            raise ValueError(
                f"UNet: {name} is {getattr(net, name)}: expected one entry for each of the {levels} levels of "
                f"channels {net.channels}"
            )
    attends = [kind != "none" for kind in net.attention]
    attends[-1] |= net.mid_attention != "none"
    counts = ("channels", "heads", "depth", "out_channels", "layers", "level_layers", "patch", "groups", "pool_heads")
    for name in counts:
        value = getattr(net, name)
        counted = {"heads": attends, "depth": [kind == "cross" for kind in net.attention]}.get(name)
        many = value if isinstance(value, tuple) else (value,)
        if any(number < 1 for number, used in zip(many, counted or [True] * len(many), strict=True) if used):
            raise ValueError(f"UNet: {name} is {value}: expected 1 or more")
    if wrong := {*net.attention, net.mid_attention} - {*KINDS}:
        raise ValueError(f"UNet: attention {sorted(wrong)}: expected {', '.join(KINDS[:-1])} or {KINDS[-1]}")
    words = {"act": ACTIVATIONS, "time_act": ("", *ACTIVATIONS), "addition": ADDITIONS, "tokens": TOKENS}
    for name, known in words.items():
        if getattr(net, name) not in known:
            raise ValueError(f"UNet: {name} is {getattr(net, name)!r}: expected one of {', '.join(map(repr, known))}")
    for name in ("labels", "embed_width", "context_width"):
        if getattr(net, name) < 0:
            raise ValueError(f"UNet: {name} is {getattr(net, name)}: expected 0 or more")
    if bool(net.tokens) != bool(net.context_width):
        raise ValueError(
            f"UNet: tokens is {net.tokens!r} and context_width {net.context_width}: expected both, or neither"
        )
    for name in ("eps", "rescale", "skip_scale", *(("mid_rescale",) if net.mid_rescale else ())):
        if not 0 < getattr(net, name) < math.inf:
            raise ValueError(f"UNet: {name} is {getattr(net, name)}: expected a number above 0")
    if not 0 <= net.dropout < 1:
        raise ValueError(f"UNet: dropout is {net.dropout}: expected at least 0 and less than 1")
    check_dtype("UNet", net.dtype)
    for width, heads, used in zip(net.channels, net.heads, attends, strict=True):
        if width % net.groups or (used and width % heads):
            raise ValueError(
                f"UNet: channels has {width}, which does not divide by groups {net.groups} or by {heads} heads"
            )
    if any(side % net.unit for side in sides):
        halvings = levels if net.shifted else levels - 1
        raise ValueError(
            f"UNet: a picture of {'x'.join(map(str, sides))} does not cut into patches of {net.patch}"
            + (f" and halve {halvings} times" if net.unit > net.patch else "")
            + f": both sides must be multiples of {net.unit}"
        )
