"""Networks that say more than a prediction, in the pipeline of all: learned variances, consistency functions."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pipelines import own

from jaxdiff import sampling
from jaxdiff.diffusion import schedule
from jaxdiff.diffusion.process import ProcessConfig
from jaxdiff.models.unet import UNet
from jaxdiff.pipelines.bundles import diffusion_bundle
from jaxdiff.pipelines.diffusion import DiffusionPipeline
from jaxdiff.pipelines.model import make_model
from jaxdiff.pretrained import pixels, scheduler
from jaxdiff.typing import Cond

CONFIGS = {
    "variance": ProcessConfig(times="steps", variance="learned"),
    "consistency": ProcessConfig(objective="consistency_training", schedule="edm", prediction="edm"),
}


def pipeline(says):
    config = CONFIGS[says]
    net = dataclasses.replace(own.FREE, labels=3, out_channels=config.out_channels(3))
    shapes = jax.eval_shape(UNet(net).init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)), jnp.zeros(1), own.cond("class"))
    rng = np.random.default_rng(0)
    draw = lambda x: jnp.asarray(rng.normal(size=x.shape) * 0.3, jnp.float32)
    params = {"unet": jax.tree.map(draw, shapes["params"])}
    process = scheduler.native(
        config.make_schedule(),
        config.prediction,
        config.sampler(),
        config.grid(),
        clip=1.0,
        options=config.options(),
        says=config.says,
    )
    bundle = diffusion_bundle(net, params, process=process, size=8, labels=own.CLASSES)
    return config, net, params, DiffusionPipeline(bundle, devices=jax.devices()[:1])


@pytest.fixture(scope="module")
def made():
    return {says: pipeline(says) for says in CONFIGS}


@pytest.mark.parametrize(("says", "steps"), [("variance", 4), ("consistency", 2)])
def test_pictures_are_those_of_the_process_that_was_trained(made, says, steps):
    config, net, params, pipe = made[says]
    assert pipe.model.channels == 3
    got = pipe(["dog", "cat"], key=jax.random.key(0), steps=steps, guidance=2.0)
    s = config.make_schedule()
    network = lambda params, x, t, cond: UNet(net).apply({"params": params}, x, t, cond)
    denoise = config.denoiser(network, params["unet"], Cond(label=jnp.array([1, 0])), Cond(label=jnp.array([3, 3])))
    table = sampling.make_table(config.sampler(), s, steps, config.grid(), clip=1.0, **config.options())
    table = sampling.with_aux(table, guidance=2.0)
    keys = jax.random.split(jax.random.key(0), 2)
    noise = jnp.stack([jax.random.normal(jax.random.fold_in(key, 2**31 - 1), (8, 8, 3)) for key in keys])
    x = sampling.run(table, denoise, sampling.start(s, table, noise), jax.random.split(jax.random.key(0), 2))
    expected = np.clip(np.asarray(x) * 127.5 + 127.5, 0, 255).round()
    # a number next to a half may round the other way
    assert np.abs(got - expected).max() <= 1
    assert got.std() > 10


def test_other_samplers_leave_a_learned_variance_alone(made):
    *_, pipe = made["variance"]
    plain = pipe(["dog"], key=jax.random.key(0), steps=4, sampler="ddim")
    assert plain.shape == (1, 8, 8, 3)
    own_name = pipe(["dog"], key=jax.random.key(0), steps=4, sampler="ddpm")
    np.testing.assert_array_equal(own_name, pipe(["dog"], key=jax.random.key(0), steps=4))


def test_a_few_step_model_has_one_sampler(made):
    *_, pipe = made["consistency"]
    with pytest.raises(ValueError, match=r"sampler is ddim: this few-step model .* only consistency makes use of that"):
        pipe(["dog"], key=jax.random.key(0), steps=2, sampler="ddim")
    assert [pipe.calls("consistency", n) for n in (1, 2, 4)] == [1, 2, 4]
    assert pipe.calls(None, 3) == 3


def test_a_published_learned_variance_is_half_of_the_output(made):
    _, net, params, _ = made["variance"]
    config = {"_class_name": "DDPMScheduler", "variance_type": "learned_range", "beta_schedule": "squaredcos_cap_v2"}
    process = scheduler.process(config)
    assert (process.says, process.options["variance"]) == ("variance", "learned")
    bundle = diffusion_bundle(net, params, process=process, size=8, labels=own.CLASSES)
    assert make_model(bundle).channels == 3
    fixed = dataclasses.replace(process, says="prediction")
    with pytest.raises(ValueError, match="the unet takes -3 channels besides the 6 of a latent"):
        make_model(dataclasses.replace(bundle, native=fixed))


@pytest.mark.parametrize("variance", ["small", "large", "learned"])
def test_a_variance_is_written_as_a_published_scheduler_names_it(variance):
    net = dataclasses.replace(own.FREE, out_channels=6 if variance == "learned" else 3)
    says = "variance" if variance == "learned" else "prediction"
    process = scheduler.native(schedule.linear(), "eps", "ddpm", options={"variance": variance}, says=says)
    params = {"unet": {"conv_in": {"kernel": np.zeros((3, 3, 3, 8), np.float32)}}}
    written = pixels.published(diffusion_bundle(net, params, process=process, size=8))
    again = scheduler.process(written.schedulers["scheduler"])
    assert (again.options["variance"], again.says) == (variance, says)
