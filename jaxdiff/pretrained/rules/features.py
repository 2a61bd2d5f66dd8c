"""Networks whose features are compared: names of their tensors, and batch norms folded into the convolutions.

A batch norm after a convolution with kernel w is a convolution with a bias:

    g (w * x - m) / sqrt(v + eps) + b = (g / sqrt(v + eps) w) * x + (b - g m / sqrt(v + eps)).
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from jaxdiff.pretrained.rules import Rule, Rules, TensorError, Tensors, few, flatten
from jaxdiff.typing import Params

EPS = 1e-3
"""Of the batch norms of both networks."""

EFFICIENTNET_RULES: Rules = (
    Rule("_conv_stem", "stem", "conv"),
    Rule("_blocks.{}._expand_conv", "block_{}_expand", "conv"),
    Rule("_blocks.{}._depthwise_conv", "block_{}_depthwise", "conv"),
    Rule("_blocks.{}._project_conv", "block_{}_project", "conv"),
    Rule("_conv_head", "head", "conv"),
    Rule("_fc", "fc", "dense"),
)
LPIPS_RULES: Rules = (
    Rule("features.{}", "conv_{}", "conv"),
    Rule("classifier.*", "", "skip"),
    Rule("lin{}.weight", "weight_{}", "same"),
)


def inception_rules(shapes: Params) -> Rules:
    """Returns both pytorch-fid's names and torch-fidelity's, which are ours with a capital, after folding."""
    modules = sorted({path.rpartition("/")[0] for path in flatten(shapes)} - {"fc"})
    rules = [Rule(module.capitalize().replace("/", "."), module, "conv") for module in modules]
    return (*rules, Rule("fc", "fc", "dense"), Rule("AuxLogits.*", "", "skip"))


def inception_convolution(norm: str) -> tuple[str, str]:
    """Returns the convolution before a batch norm, and the name of both together."""
    unit = norm.removesuffix(".bn")
    return f"{unit}.conv", unit


def efficientnet_convolution(norm: str) -> tuple[str, str]:
    """Returns the convolution before a batch norm, which keeps its name."""
    block, _, number = norm.rpartition("_bn")
    names = ("_expand_conv", "_depthwise_conv", "_project_conv") if block else ("_conv_stem", "_conv_head")
    return (block + names[int(number)],) * 2


def fold(tensors: Tensors, convolution: Callable[[str], tuple[str, str]]) -> dict[str, Any]:
    """Returns the tensors without batch norms; `convolution` says what each comes after, and what both are called then.

    Raises:
      TensorError: if a batch norm or its convolution is not whole.
    """
    out = {name: x for name, x in tensors.items() if not name.endswith(".num_batches_tracked")}
    for norm in [name.removesuffix(".running_var") for name in out if name.endswith(".running_var")]:
        before, name = convolution(norm)
        needed = [f"{norm}.{leaf}" for leaf in ("weight", "bias", "running_mean", "running_var")] + [f"{before}.weight"]
        if missing := [one for one in needed if one not in out]:
            raise TensorError(f"missing: {few(missing)}")
        gain, bias, mean, variance, kernel = (np.asarray(out.pop(one), np.float64) for one in needed)
        gain /= np.sqrt(variance + EPS)
        out[f"{name}.weight"] = (kernel * gain[:, None, None, None]).astype(np.float32)
        out[f"{name}.bias"] = (bias - gain * mean).astype(np.float32)
    return out
