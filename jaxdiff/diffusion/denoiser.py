"""A network as the denoiser that samplers call, by what its output says.

    says         the network's output                        the denoiser
    prediction   what `prediction` describes                 x0
    variance     the same, and v for each number             x0, and this step's deviation (`variance`)
    consistency  F of a consistency function                 the start of the trajectory (`distill`)

Training writes it down (`ProcessConfig.says`), and published schedulers tell it (`variance_type`).
"""

from typing import Any, Literal

from jaxdiff.diffusion import distill, guidance, prediction, variance
from jaxdiff.diffusion.schedule import Schedule
from jaxdiff.typing import Cond, Denoise, LearnedDenoise, Network

Says = Literal["prediction", "variance", "consistency"]


def make(
    network: Network,
    params: Any,
    cond: Cond,
    null: Cond | None,
    schedule: Schedule,
    kind: str,
    says: Says = "prediction",
) -> Denoise | LearnedDenoise:
    """(x_t, t, aux) -> x0 in float32, or an `Estimate` where the variance is learned and the sampler asks for it.

    Args:
      network: a function of `params`.
      params: the network's.
      cond: what to show.
      null: what to keep away from, by `aux["guidance"]`; None: no guidance.
      schedule: the process.
      kind: what the network outputs (`prediction.KINDS`).
      says: what else it says.

    Raises:
      ValueError: as `prediction.denoiser`.
    """
    if says == "consistency":
        mapped = lambda cond: distill.consistency_function(network, params, cond, schedule)
        return mapped(cond) if null is None else guidance.contrast(mapped(cond), mapped(null))
    if says == "variance":
        return variance.learned_denoiser(network, params, cond, schedule, kind, null)
    if null is None:
        return prediction.denoiser(network, params, cond, schedule, kind)
    return guidance.classifier_free(network, params, cond, null, schedule, kind)
