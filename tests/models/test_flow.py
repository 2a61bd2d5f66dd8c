"""Bijections: inverses, determinants against the Jacobian, ActNorm's first batch, densities that integrate to 1."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import keys, pictures, randomised
from scipy import stats

from jaxdiff import parallel, training
from jaxdiff.data.source import DataConfig
from jaxdiff.models import bijectors, flow_layers, transforms
from jaxdiff.models.flow import FlowConfig
from jaxdiff.models.unet import UNetConfig
from jaxdiff.parallel import MeshSpec
from jaxdiff.tasks import flow
from jaxdiff.tasks.family import Assets
from jaxdiff.training import Known, OptimizerConfig, Variables

SHAPE = (2, 2, 2)
NET = FlowConfig(scales=1, steps=1, width=4, bins=3)
FAMILIES = (
    "glow",
    "maf",
    *(pytest.param(name, marks=pytest.mark.heavy) for name in ("nice", "realnvp", "spline", "iaf")),
)
TRANSFORMS = {"additive": transforms.additive(), "affine": transforms.affine(), "spline": transforms.spline(4, 3.0)}


def flow_of(family, cond):
    made = dataclasses.replace(NET, family=family).bijector(SHAPE)
    shapes = jax.eval_shape(made.init, jax.random.key(0), jnp.zeros((2, *SHAPE)), cond)
    return made, randomised(shapes, 0.2)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_flow_is_inverted_and_its_determinant_is_that_of_the_jacobian(family):
    cond = None if family in ("maf", "iaf") else jnp.ones((2, 1, 1, 3))
    made, params = flow_of(family, cond)

    @jax.jit
    def run(x):
        one = None if cond is None else cond[:1]
        own = jax.vmap(jax.jacobian(lambda x: made.forward(params, x[None], one)[0][0]))(x).reshape(2, 8, 8)
        z, det = made.forward(params, x, cond)
        back, other = made.inverse(params, z, cond)
        return z, det, back, other, jnp.linalg.slogdet(own)[1]

    x = jax.random.normal(jax.random.key(1), (2, *SHAPE))
    z, det, back, other, expected = run(x)
    assert z.shape == (2, 8)
    np.testing.assert_allclose(back, x, atol=1e-5)
    np.testing.assert_allclose(det, expected, atol=1e-4)
    np.testing.assert_allclose(other, -det, atol=1e-4)
    assert np.abs(det).min() > 1e-3


def test_batch_norm_is_a_bijection_and_in_training_by_the_moments_of_the_batch():
    """By hand: the inverse, the determinant, the rule that moves the averages, and the gradient through the moments."""
    of, rng = flow_layers.batch_norm(), np.random.default_rng(0)
    x = jnp.asarray(3 + 2 * rng.standard_normal((6, 2, 3, 2)), jnp.float32)

    @jax.jit
    def run(x):
        params = of.init(jax.random.key(0), x, None)
        z, det = of.forward(params, x, None)
        other = jax.tree.map(lambda average: average + 1.0, params)
        learn = lambda scale: of.learn(other, scale * x, None, lambda own: own)[:2]
        return z, det, of.inverse(params, z, None), learn(1.0), jax.jacobian(learn)(1.0)

    z, det, (back, other), learned, moved = run(x)
    np.testing.assert_allclose(z.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(z.std((0, 1, 2)), 1, atol=1e-4)
    np.testing.assert_allclose(det, -6 * np.log(np.sqrt(x.var((0, 1, 2)) + 1e-4)).sum(), rtol=1e-5)
    np.testing.assert_allclose(back, x, atol=1e-5)
    np.testing.assert_allclose(other, -det)
    np.testing.assert_allclose(learned[0], z, atol=1e-5)  # whatever the averages are
    np.testing.assert_allclose(moved[0], 0, atol=1e-3)  # however x is scaled, but for what is added to the variance
    np.testing.assert_allclose(moved[1], -2 * 3 * 2, rtol=1e-3)


BATCHED = flow.Config(net=dataclasses.replace(NET, family="realnvp", norm="batch"), levels=4, memory=0.75, previews=0)


def test_averages_of_batch_norm_are_those_of_the_averaged_weights():
    task, batch = BATCHED.task(Assets(4)), {"image": pictures(4, 4)}
    start = jax.eval_shape(lambda key: task.init(key, {}, batch), jax.random.key(0))
    assert set(start.extra["flow"]["first"]) == {"norm_0", "channel_norm_0"}
    assert bijectors.MOVING not in str(jax.tree.structure(start.params))
    params, average, extra = randomised(start.params), randomised(start.params, seed=2), randomised(start.extra)
    told = {"image": pictures(8, 4)[4:]}

    @jax.jit
    def run(average, draws, again):
        loss, _, moments = task.loss(params, Known({}, extra, average, 0), told, draws)
        return loss, moments, task.held_out(average, Known({}, moments, average, 0), told, again)[0]

    loss, moments, measured = run(average, keys(4), keys(4))
    assert float(loss) != pytest.approx(float(measured), abs=1e-3)
    same, _, measured = run(params, keys(4), keys(4))
    np.testing.assert_allclose(same, loss, rtol=1e-5)
    np.testing.assert_allclose(measured, loss, rtol=1e-5)  # averages that are the moments of this batch
    after = task.absorb(extra, moments)["flow"]["first"]["norm_0"]["moving"]["mean"]
    u = jax.vmap(lambda key: jax.random.uniform(key, (4, 4, 3)))(keys(4))
    y = 0.05 + 0.9 * (np.asarray(BATCHED.read(told["image"])) + np.asarray(u)) / 4
    own = (np.log(y) - np.log1p(-y)).mean((0, 1, 2))
    expected = 0.75 * np.asarray(extra["flow"]["first"]["norm_0"]["moving"]["mean"]) + 0.25 * own
    np.testing.assert_allclose(after, expected, rtol=1e-4)
    with pytest.raises(ValueError, match=r"batch_size is 1: moments of a batch need two"):
        BATCHED.check_batch(1, 1)
    with pytest.raises(ValueError, match=r"accumulate is 2: the moments .* are of the whole batch"):
        BATCHED.check_batch(8, 2)
    BATCHED.check_batch(2, 1)
    flow.Config(net=NET).check_batch(1, 1)


@functools.cache
def stepped(spec, devices):
    """The loss and the gradient of one step, and the averages after it."""
    task, batch = BATCHED.task(Assets(4), spec), {"image": np.asarray(pictures(8, 4))}
    shapes = jax.eval_shape(BATCHED.task(Assets(4)).init, jax.random.key(0), {}, batch)
    params, extra = randomised(shapes.params), randomised(shapes.extra)
    task = dataclasses.replace(task, init=lambda key, loaded, data: Variables(params, extra=extra))
    sgd = OptimizerConfig(name="sgd", lr=1.0, decay="constant", clip=0.0, weight_decay=0.0)
    optimizer = training.make_optimizer(sgd, 1)
    program = parallel.compile(
        functools.partial(training.make_train_step, task, optimizer, training.make_ema(0.9)),
        training.make_init_state(task, optimizer),
        {},
        batch,
        spec,
        devices=jax.devices()[:devices],
    )
    keys = program.keys(jax.random.key(1), 0, 8)
    state, metrics = program.step(program.init(jax.random.key(0)), program.put(batch), keys)
    return jax.device_get((metrics["loss"], jax.tree.map(jnp.subtract, params, state.params), state.extra))


@pytest.mark.heavy
@pytest.mark.parametrize("spec", ["pmap", MeshSpec()])
def test_moments_are_those_of_the_batch_however_devices_split_it(spec):
    there, here = stepped(spec, 4), stepped(MeshSpec(), 1)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), there, here)
    assert max(np.abs(slope).max() for slope in jax.tree.leaves(here[1])) > 0.1


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms_are_monotone_inverted_and_start_as_the_identity(name):
    of = TRANSFORMS[name]
    x = jnp.linspace(-4, 4, 101)
    p = jnp.broadcast_to(jax.random.normal(jax.random.key(1), (of.outputs,)), (101, of.outputs))

    @jax.jit
    def run(x):
        y, log_slope = of.forward(x, p)
        slope = jax.vmap(jax.grad(lambda x: of.forward(x, p[0])[0]))(x)
        return y, log_slope, slope, *of.inverse(y, p), of.forward(x, 0 * p)[0]

    y, log_slope, slope, back, other, same = run(x)
    np.testing.assert_allclose(log_slope, jnp.log(slope), atol=1e-5)
    np.testing.assert_allclose(back, x, atol=1e-5)
    np.testing.assert_allclose(other, -log_slope, atol=1e-4)
    assert (np.diff(y) > 0).all()
    np.testing.assert_allclose(same, x, atol=1e-5)


def test_actnorm_starts_from_the_first_batch():
    part = flow_layers.actnorm()
    x = 3 * jax.random.normal(jax.random.key(0), (64, 2, 2, 3)) + jnp.array([1.0, -5.0, 0.0])[None, None, None]
    z, _ = part.forward(part.init(jax.random.key(1), x, None), x, None)
    np.testing.assert_allclose(z.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(z.std((0, 1, 2)), 1, atol=1e-4)


def test_a_1x1_convolution_starts_as_a_rotation():
    part = flow_layers.invertible_1x1(5, 3)
    x = jax.random.normal(jax.random.key(0), (2, 1, 1, 5))
    z, det = part.forward(part.init(jax.random.key(1), x, None), x, None)
    np.testing.assert_allclose((z**2).sum(-1), (x**2).sum(-1), rtol=1e-5)
    np.testing.assert_allclose(det, 0, atol=1e-5)


@pytest.mark.parametrize("prior", ["gaussian", "logistic"])
@pytest.mark.parametrize("transform", ["affine", "spline"])
def test_a_flow_of_one_number_integrates_to_one(prior, transform):
    """By the trapezoid rule over the pictures' range, to the mass that its ends leave to it."""
    of, density = TRANSFORMS[transform], {"gaussian": bijectors.log_normal, "logistic": bijectors.log_logistic}[prior]
    part, y = bijectors.logit(0.01), np.linspace(0, 1, 40001, dtype=np.float32)
    p = jnp.broadcast_to(0.5 * jax.random.normal(jax.random.key(3), (of.outputs,)), (len(y), of.outputs))

    @jax.jit
    def run(y):
        z, det = part.forward({}, y[:, None], None)
        z, log_slope = of.forward(z[:, 0], p)
        return z, density(z[:, None]) + det + log_slope

    z, log_p = (np.asarray(one, np.float64) for one in run(jnp.asarray(y)))
    mass = {"gaussian": stats.norm, "logistic": stats.logistic}[prior].cdf(z[[0, -1]])
    assert np.trapezoid(np.exp(log_p), y) == pytest.approx(mass[1] - mass[0], abs=1e-5)
    assert mass[1] - mass[0] > 0.7


@pytest.mark.parametrize("dequantise", ["uniform", "variational"])
def test_bits_are_those_of_the_density_and_draws_come_from_it(dequantise):
    """A flow without steps that do anything is the logit of the noise: its levels' probabilities are known."""
    net = dataclasses.replace(NET, family="nice", steps=1)
    config = flow.Config(net=net, grey=True, levels=4, dequantise=dequantise, least=0.01, classes=2)
    x, label = jnp.repeat(jnp.arange(4), 2000).reshape(-1, 1, 1, 1), jnp.zeros(8000, jnp.int32)
    shapes = jax.eval_shape(config._init, jax.random.key(0), x[:2], label[:2]).params
    zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes)
    bits, drawn = jax.jit(
        lambda keys, more: (
            config._bits(Variables(zero), x, label, keys)[0],
            config._draw(Variables(zero), {"temperature": jnp.float32(1)}, more, label, (1, 1, 1)),
        )
    )(keys(8000), keys(8000, 4))
    edges = np.linspace(0, 1, 5) * 0.98 + 0.01
    edges = np.log(edges / (1 - edges))
    mass = np.diff(stats.norm.cdf(edges))
    mean_p = (2.0 ** -np.asarray(bits, np.float64)).reshape(4, 2000).mean(1)  # of uniform u: E p(y) / L is P
    np.testing.assert_allclose(mean_p, mass, rtol={"uniform": 0.02, "variational": 0.1}[dequantise])
    assert (np.asarray(bits).reshape(4, 2000).mean(1) >= -np.log2(mass) - 0.01).all(), "a bound"
    ends = [stats.norm.cdf(edges[0]), 1 - stats.norm.cdf(edges[-1])]
    expected = mass + np.array([ends[0], 0, 0, ends[1]])
    np.testing.assert_allclose(np.bincount(np.asarray(drawn).ravel(), minlength=4) / 8000, expected, atol=0.02)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"net": dataclasses.replace(NET, scales=4)}, "a picture of 8x8 does not halve 4 times"),
        ({"net": dataclasses.replace(NET, steps=0)}, "steps is 0"),
        ({"net": dataclasses.replace(NET, bins=101)}, "bins is 101"),
        ({"net": UNetConfig()}, "expected flow"),
        ({"least": 0.5}, "task.least is 0.5"),
        ({"net": dataclasses.replace(NET, family="maf"), "classes": 2}, "takes no class"),
        ({"net": dataclasses.replace(NET, norm="batch")}, "batch norm is realnvp's"),
        ({"memory": 1.0}, "task.memory is 1.0"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        flow.Config(**{"net": NET, **fields}).check(DataConfig(size=8), OptimizerConfig())


def test_a_squeeze_of_odd_sides_is_refused():
    with pytest.raises(ValueError, match="they are 3x4: expected even ones"):
        bijectors.squeeze().forward({}, jnp.zeros((1, 3, 4, 1)), None)
