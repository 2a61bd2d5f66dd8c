"""A discrete VAE: its bound beside enumeration, its schedules, what it gives the next stage, what is refused."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import keys, pictures, randomised

from jaxdiff.data.source import DataConfig
from jaxdiff.models.autoencoder_dvae import DVAEConfig
from jaxdiff.models.unet import UNetConfig
from jaxdiff.objectives import discrete
from jaxdiff.pretrained.read import read_component
from jaxdiff.pretrained.write import write_directory
from jaxdiff.tasks import dvae
from jaxdiff.tasks.first_stage import Assets
from jaxdiff.training import Known, OptimizerConfig, Variables

NET = DVAEConfig(channels=(8, 8), layers=1, codes=3, embedding=4)
CONFIG = dvae.Config(net=NET, temperature_steps=10, kl=2.0, kl_steps=5, previews=0)
SIZE = 4
NOTHING = Assets(SIZE, np.zeros((0, SIZE, SIZE, 3), np.uint8))


@pytest.fixture(scope="module")
def made():
    """The task, weights, a batch of one picture of 4x4 with 2x2 codes of 3, and all 81 codes."""
    task = CONFIG.task(NOTHING)
    batch = {"image": pictures(1, SIZE)}
    shapes = jax.eval_shape(task.init, jax.random.key(0), {}, batch)
    params = randomised(shapes.params, 0.3)
    codes = np.array(list(itertools.product(range(3), repeat=4))).reshape(-1, 2, 2)
    return task, params, batch, codes


@pytest.fixture(scope="module")
def enumerated(made):
    """log p(x | z) and q(z | x) of all codes z, by themselves."""
    _, params, batch, codes = made
    apply = lambda method, x: NET.build().apply({"params": params}, x, method=method)

    @jax.jit
    def run(image):
        x = image.astype(jnp.float32) / 127.5 - 1
        logits = apply("encode", x)
        m, log_b = apply("pixels", jax.nn.one_hot(codes, 3))
        return logits, discrete.logit_laplace(m, log_b, jnp.broadcast_to(discrete.inside(x), m.shape)).sum((1, 2, 3))

    logits, log_p = (np.asarray(x, np.float64) for x in run(batch["image"]))
    q = np.exp(logits - np.log(np.exp(logits).sum(-1, keepdims=True)))[0]
    chosen = np.take_along_axis(q[None], codes[..., None], -1)[..., 0].prod((1, 2))
    assert chosen.sum() == pytest.approx(1)
    return log_p, chosen, q


def test_the_bound_is_that_of_enumeration_and_below_the_likelihood(made, enumerated):
    task, params, batch, _ = made
    log_p, q, each = enumerated
    bound = (q * log_p).sum() - (q * np.log(q * 81)).sum()
    evidence = np.log(np.exp(log_p - log_p.max()).mean()) + log_p.max()
    assert bound < evidence
    many = {"image": jnp.repeat(batch["image"], 4000, 0)}
    bits, told, _ = jax.jit(lambda p, b, k: task.held_out(p, Known({}, {}, {}, 0), b, k))(params, many, keys(4000))
    spread = np.sqrt((q * log_p**2).sum() - (q * log_p).sum() ** 2)
    nats = -float(bits) * 48 * np.log(2)
    assert nats == pytest.approx(bound, abs=4 * spread / np.sqrt(4000) + 1e-3)
    assert spread > 0.1, "codes matter"
    assert float(told["kl"]) == pytest.approx(np.log(3) + (each * np.log(each)).sum(-1).mean(), rel=1e-4)


def test_the_loss_follows_both_schedules(made):
    """Of one key at two steps: what differs is the temperature and the weight of the KL."""
    task, params, batch, _ = made
    run = jax.jit(lambda step: task.loss(params, Known({}, {}, {}, step), batch, keys(1)))
    for step, temperature, weight in ((0, 1.0, 0.0), (5, 17 / 32, 2.0), (99, 1 / 16, 2.0)):
        loss, told, _ = run(step)
        assert (float(told["temperature"]), float(told["kl_weight"])) == pytest.approx((temperature, weight), abs=1e-6)
        assert float(loss) == pytest.approx(float(weight * told["kl"] * 4 / 48 - told["log_p"]), rel=1e-5)


def test_the_least_scale_is_that_of_the_config(made):
    """The loss of two configs differs by what the likelihood of the same relaxed codes does."""
    _, params, batch, _ = made
    apply = lambda method, x: NET.build().apply({"params": params}, x, method=method)
    x, found = batch["image"].astype(jnp.float32) / 127.5 - 1, {}
    z = jax.nn.softmax(discrete.perturbed(apply("encode", x), keys(1)))
    for least in (-5.0, 1.0):
        task = dataclasses.replace(CONFIG, log_scale=least).task(NOTHING)
        loss, *_ = jax.jit(lambda k, loss=task.loss: loss(params, Known({}, {}, {}, 0), batch, k))(keys(1))
        expected = discrete.logit_laplace(*apply("pixels", z), discrete.inside(x), least).mean()
        assert float(loss) == pytest.approx(-float(expected), rel=1e-4)
        found[least] = float(loss)
    assert abs(found[1.0] - found[-5.0]) > 0.1


def test_likeliest_codes_are_what_evaluation_looks_at(made):
    task, params, batch, _ = made
    _, told, stats = jax.jit(lambda k: task.held_out(params, Known({}, {}, {}, 0), batch, k))(keys(1))
    x = batch["image"].astype(jnp.float32) / 127.5 - 1
    run = jax.jit(lambda method, x: NET.build().apply({"params": params}, x, method=method), static_argnums=0)
    index, picture = run("index", x), run("picture", run("index", x))
    np.testing.assert_array_equal(picture, run("__call__", x))
    error = ((np.clip(np.round((np.asarray(picture) + 1) * 127.5), 0, 255) - np.asarray(batch["image"])) ** 2).mean()
    assert float(told["psnr"]) == pytest.approx(10 * np.log10(255**2 / error), abs=0.05)
    np.testing.assert_array_equal(stats["chosen"], np.bincount(np.asarray(index).reshape(-1), minlength=3))
    summary = task.summary({"chosen": np.array([2.0, 2.0, 0.0])})
    assert summary == pytest.approx({"usage": 2 / 3, "perplexity": 2.0})


def test_it_is_written_and_read_back(made, tmp_path):
    _, params, _, _ = made
    write_directory(CONFIG.bundle(NOTHING, Variables(params)), tmp_path / "out")
    part = read_component(tmp_path / "out" / "dvae")
    assert (part.kind, part.config) == ("DiscreteVAE", NET)
    jax.tree.map(np.testing.assert_array_equal, part.params, params)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"net": UNetConfig()}, "task.net is a UNetConfig: expected autoencoder_dvae"),
        ({"temperature_end": 0.0}, "temperature is 1.0 and task.temperature_end 0.0"),
        ({"temperature_end": 2.0}, "not above the former"),
        ({"temperature": 11.0}, "at most 10"),
        ({"temperature": float("nan")}, "task.temperature is nan"),
        ({"kl": -1.0}, "task.kl is -1.0"),
        ({"log_scale": float("nan")}, "task.log_scale is nan"),
        ({"kl_steps": 0}, "task.kl_steps is 0"),
        ({"net": dataclasses.replace(NET, codes=1)}, "codes is 1"),
        ({"net": dataclasses.replace(NET, channels=(8, 2))}, "expected a width of at least 4"),
        ({"net": dataclasses.replace(NET, channels=(8,) * 4)}, "must be multiples of 8"),
    ],
)
def test_what_does_not_fit_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **fields).check(DataConfig(size=4), OptimizerConfig())
