"""unCLIP's decoder at 64x64, of the embeddings that configs/unclip_prior.py imagines.

Paper: Ramesh et al. 2022, arXiv 2204.06125, appendix C: width 512 to 2048, three residual blocks a level, attention at
32, 16 and 8 with heads of 64, a text encoder of 24 blocks of width 2048, batches of 2048, Adam 1.2e-4, 800k steps, EMA
0.9999; a tenth forgets the embedding, half the text. configs/imagen256.py shows how pictures are enlarged.
Hardware: 256 accelerators. Time: not measured yet.
Result: FID 10.39 on COCO at 256x256 in the paper; ours not measured yet.
Command: jaxdiff train configs/unclip64.py --task.clip DIR --data.name DIR --mesh.fsdp 8
"""

from pathlib import Path

import openmoji_unclip

from jaxdiff.data.source import DataConfig
from jaxdiff.experiment import Experiment
from jaxdiff.models.text import TextConfig
from jaxdiff.models.unet import UNetConfig
from jaxdiff.tasks import picture, unclip_decoder
from jaxdiff.tasks.previews import PreviewConfig
from jaxdiff.training import CheckpointConfig, OptimizerConfig, TrainConfig


def config() -> Experiment:
    net = UNetConfig(
        channels=(512, 1024, 1536, 2048),
        layers=3,
        attention=("none", "joint", "joint", "joint"),
        mid_attention="joint",
        heads=(8, 16, 24, 32),
        scale_shift=True,
        adm_resample=True,
        pooled=True,
        addition="image",
        tokens="text_image",
        context_width=2048,
        remat="blocks",
        dtype="bfloat16",
    )
    text = TextConfig(vocabulary=32_768, length=256, width=2048, layers=24, heads=32, dtype="bfloat16")
    return Experiment(
        name="unclip64",
        task=unclip_decoder.Config(
            process=picture.ProcessConfig(schedule="cosine", prediction="eps"),
            net=net,
            text=text,
            vocabulary=text.vocabulary,
            preview=PreviewConfig(prompts=("a red heart", "two cats on a sofa"), steps=50, guidance=3.0),
            prior=Path("runs/unclip_prior"),
        ),
        data=DataConfig(name="data/pairs", size=64),
        optimizer=OptimizerConfig(name="adam", lr=1.2e-4, warmup=1000, decay="constant"),
        train=TrainConfig(steps=800_000, batch_size=2048, log_every=100, preview_every=10_000),
        checkpoint=CheckpointConfig(every=5000),
    )


def small() -> Experiment:
    return openmoji_unclip.shrunk(config())
