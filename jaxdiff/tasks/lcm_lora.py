"""LCM-LoRA: the student of latent consistency distillation as a LoRA, which makes fine-tunes of its base fast too.

It is sampled with `--model BASE --lora RUN --sampler lcm --guidance 1`, or as the run itself.

Source: Luo et al. 2023, arXiv 2311.05556.
"""

import dataclasses

from jaxdiff.tasks import lora
from jaxdiff.tasks.lcm import Consistency
from jaxdiff.tasks.lora import Part


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Consistency, lora.Config):
    """LCM-LoRA; its weights are by default those of the published ones."""

    parts: tuple[Part, ...] = ("attention", "feed_forward", "projections", "convolutions", "time")
    rank: int = 64
