"""Every objective, trained on a mixture of Gaussians: its loss, and its samples, against what is exactly right."""

import dataclasses

import jax
import numpy as np
import pytest
from toy import draw, init, known, network, perfect, same_distribution, sample, train

from jaxdiff.diffusion.process import ProcessConfig
from jaxdiff.diffusion.published import PUBLISHED
from jaxdiff.typing import Cond

# name -> (config, training steps, sampling steps); points have no levels, and ancestral sampling wants many steps
TRAINED = {
    "edm": (PUBLISHED["edm"], 600, 20),
    "ddpm": (PUBLISHED["ddpm"], 1500, 250),
    "improved_ddpm": (dataclasses.replace(PUBLISHED["improved_ddpm"], bins=0), 1500, 250),
    "improved_ddpm_importance": (dataclasses.replace(PUBLISHED["improved_ddpm_importance"], bins=0), 1500, 250),
    "ncsn": (dataclasses.replace(PUBLISHED["ncsn"], sigma_max=10.0, steps=30), 1500, 40),
    "score_sde_ve": (PUBLISHED["score_sde_ve"], 1500, 40),
    "score_sde_vp": (PUBLISHED["score_sde_vp"], 1500, 40),
    "score_sde_sub_vp": (PUBLISHED["score_sde_sub_vp"], 1500, 40),
    "flow_matching": (PUBLISHED["flow_matching"], 1500, 40),
    "flow_matching_ot": (PUBLISHED["flow_matching_ot"], 600, 40),
    "rectified_flow": (PUBLISHED["rectified_flow"], 1500, 40),
    "mode": (dataclasses.replace(PUBLISHED["rectified_flow"], times="mode", prediction="v"), 1500, 40),
    "simple_diffusion": (PUBLISHED["simple_diffusion"], 1500, 40),
    "zero_terminal_v": (PUBLISHED["zero_terminal_v"], 1500, 40),
    "x0": (ProcessConfig(prediction="x0", weight="capped_v"), 1500, 40),
}


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n == "edm" else pytest.mark.heavy) for n in TRAINED])
def test_a_trained_network_has_the_least_loss_and_the_samples_of_the_data(name):
    config, steps, sampled = TRAINED[name]
    config.check()
    s = config.make_schedule()
    net = network(s, config.prediction)
    params, _, _ = train(config, net, init(jax.random.key(0), config.out_channels(2)), {}, jax.random.key(1), steps)

    # the error of the prediction at uniform steps, whatever was drawn in training, and beside a learned variance
    times = "steps" if config.times == "importance" else config.times
    held_out = dataclasses.replace(config, variance="small", times=times, bins=256, coupling="independent")
    x0, keys = draw(jax.random.key(9), 8192), jax.random.split(jax.random.key(10), 8192)
    predicted = lambda *given: net(*given)[:, :2]
    loss = lambda network: jax.jit(lambda p: held_out.loss(network)(p, known(), x0, Cond(), keys)[0])(params)
    if config.coupling == "independent":
        assert 0.99 < float(loss(predicted)) / float(loss(perfect(s, config.prediction))) < 1.02

    points = sample(config, s, net, params, 400, sampled, jax.random.key(5))
    assert same_distribution(points, np.asarray(draw(jax.random.key(11), 400))) > 0.01
