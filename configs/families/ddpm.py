"""A diffusion model of emoji, 32x32, beside the other families: the network of d3pm.py on continuous pixels.

Paper: Ho et al. 2020, arXiv 2006.11239: FID 3.17 and 3.75 bits/dim on CIFAR-10; cosine schedule of Nichol and Dhariwal
2021, arXiv 2102.09672; prediction and weight as in quickstart.py.
Hardware: 2 CPU cores. Time and result: docs/families.md.
Command: jaxdiff train configs/families/ddpm.py
"""

import dataclasses

from d3pm import config as d3pm
from pixelcnn import config as pixelcnn
from pixelcnn import shrunk

from jaxdiff.diffusion.process import ProcessConfig
from jaxdiff.experiment import Experiment
from jaxdiff.tasks import picture
from jaxdiff.tasks.previews import PreviewConfig


def config() -> Experiment:
    task = picture.Config(
        process=ProcessConfig(schedule="cosine", prediction="x0", weight="capped_v"),
        net=dataclasses.replace(d3pm().task.net, out_channels=3),
        condition="none",
        drop=0.0,
        preview=PreviewConfig(prompts=("",) * 16, guidance=1.0),
    )
    return dataclasses.replace(pixelcnn(), name="ddpm", task=task)


def small() -> Experiment:
    base = config()
    net = dataclasses.replace(
        base.task.net,
        channels=(4,),
        attention=("none",),
        mid_attention="none",
        heads=(1,),
        depth=(1,),
        groups=2,
    )
    preview = dataclasses.replace(base.task.preview, prompts=("",) * 2, steps=2)
    return shrunk(base, net=net, preview=preview)
