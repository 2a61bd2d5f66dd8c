"""CLIP ViT-B/32 on pairs of pictures and texts.

Paper: Radford et al. 2021, arXiv 2103.00020, tables 18 to 20: batches of 32,768, 32 epochs of 400M pairs, Adam 5e-4
with b2 0.98 and eps 1e-6, 2000 steps of warm-up, weight decay 0.2; towers of 12 blocks, 768 and 512 wide.
Hardware: 256 accelerators, V100 in the paper. Time: not measured yet.
Result: zero-shot top-1 accuracy of 63.2% on ImageNet in the paper; ours not measured yet.
Command: jaxdiff train configs/clip_vit_b32.py --data.name DIR
"""

import openmoji_clip

from jaxdiff.data.source import DataConfig
from jaxdiff.experiment import Experiment
from jaxdiff.models.image_clip import ClipImageConfig
from jaxdiff.models.text_clip import ClipTextConfig
from jaxdiff.tasks import clip
from jaxdiff.training import CheckpointConfig, OptimizerConfig, TrainConfig


def config() -> Experiment:
    return Experiment(
        name="clip_vit_b32",
        task=clip.Config(
            image=ClipImageConfig(patch=32, width=768, mlp=3072, layers=12, heads=12, projection=512, dtype="bfloat16"),
            text=ClipTextConfig(width=512, mlp=2048, layers=12, heads=8, projection=512, end=None, dtype="bfloat16"),
        ),
        data=DataConfig(name="data/pairs", size=224),
        optimizer=OptimizerConfig(lr=5e-4, warmup=2000, b2=0.98, eps=1e-6, weight_decay=0.2),
        train=TrainConfig(steps=390_625, batch_size=32_768, log_every=100),
        checkpoint=CheckpointConfig(every=2000),
    )


def small() -> Experiment:
    return openmoji_clip.shrunk(config())
