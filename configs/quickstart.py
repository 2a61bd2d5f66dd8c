"""Text to picture in minutes on two CPU cores: 181 simple emoji whose names say what they show.

Paper: Nichol et al. 2021 (GLIDE: text states to cross-attention, pooled state to time), arXiv 2112.10741; x0 prediction
on the cosine schedule with weight min(SNR + 1, 5), after Salimans & Ho 2022, arXiv 2202.00512.
Hardware: 2 CPU cores. Time: 5 minutes. Result: pictures that follow their prompts (docs/quickstart.png, docs/sweep.md).
Command: jaxdiff train configs/quickstart.py
"""

import dataclasses

from jaxdiff.data.source import DataConfig
from jaxdiff.experiment import Experiment
from jaxdiff.models.text import TextConfig
from jaxdiff.models.unet import UNetConfig
from jaxdiff.tasks import picture
from jaxdiff.tasks.picture import ProcessConfig
from jaxdiff.tasks.previews import PreviewConfig
from jaxdiff.training import CheckpointConfig, OptimizerConfig, TrainConfig

PROMPTS = (
    "red heart", "blue heart", "green heart", "yellow heart",
    "red circle", "purple circle", "blue square", "orange square",
    "green book", "blue book", "green apple", "tangerine",
)  # fmt: skip


def config() -> Experiment:
    return Experiment(
        name="quickstart",
        task=picture.Config(
            process=ProcessConfig(schedule="cosine", prediction="x0", weight="capped_v"),
            net=UNetConfig(
                channels=(32, 64, 64),
                layers=1,
                attention=("none", "cross", "cross"),
                mid_attention="cross",
                heads=(2, 2, 2),
                depth=(1, 1, 1),
                patch=2,
                groups=8,
                pooled=True,
            ),
            text=TextConfig(vocabulary=512, length=16, width=64, layers=2, heads=2),
            vocabulary=512,
            preview=PreviewConfig(prompts=PROMPTS, steps=20, guidance=3.0),
        ),
        data=DataConfig(name="openmoji", size=32, split="all", subset="quickstart", articles=True),
        ema=0.98,
        optimizer=OptimizerConfig(lr=2e-3, warmup=30, b2=0.99),
        train=TrainConfig(steps=750, batch_size=32, log_every=25, preview_every=250),
        checkpoint=CheckpointConfig(every=250),
    )


def small() -> Experiment:
    return shrunk(config())


def shrunk(base: Experiment) -> Experiment:
    """The same kind of run as `base` in seconds: pictures of 16x16, one level of 8 channels, six steps."""
    attention = next((kind for kind in base.task.net.attention if kind != "none"), "none")
    net = dataclasses.replace(
        base.task.net,
        channels=(8,),
        layers=1,
        attention=(attention,),
        mid_attention="none",
        heads=(2,),
        depth=(1,),
        patch=4,
        groups=4,
    )
    text = dataclasses.replace(base.task.text, length=8, width=8, layers=1, heads=2)
    preview = dataclasses.replace(base.task.preview, prompts=base.task.preview.prompts[:2], steps=2)
    return dataclasses.replace(
        base,
        name=f"{base.name}-small",
        task=dataclasses.replace(base.task, net=net, text=text, preview=preview),
        data=dataclasses.replace(base.data, size=16),
        optimizer=dataclasses.replace(base.optimizer, warmup=0),
        train=dataclasses.replace(base.train, steps=6, batch_size=8, log_every=1, preview_every=3),
        checkpoint=dataclasses.replace(base.checkpoint, every=3),
    )
