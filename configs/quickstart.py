"""Text to picture in minutes on two CPU cores: 181 simple emoji whose names say what they show.

Paper: Nichol et al. 2021 (GLIDE: text states to cross-attention, pooled state to time), arXiv 2112.10741; x0 prediction
on the cosine schedule with weight min(SNR + 1, 5), after Salimans & Ho 2022, arXiv 2202.00512.
Hardware: 2 CPU cores. Command: jaxdiff train configs/quickstart.py
"""

from jaxdiff.data.source import DataConfig
from jaxdiff.experiment import Experiment, PreviewConfig
from jaxdiff.models.text import TextConfig
from jaxdiff.models.unet import UNetConfig
from jaxdiff.tasks.picture import ProcessConfig
from jaxdiff.training import CheckpointConfig, OptimizerConfig, TrainConfig

PROMPTS = (
    "red heart", "blue heart", "green heart", "yellow heart",
    "red circle", "purple circle", "blue square", "orange square",
    "green book", "blue book", "green apple", "tangerine",
)  # fmt: skip


def config() -> Experiment:
    return Experiment(
        name="quickstart",
        data=DataConfig(name="openmoji", size=32, split="all", subset="quickstart", articles=True),
        process=ProcessConfig(schedule="cosine", prediction="x0", weight="capped_v"),
        unet=UNetConfig(
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
        ema=0.98,
        optimizer=OptimizerConfig(lr=2e-3, warmup=30, b2=0.99),
        train=TrainConfig(steps=750, batch_size=32, log_every=25, preview_every=250),
        checkpoint=CheckpointConfig(every=250),
        preview=PreviewConfig(prompts=PROMPTS, steps=20, guidance=3.0),
    )
