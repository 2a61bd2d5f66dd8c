"""A model of a few thousand parameters, which has learned nothing."""

import jax
import numpy as np

from jaxdiff.models.text import TextConfig
from jaxdiff.models.unet import UNetConfig
from jaxdiff.pipelines.text_to_image import Pipeline
from jaxdiff.tasks.picture import Model, ProcessConfig, make_task


def pipeline(scale=1.0, schedule="cosine"):
    """With weights drawn at random, times `scale`; at 0, it says that every picture is grey."""
    net = UNetConfig(
        channels=(8,), layers=1, attention=("none",), mid_attention="none", heads=(1,), depth=(1,), groups=4
    )
    model = Model(ProcessConfig(schedule, "x0", condition="none"), net, TextConfig(), 8)
    shapes = jax.eval_shape(make_task(model).init, jax.random.key(0))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: np.float32(scale * 0.5) * rng.standard_normal(x.shape, np.float32), shapes)
    return Pipeline(model, params, spec="pmap")
