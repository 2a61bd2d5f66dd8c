"""A model of quickstart's size, trained by the eps loss or by the bound itself, reports bits/dim that fall."""

import dataclasses
import pathlib

import numpy as np
import pytest

from jaxdiff import data, loading, trainer
from jaxdiff.cli.config import read_config
from jaxdiff.diffusion.process import ProcessConfig
from jaxdiff.diffusion.published import PUBLISHED
from jaxdiff.evaluation.likelihood import bits_per_dim
from jaxdiff.evaluation.pictures import Pictures

QUICKSTART = pathlib.Path(__file__).parents[1] / "configs" / "quickstart.py"


@pytest.mark.heavy
@pytest.mark.parametrize("process", [ProcessConfig(), PUBLISHED["vdm"]], ids=["eps", "vdm"])
def test_bits_per_dim_fall_while_a_model_is_trained(tmp_path, process):
    base = read_config(QUICKSTART)
    task = dataclasses.replace(base.task, process=process)
    config = dataclasses.replace(
        base,
        task=task,
        train=dataclasses.replace(base.train, steps=160, preview_every=0),
        checkpoint=dataclasses.replace(base.checkpoint, every=40, keep=10),
    )
    trainer.run(config, tmp_path)
    source = data.open_source(config.data)
    pictures = Pictures("emoji", (32, 32), 32, lambda i: source[i]["image"])
    bits = []
    for step in (40, 160):
        pipe = loading.load(tmp_path / "checkpoints" / str(step))
        # in the limit of many steps, with the same noise for both
        bits.append(bits_per_dim(pipe, pictures, [""] * 32, steps=0, batch_size=4))
    assert np.isfinite(bits).all()
    first, last = np.mean(bits, axis=1)
    assert last < first
    print(f"{first:.3f} bits/dim after 40 steps, {last:.3f} after 160")
