"""Autoregressive models: probabilities of all pictures sum to 1, and samples come as often as they say."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import every, keys, pictures, randomised

from jaxdiff.models.made import MadeConfig
from jaxdiff.models.pixelcnn import PixelCNNConfig
from jaxdiff.objectives import likelihood
from jaxdiff.tasks import autoregressive
from jaxdiff.tasks.family import Assets
from jaxdiff.training import Known, Variables

PIXELCNN = PixelCNNConfig(width=6, layers=2, reach=1, head=6)
BITS = autoregressive.Config(net=PIXELCNN, levels=2)
CASES = {
    "pixelcnn": (BITS, (1, 1, 3)),
    "made": (dataclasses.replace(BITS, net=MadeConfig(hidden=(8,), order=(2, 0, 1))), (1, 1, 3)),
    "mixture": (dataclasses.replace(BITS, values="logistic_mixture", mixtures=2, levels=3), (1, 1, 3)),
    "rows": (dataclasses.replace(BITS, grey=True), (3, 1, 1)),
}


@pytest.mark.parametrize("case", CASES)
def test_probabilities_sum_to_one_and_samples_come_as_often_as_they_say(case):
    config, shape = CASES[case]
    x = every(config.levels, shape)
    module = config._network(shape)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, *shape)))["params"]
    weights = Variables(randomised(shapes, 0.7))

    @jax.jit
    def run(draws):
        log_p = -config._bits(weights, x, None, keys(len(x)))[0] * 3 * np.log(2)
        return log_p, config._draw(weights, {"temperature": jnp.float32(1)}, draws, None, shape)

    log_p, drawn = jax.device_get(run(keys(4000)))
    p = np.exp(log_p.astype(np.float64))
    assert p.sum() == pytest.approx(1, abs=1e-5)
    assert p.std() > 0.01 / len(p), "it says something"
    seen = (drawn.reshape(4000, 1, -1) == x.reshape(1, len(x), -1)).all(-1).sum(0)
    assert seen.sum() == 4000
    chi2 = ((seen - 4000 * p) ** 2 / (4000 * p))[p > 1e-3].sum()
    assert chi2 < 2.2 * len(x) + 10  # of a right sampler, its mean is the number of pictures less one


def test_a_low_temperature_draws_the_most_likely_level():
    logits = jnp.array([0.0, 1.0, 0.9])
    draw = jax.vmap(lambda key: likelihood.draw_categorical(key, logits, jnp.float32(1e-3)))
    assert set(np.asarray(draw(keys(50))).ravel()) == {1}


def test_the_loss_is_bits_per_dim_of_the_levels():
    """With outputs of zero every level is as likely: log2 of their number."""
    config = autoregressive.Config(net=MadeConfig(hidden=(4,)), levels=5, classes=2)
    start = config.task(Assets(4, ("a", "b"))).init
    batch = {"image": pictures(2), "label": jnp.array([0, 1])}
    zero = jax.tree.map(lambda x: jnp.zeros(x.shape), jax.eval_shape(start, jax.random.key(0), {}, batch).params)
    loss = config.task(Assets(4, ("a", "b"))).loss(zero, Known({}, {}, {}, 0), batch, keys(2))[0]
    assert loss == pytest.approx(np.log2(5), rel=1e-6)
