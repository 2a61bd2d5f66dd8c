"""unCLIP of emoji at 32x32: a decoder of the embeddings of configs/openmoji_clip.py, which its prior imagines.

Paper: Ramesh et al. 2022, arXiv 2204.06125, section 2.1, in small; a tenth forgets the embedding, half the text.
Hardware: one CPU core. Time: 26 minutes, after 13 for both before it. Result: docs/unclip.md.
Command: jaxdiff train configs/openmoji_clip.py && jaxdiff train configs/openmoji_prior.py && jaxdiff train
  configs/openmoji_unclip.py && jaxdiff sample --model runs/openmoji_unclip --prompt "red heart"
  (variations of a picture: --picture FILE)
"""

import dataclasses
from pathlib import Path

import quickstart

from jaxdiff.experiment import Experiment
from jaxdiff.models.text import TextConfig
from jaxdiff.tasks import unclip_decoder
from jaxdiff.training import CheckpointConfig, OptimizerConfig, TrainConfig


def config() -> Experiment:
    base = quickstart.config()
    net = dataclasses.replace(
        base.task.net, channels=(32, 64, 96), heads=(1, 2, 3), addition="image", tokens="text_image", context_width=96
    )
    task = unclip_decoder.Config(
        process=base.task.process,
        net=net,
        text=TextConfig(vocabulary=1024, length=16, width=96, layers=2, heads=3),
        vocabulary=1024,
        preview=base.task.preview,
        clip=Path("runs/openmoji_clip"),
        prior=Path("runs/openmoji_prior"),
    )
    return dataclasses.replace(
        base,
        name="openmoji_unclip",
        task=task,
        data=dataclasses.replace(base.data, split="train", subset="plain"),
        held_out="test",
        ema=0.998,
        optimizer=OptimizerConfig(lr=1e-3, warmup=100, b2=0.99),
        train=TrainConfig(steps=3000, batch_size=32, log_every=25, preview_every=1000),
        checkpoint=CheckpointConfig(every=500),
    )


def small() -> Experiment:
    return shrunk(config())


def shrunk(base: Experiment) -> Experiment:
    """The same kind of run in seconds, on small runs of openmoji_clip and openmoji_prior."""
    made = quickstart.shrunk(base)
    net = dataclasses.replace(made.task.net, context_width=8, dtype="float32")
    text = dataclasses.replace(made.task.text, vocabulary=512, dtype="float32")
    runs = {"clip": Path("runs/openmoji_clip-small"), "prior": Path("runs/openmoji_prior-small")}
    task = dataclasses.replace(made.task, net=net, text=text, vocabulary=512, **runs)
    return dataclasses.replace(made, task=task, data=dataclasses.replace(made.data, name="openmoji", subset="plain"))
