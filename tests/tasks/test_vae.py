"""Variational autoencoders: their bound beside the integral, tighter with more draws; beta and capacity."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import keys, pictures, randomised
from PIL import Image

from jaxdiff import trainer
from jaxdiff.cli.config import read_config
from jaxdiff.data.source import DataConfig
from jaxdiff.evaluation.latents_of import DRAWS, measure
from jaxdiff.models.autoencoder_kl import AutoencoderConfig
from jaxdiff.models.autoencoder_vq import VQConfig
from jaxdiff.tasks import traversal, vae
from jaxdiff.tasks.family import Assets
from jaxdiff.training import Known, OptimizerConfig, Variables

NET = AutoencoderConfig(channels=(4,), layers=1, groups=2, mid_attention=False, latent_channels=1, out_channels=6)
BITS = vae.Config(net=dataclasses.replace(NET, in_channels=1, out_channels=1), grey=True, levels=2, values="bernoulli")


class Toy(vae.Config):
    """x is one of two levels, with logit 3 z - 1, and q(z | x) is a Gaussian that is wrong."""

    def _log_p(self, params, x, z):
        logit = 3 * z - 1
        return jax.nn.log_sigmoid(jnp.where(x == 1, logit, -logit)).reshape(len(x), -1).sum(1)

    def encode(self, params, x):
        return 0.5 * (2.0 * x - 1), jnp.full(x.shape, -0.3)


def test_the_bound_is_below_the_integral_and_tightens_with_draws():
    """Means of 20,000; w itself has the integral as its mean, whatever q is."""
    toy, z = Toy(**{f.name: getattr(BITS, f.name) for f in dataclasses.fields(BITS)}), np.linspace(-8, 8, 4001)
    for level in (0, 1):
        x = jnp.full((20_000, 1, 1, 1), level)
        p = 1 / (1 + np.exp(-(3 * z - 1)))
        integral = np.trapezoid((p if level else 1 - p) * np.exp(-z * z / 2) / np.sqrt(2 * np.pi), z)
        bounds = [np.asarray(jax.jit(toy.bound, static_argnums=3)({}, x, keys(20_000), k)) for k in (1, 2, 8)]
        means = [bound.astype(np.float64).mean() for bound in bounds]
        assert means[0] < means[1] < means[2] < np.log(integral)
        assert means[2] == pytest.approx(np.log(integral), abs=0.05)
        assert np.exp(bounds[0].astype(np.float64)).mean() == pytest.approx(integral, rel=0.02)


def test_beta_and_capacity_count_the_divergence():
    batch, losses = {"image": pictures(2, 4)}, {}
    for name, fields in (("plain", {}), ("beta", {"beta": 4.0}), ("capacity", {"beta": 10.0, "capacity": 2.0})):
        config = vae.Config(net=NET, capacity_steps=100, **fields)
        task = config.task(Assets(4))
        params = randomised(jax.eval_shape(task.init, jax.random.key(0), {}, batch).params, 0.3)
        run = lambda draws, task=task, params=params: task.loss(params, Known({}, {}, {}, 50), batch, draws)[:2]
        losses[name] = jax.device_get(jax.jit(run)(keys(2)))
    value, told = losses["plain"]
    per = 48 * np.log(2)
    assert value == pytest.approx(told["bits"], rel=1e-5) == pytest.approx((told["kl"] - told["log_p"]) / per, rel=1e-5)
    assert losses["beta"][0] == pytest.approx((4 * told["kl"] - told["log_p"]) / per, rel=1e-5)
    assert told["kl"] > 2  # and of each picture more than 1, C at half of the way
    assert losses["capacity"][0] == pytest.approx((10 * (told["kl"] - 1) - told["log_p"]) / per, rel=1e-5)


def test_traversals_move_one_number_of_the_latents_in_a_row():
    """Of a decoder that is the latent itself: row i shows value v at place i, and grey elsewhere."""
    toy = Toy(**{f.name: getattr(BITS, f.name) for f in dataclasses.fields(BITS)} | {"levels": 256})
    object.__setattr__(toy, "decode", lambda params, z: jnp.round((z + 3) * 255 / 6).astype(jnp.int32))
    shown = traversal.preview(toy, 2)(Variables({}), jax.random.key(0))
    assert shown.arrays.shape == (4, 2, 14, 3)
    assert shown.captions[1] == "number 1, -3 to 3"
    expected = np.full((2, 14), 128)
    expected[0, 1::2] = np.round(np.linspace(0, 255, 7))
    np.testing.assert_allclose(shown.arrays[1, :, :, 0], expected, atol=1)


@pytest.mark.heavy
def test_a_run_on_shapes_has_a_tightening_bound_and_scores(tmp_path):
    """And the command that prints them; the numbers of so short a run are not good."""
    path = pathlib.Path(__file__).parents[2] / "configs" / "families" / "beta_vae.py"
    config = read_config(path, small=True)
    trainer.run(config, tmp_path / "run")
    assert Image.open(tmp_path / "run" / "samples" / "traversals" / "000006.png").size[0] > 100
    found = measure(tmp_path / "run", num=32)
    bits = [found[f"bits/dim, {count} draws"] for count in DRAWS]
    assert bits == sorted(bits, reverse=True)
    assert bits[-1] < bits[0] - 1e-4
    assert 0 <= found["MIG"] <= 1
    assert 0 < found["beta-VAE score"] <= 1
    trainer.run(read_config(path.parent / "made.py", small=True), tmp_path / "made")
    with pytest.raises(ValueError, match="is a run of autoregressive: expected one of a VAE"):
        measure(tmp_path / "made")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"net": VQConfig()}, "expected autoencoder_kl"),
        ({"net": dataclasses.replace(NET, out_channels=3)}, "expected 3 and 6, for task.values 'logistic'"),
        ({"net": dataclasses.replace(NET, out_channels=3), "values": "bernoulli"}, "it is of 2 levels"),
        ({"draws": 0}, "task.draws is 0"),
        ({"draws": 2, "beta": 4.0}, "has no beta"),
        ({"beta": float("nan")}, "task.beta is nan"),
        ({"capacity": -1.0}, "task.capacity is -1.0"),
        ({"classes": 2}, "takes no class"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        vae.Config(**{"net": NET, **fields}).check(DataConfig(size=8), OptimizerConfig())
