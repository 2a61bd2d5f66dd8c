"""Imagen's first stage at 64x64, with a text encoder that is trained with it.

Paper: Saharia et al. 2022, arXiv 2205.11487, appendix F: width 512 to 2048, three residual blocks a level, attention at
32, 16 and 8 with heads of 64, batches of 2048, Adafactor 1e-4 after 10k steps of warm-up, 2.5M steps, EMA 0.9999, a
tenth without text. The paper reads text with a frozen T5-XXL; here the encoder learns with the network, as in GLIDE.
Hardware: 256 accelerators; TPU v4 in the paper. Time: not measured yet.
Result: FID 7.27 on COCO at 256x256 in the paper; ours not measured yet.
Command: jaxdiff train configs/imagen64.py --data.name DIR --mesh.fsdp 8
"""

import dataclasses

import quickstart

from jaxdiff.data.source import DataConfig
from jaxdiff.experiment import Experiment
from jaxdiff.models.text import TextConfig
from jaxdiff.models.unet import UNetConfig
from jaxdiff.tasks import picture
from jaxdiff.tasks.previews import PreviewConfig
from jaxdiff.training import CheckpointConfig, OptimizerConfig, TrainConfig

TEXT = TextConfig(vocabulary=32_768, length=128, width=2048, layers=24, heads=32, dtype="bfloat16")


def config() -> Experiment:
    net = UNetConfig(
        channels=(512, 1024, 1536, 2048),
        layers=3,
        attention=("none", "joint", "joint", "joint"),
        mid_attention="joint",
        heads=(8, 16, 24, 32),
        scale_shift=True,
        pooled=True,
        context_norm=True,
        remat="blocks",
        dtype="bfloat16",
    )
    return Experiment(
        name="imagen64",
        task=picture.Config(
            process=picture.ProcessConfig(schedule="cosine", prediction="eps"),
            net=net,
            text=TEXT,
            vocabulary=TEXT.vocabulary,
            preview=PreviewConfig(prompts=("a red heart", "two cats on a sofa"), steps=50, guidance=7.5),
        ),
        data=DataConfig(name="data/pairs", size=64),
        optimizer=OptimizerConfig(name="adafactor", lr=1e-4, warmup=10_000, decay="constant"),
        train=TrainConfig(steps=2_500_000, batch_size=2048, log_every=100, preview_every=10_000),
        checkpoint=CheckpointConfig(every=5000),
    )


def small() -> Experiment:
    return on_emoji(config())


def on_emoji(base: Experiment) -> Experiment:
    """The same kind of run in seconds, on emoji, which need no download."""
    made = quickstart.shrunk(base)
    net = dataclasses.replace(made.task.net, dtype="float32", shifted=False, level_layers=())
    text = dataclasses.replace(made.task.text, vocabulary=512, width=32, dtype="float32")  # 32 groups are normed
    task = dataclasses.replace(made.task, net=net, text=text, vocabulary=512)
    data = dataclasses.replace(made.data, name="openmoji", split="all", subset="quickstart")
    return dataclasses.replace(made, task=task, data=data)
