"""D3PM: numbers that do not fit; its loss is a mean of the bound that is measured."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import keys, pictures

from jaxdiff.data.source import DataConfig
from jaxdiff.models.unet import UNetConfig
from jaxdiff.tasks import d3pm
from jaxdiff.training import OptimizerConfig, Variables

NET = UNetConfig(
    channels=(4,), layers=1, attention=("none",), mid_attention="none", heads=(1,), depth=(1,), groups=2, out_channels=9
)
CONFIG = d3pm.Config(net=NET, levels=3, steps=3, chain="absorbing", auxiliary=0.0)


class Table(d3pm.Config):
    """Says the same of each state."""

    def _logits(self, weights, xt, t, label):
        return jnp.asarray(np.random.default_rng(0).standard_normal((4, 3)), jnp.float32)[xt]


def test_the_loss_is_the_bound_at_a_step_that_is_drawn():
    """Both are means of the same, over 512 copies of a picture of few values; the network is a table."""
    x = jnp.repeat(CONFIG.read(pictures(1, 2)), 512, 0)
    config, weights = Table(**{f.name: getattr(CONFIG, f.name) for f in dataclasses.fields(CONFIG)}), Variables({})

    @jax.jit
    def run(x, one, other):
        return config._bits(weights, x, None, one)[0], config._bits(weights, x, None, other, measured=True)[0]

    loss, bound = (np.asarray(value, np.float64) for value in run(x, keys(512), keys(512, 4)))
    error = np.hypot(loss.std(), bound.std()) / np.sqrt(512)
    assert abs(loss.mean() - bound.mean()) < 4 * error
    assert loss.std() > bound.std()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"net": UNetConfig()}, "task.net.out_channels is 3: expected 9, for 3 channels of 3 levels"),
        ({"classes": 4}, "task.net.labels is 0: expected 4"),
        ({"steps": 1}, "task.steps is 1"),
        ({"auxiliary": -1.0}, "task.auxiliary is -1.0"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **fields).check(DataConfig(size=4), OptimizerConfig())
