"""GANs: each side moves its own weights, spectral norms, penalties in closed form, and modes that a game covers."""

import dataclasses
import json
import pathlib
import runpy

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import keys, pictures, randomised
from PIL import Image

from jaxdiff import training
from jaxdiff.data.source import DataConfig
from jaxdiff.metrics.modes import modes
from jaxdiff.models.critic import CriticConfig, Normed
from jaxdiff.models.generator import GeneratorConfig
from jaxdiff.models.unet import UNetConfig
from jaxdiff.objectives import adversarial, likelihood
from jaxdiff.tasks import gan
from jaxdiff.tasks.family import Assets
from jaxdiff.training import Known, OptimizerConfig, Task, Variables

NET = GeneratorConfig(width=4, halvings=1, noise=3, groups=2)
CRITIC = CriticConfig(width=4, halvings=1)
SMALL = gan.Config(net=NET, critic=CRITIC, game="wasserstein", penalty=10.0, r1=1.0, previews=0)


@pytest.mark.parametrize("family", ["dcgan", pytest.param("resnet", marks=pytest.mark.heavy)])
def test_a_step_has_a_loss_for_both_sides_and_moves_the_spectral_vectors(family):
    shaped = {name: dataclasses.replace(getattr(SMALL, name), family=family) for name in ("net", "critic")}
    config = dataclasses.replace(SMALL, classes=2, **shaped)
    task = config.task(Assets(4, ("a", "b")))
    batch = {"image": pictures(), "label": jnp.arange(4) % 2}
    start = randomised(jax.eval_shape(task.init, jax.random.key(0), {}, batch))
    value, metrics, stats = jax.jit(
        lambda params, draws: task.loss(params, Known({}, start.extra, {}, 0), batch, draws)
    )(start.params, keys(4))
    sides = metrics["fool"] + metrics["tell"] + 10 * metrics["penalty"] + metrics["r1"]
    assert float(value) == pytest.approx(float(sides), rel=1e-5)
    assert {"real", "fake", "right", "jensen_shannon"} <= {*metrics}
    before, after = (jax.tree.leaves(extra) for extra in (start.extra, task.absorb(start.extra, stats)))
    assert before
    for old, new in zip(before, after, strict=True):
        assert np.linalg.norm(new) == pytest.approx(1, abs=1e-5)
        assert old.shape == new.shape
    assert np.abs(before[0] - after[0]).max() > 1e-3
    assert {"critic", "generator"} == {*start.params}
    assert task.averaged == ("generator",)
    assert "classes" in start.params["critic"]


@pytest.mark.parametrize("kind", ["minimax", "non_saturating", "hinge", "wasserstein"])
def test_each_side_moves_by_its_own_loss(kind):
    """Of a linear critic w x and a generator that is one number y, at one real number x."""
    x, w, y = 0.7, jnp.array(0.3), jnp.array(-0.2)

    def whole(w, y):
        judge = lambda params, x: ((params["w"] * x)[:, 0], None)
        return adversarial.both_sides(judge, {"w": w}, jnp.full((1, 1), x), y.reshape(1, 1), jnp.zeros(1), kind)[0]

    by_w, by_y = jax.grad(whole, (0, 1))(w, y)
    sigmoid = lambda x: 1 / (1 + np.exp(-x))
    real, fake = 0.3 * 0.7, 0.3 * -0.2
    slopes = {
        "hinge": (-0.7 - 0.2, -0.3),  # within both hinges
        "wasserstein": (-0.7 - 0.2, -0.3),
        "non_saturating": (-0.7 * sigmoid(-real) - 0.2 * sigmoid(fake), -0.3 * sigmoid(-fake)),
        "minimax": (-0.7 * sigmoid(-real) - 0.2 * sigmoid(fake), -0.3 * sigmoid(fake)),
    }
    np.testing.assert_allclose([by_w, by_y], [slopes[kind][0] / 2, slopes[kind][1]], rtol=1e-5)


def test_gradients_vanish_where_a_strong_critic_plays_minimax_and_not_otherwise():
    """Of a critic w y at y = -1: by y, the slope of minimax is w sigmoid(-w), of the other w sigmoid(w)."""
    judge = lambda params, x: ((params["w"] * x)[:, 0], None)
    for w in (1.0, 5.0, 20.0):
        args = (judge, {"w": jnp.array(w)}, jnp.full((2, 1), 1.0), jnp.full((2, 1), -1.0), jnp.zeros(2))
        slopes = {
            kind: float(adversarial.both_sides(*args, kind, slopes=True)[1]["slope"])
            for kind in ("minimax", "non_saturating")
        }
        assert slopes["minimax"] == pytest.approx(w / (1 + np.exp(w)), rel=1e-4)
        assert slopes["non_saturating"] == pytest.approx(w / (1 + np.exp(-w)), rel=1e-5)
    assert slopes["minimax"] < 1e-6 < 19 < slopes["non_saturating"]


def test_the_divergence_of_the_best_critic_is_that_of_both_laws():
    """Of N(1, 1) and N(-1, 1) the best critic is 2 x; equal laws have the value -2 log 2."""
    noise = np.random.default_rng(0).standard_normal(200_000).astype(np.float32)
    real, fake = jnp.asarray(noise + 1), jnp.asarray(noise - 1)
    x = np.linspace(-12, 12, 200_001)
    p, q = (np.exp(-((x - m) ** 2) / 2) / np.sqrt(2 * np.pi) for m in (1, -1))
    exact = (p * np.log(2 * p / (p + q)) + q * np.log(2 * q / (p + q))).sum() * (x[1] - x[0]) / 2
    assert float(adversarial.jensen_shannon(2 * real, 2 * fake)) == pytest.approx(exact, abs=0.003)
    assert float(adversarial.jensen_shannon(real, fake)) < exact - 0.003
    value = -2 * float(adversarial.critic_loss(jnp.zeros(3), jnp.zeros(3), "minimax"))
    assert value == pytest.approx(-2 * np.log(2))


def test_a_critic_of_classes_and_fake_has_the_probabilities_of_all():
    """K + 1 logits, the last one 0: that of being real, and the loss of a class where it is told."""
    logits = jnp.array([[0.5, -1.0, 2.0], [0.0, 0.3, 0.1]])
    whole = jax.nn.softmax(jnp.concatenate([logits, jnp.zeros((2, 1))], 1))
    np.testing.assert_allclose(jax.nn.sigmoid(jax.nn.logsumexp(logits, -1)), 1 - whole[:, -1], rtol=1e-6)
    among = whole[:, :3] / whole[:, :3].sum(1, keepdims=True)
    got = adversarial.class_loss(logits, jnp.array([2, 1]), jnp.array([True, False]))
    assert float(got) == pytest.approx(-np.log(among[0, 2]) / 2, rel=1e-5)


SEMI = dataclasses.replace(SMALL, game="non_saturating", penalty=0.0, classes=3, labelled=0.5, slopes=True)


def test_a_semi_supervised_run_tells_the_critic_some_classes_and_the_generator_none():
    assets = Assets(4, ("a", "b", "c"))
    task = SEMI.task(assets)
    images = np.random.default_rng(0).integers(0, 256, (400, 4, 4, 3)).astype(np.uint8)
    rows = [task.example({"image": one, "label": i % 3}, np.random.default_rng(i)) for i, one in enumerate(images)]
    again = task.example({"image": images[7], "label": 1}, np.random.default_rng(0))
    assert again["labelled"] == rows[7]["labelled"]
    assert 0.4 < np.mean([row["labelled"] for row in rows]) < 0.6
    batch = {name: np.stack([row[name] for row in rows[:4]]) for name in rows[0]}
    start = randomised(jax.eval_shape(task.init, jax.random.key(0), {}, batch))
    assert start.params["critic"]["out"]["kernel"].shape[-1] == 3
    assert "classes" not in start.params["generator"]

    @jax.jit
    def run(params, batch):
        x = likelihood.unit(SEMI.read(batch["image"]), SEMI.levels)
        critic = SEMI._networks((4, 4, 3))[1]
        logits, _ = critic.apply({"params": params["critic"], **start.extra}, x, mutable=["spectral"])
        own = adversarial.class_loss(logits, batch["label"], batch["labelled"])
        return *task.loss(params, Known({}, start.extra, {}, 0), batch, keys(4))[:2], own

    batch["labelled"] = np.array([True, False, True, True])
    value, metrics, own = run(start.params, batch)
    assert float(metrics["class"]) == pytest.approx(float(own) / 0.5, rel=1e-4)  # of the part that is told, in the mean
    sides = metrics["fool"] + metrics["tell"] + metrics["r1"] + metrics["class"]
    assert float(value) == pytest.approx(float(sides), rel=1e-5)
    assert float(metrics["slope"]) > 0
    assert SEMI.pipeline(assets, Variables(start.params)).labels == ()


def test_the_plot_of_a_run_shows_its_critic(tmp_path):
    line = {"real": 1.0, "fake": -1.0, "slope": 0.1, "jensen_shannon": 0.2}
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": n, **line}) + "\n" for n in (1, 2)))
    plot = runpy.run_path(str(pathlib.Path(__file__).parents[2] / "scripts" / "gan_plot.py"))["main"]
    assert Image.open(plot(tmp_path)).size[0] > 500
    path.write_text(json.dumps({"step": 1, "loss": 0.0}) + "\n")
    with pytest.raises(ValueError, match="is no run of a GAN"):
        plot(tmp_path)


def test_penalties_and_the_divergence_are_closed_forms():
    w = jnp.array([3.0, 4.0])
    critic, x = (lambda x: x @ w), jnp.ones((2, 2))
    assert float(adversarial.gradient_penalty(critic, x, 2 * x, jnp.array([0.1, 0.9]))) == pytest.approx(16)
    assert float(adversarial.r1(critic, x)) == pytest.approx(12.5)
    square = lambda x: (x**2).sum(1) / 2  # of slope x: at 1 + 0.5 (2 - 1)
    assert float(adversarial.gradient_penalty(square, x, 2 * x, jnp.full(2, 0.5))) == pytest.approx(
        (1.5 * np.sqrt(2) - 1) ** 2
    )
    assert float(adversarial.jensen_shannon(jnp.zeros(2), jnp.zeros(2))) == pytest.approx(0, abs=1e-6)
    assert float(adversarial.jensen_shannon(jnp.full(2, 50.0), jnp.full(2, -50.0))) == pytest.approx(np.log(2))


def test_the_spectral_norm_is_the_largest_singular_value():
    layer, x = Normed(5), jnp.ones((1, 7))
    made = layer.init(jax.random.key(0), x)
    singular = np.linalg.svd(made["params"]["kernel"])[1][0]
    for _ in range(60):
        y, moved = layer.apply(made, x, mutable=["spectral"])
        made = {**made, **moved}
    np.testing.assert_allclose(y[0], x[0] @ made["params"]["kernel"] / singular, rtol=1e-4)
    np.testing.assert_array_equal(layer.apply(made, x).shape, y.shape)


def test_modes_are_counted():
    centers = np.array([[0.0, 0.0], [4.0, 0.0], [8.0, 0.0]])
    samples = np.repeat(centers[:2], [6, 1], 0) + np.array([0.1, 0.0])
    found = modes(np.concatenate([samples, [[20.0, 0.0]]]), centers, 0.1, least=0.5)
    assert found == (1, 7 / 8)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"penalty": 0.0, "critic": dataclasses.replace(CRITIC, spectral=False)}, "must be held to slopes of 1"),
        ({"penalty": float("nan")}, "task.penalty is nan"),
        ({"r1": -1.0}, "task.r1 is -1.0"),
        ({"labelled": 1.5, "classes": 2}, "task.labelled is 1.5"),
        ({"labelled": 0.5}, "task.classes above 0"),
        ({"labelled": 0.5, "classes": 2}, "task.game is 'wasserstein': with task.labelled"),
        ({"net": UNetConfig()}, "task.net is a UNetConfig: expected generator"),
        ({"critic": dataclasses.replace(CRITIC, halvings=3)}, "does not halve 3 times"),
        ({"net": dataclasses.replace(NET, groups=3)}, "does not divide by groups 3"),
        ({"critic_optimizer": OptimizerConfig(every=2)}, "the generator would move more often than its critic"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **fields).check(DataConfig(size=4), OptimizerConfig())


def test_a_critic_without_steps_is_refused():
    config = dataclasses.replace(SMALL, critic_optimizer=OptimizerConfig(lr=0.0))
    with pytest.raises(ValueError, match=r"optimizer\.lr of group critic is 0"):
        config.check_steps(10)


CENTERS = np.stack(np.meshgrid(*[np.arange(-2.0, 3.0)] * 2), -1).reshape(-1, 2).astype(np.float32)
DEVIATION = 0.05
GOOD = {"kind": "non_saturating", "r1": 1.0, "b1": 0.0}
BAD = {"kind": "minimax", "r1": 0.0, "b1": 0.5}


class Points(nn.Module):
    """A generator of points that adds to its noise, or with one output a critic that looks at waves of them."""

    outputs: int

    @nn.compact
    def __call__(self, x):
        y = x
        if self.outputs == 1:
            waves = 2 * np.pi * 0.3 * x @ np.random.default_rng(0).standard_normal((2, 64)).astype(np.float32)
            y = jnp.concatenate([x, jnp.sin(waves), jnp.cos(waves)], -1)
        for i in range(2):
            y = jax.nn.relu(nn.Dense(96, name=f"dense_{i}")(y))
        y = nn.Dense(self.outputs, name="out")(y)
        return y if self.outputs == 1 else 1.5 * x + y


def played(kind, r1, b1, steps=2000, batch=128):
    """2500 points of the averaged generator, for each of five seeds."""
    generator, critic = Points(2), Points(1)

    def init(key, loaded, batch):
        own, other = jax.random.split(key)
        parts = {"generator": (generator, own), "critic": (critic, other)}
        return Variables({name: net.init(key, jnp.zeros((1, 2)))["params"] for name, (net, key) in parts.items()})

    def draw(key):
        which, off, noise = jax.random.split(key, 3)
        center = jnp.asarray(CENTERS)[jax.random.randint(which, (), 0, 25)]
        return center + DEVIATION * jax.random.normal(off, (2,)), jax.random.normal(noise, (2,))

    def loss(params, known, batch, keys):
        x, z = jax.vmap(draw)(keys)
        y = generator.apply({"params": params["generator"]}, z)
        judge = lambda params, x: (critic.apply({"params": params}, x)[:, 0], None)
        value, metrics, _ = adversarial.both_sides(
            judge, params["critic"], x, y, jnp.zeros(len(x)), kind, real_penalty=r1
        )
        return value, metrics, {}

    adam = OptimizerConfig(name="adam", lr=1.5e-3, b1=b1, b2=0.99, clip=0.0, decay="constant")
    task = Task(
        init=init, loss=loss, example=lambda one, rng: {}, groups=((r"critic/.*", adam),), averaged=("generator",)
    )
    optimizer = training.make_optimizer(adam, steps, task.groups)
    step = training.make_train_step(task, optimizer, training.make_ema(0.99))

    def whole(key):
        first, own, noise = jax.random.split(key, 3)
        once = lambda state, n: (step(state, {}, jax.random.split(jax.random.fold_in(own, n), batch))[0], None)
        start = training.make_init_state(task, optimizer)(first, {}, {})
        state, _ = jax.lax.scan(once, start, jnp.arange(steps))
        points = jax.random.normal(noise, (2500, 2))
        return generator.apply({"params": state.ema_params["generator"]}, points)

    return np.asarray(jax.jit(jax.vmap(whole))(keys(5)))


@pytest.mark.heavy
def test_a_good_recipe_covers_25_of_25_modes_and_a_bad_one_fewer():
    """The same networks, rate and steps; what differs is the generator's loss, the critic's penalty, and momentum."""
    covered = {name: [modes(one, CENTERS, DEVIATION).covered for one in played(**recipe)] for name, recipe in
               {"good": GOOD, "bad": BAD}.items()}  # fmt: skip
    print(covered)
    assert covered["good"] == [25] * 5
    assert max(covered["bad"]) < 25
