"""Cascades of our own stages: what goes from one to the next, and what is refused before anything compiles."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pipelines import own

from jaxdiff import sampling
from jaxdiff.models.unet import UNet
from jaxdiff.pipelines import plan, program
from jaxdiff.pipelines.cascade import Cascade
from jaxdiff.pipelines.diffusion import DiffusionPipeline
from jaxdiff.pipelines.inputs import Size
from jaxdiff.tasks import super_resolution as sr
from jaxdiff.typing import Cond

LARGER = dataclasses.replace(own.FREE, augment=True)


def stage(told="nothing", size=8, **index):
    """A stage that makes pictures; with `low`, one that enlarges them."""
    if "low" not in index:
        return own.pipeline(told, size=size)
    net = dataclasses.replace(LARGER, labels=own.NETS[told].labels)
    picture = jnp.zeros((1, size, size, 3))
    cond = Cond(image=picture, augment=jnp.zeros(1), label=own.cond(told).label)
    shapes = jax.eval_shape(UNet(net).init, jax.random.key(0), picture, jnp.zeros(1), cond)["params"]
    rng = np.random.default_rng(1)
    weights = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape) * 0.3, jnp.float32), shapes)
    labels = {"labels": own.CLASSES} if told == "class" else {}
    made = own.diffusion_bundle(net, {"unet": weights}, process=own.process(), size=size, **labels)
    index = {"max_noise_level": 499, "noise_level": 50, "noise": "small", **index}
    bundle = dataclasses.replace(made, index=index, schedulers={"image_noising_scheduler": sr.NOISING})
    return DiffusionPipeline(bundle, devices=jax.devices()[:1])


@pytest.fixture(scope="module")
def cascade():
    return Cascade([stage(), stage(size=12, low=8)])


def test_what_the_second_stage_is_given_is_the_first_ones_picture_on_the_device(cascade):
    seen = {}

    def spy(whole, batch, call=cascade.stages[1]._run, **how):
        seen.update(batch, low=whole[1].low)
        return type(call).__call__(call, whole, batch, **how)

    made, steps = None, {"steps": 2}
    run = cascade.stages[1]._run
    cascade.stages[1]._run = lambda *args, **how: spy(*args, call=run, **how)
    try:
        made = cascade(["", ""], key=jax.random.key(0), noise_level=30, **steps)
        assert isinstance(seen["image"], jax.Array)
        first = cascade.stages[0](["", ""], key=jax.random.key(0), **steps)
        np.testing.assert_array_equal(program.to_pixels(seen["image"]), first)
        np.testing.assert_array_equal(seen["level"], [30, 30])
        np.testing.assert_allclose(seen["low"], cascade.stages[1].level(30), rtol=1e-6)
        cascade(["", ""], key=jax.random.key(0), noise_level=30, truncate=True, **steps)
        assert tuple(seen["low"]) == (1, 0)
        np.testing.assert_array_equal(seen["level"], [30, 30])
        assert np.asarray(seen["image"]).std() > 0
    finally:
        cascade.stages[1]._run = run
    assert made.shape == (2, 12, 12, 3)


def test_a_walk_that_ends_in_noise_is_where_the_whole_walk_passes():
    """DDIM of a single picture c goes through alpha c + sigma eps, whatever the steps."""
    process, c = own.process(), 0.4
    lam = 1.3
    made = plan.make(process, steps=7, until=lam, weights={})
    t = process.schedule.time(np.array([lam]))
    eps = np.random.default_rng(0).normal(size=(1, 2, 2, 3)).astype(np.float32)
    first = float(made.table.t[0])
    start = process.schedule.alpha(first) * c + process.schedule.sigma(first) * eps
    x = sampling.run(made.table, lambda x, t, aux: jnp.full_like(x, c), jnp.asarray(start, jnp.float32), None)
    expected = process.schedule.alpha(t) * c + process.schedule.sigma(t) * eps
    np.testing.assert_allclose(x, expected, atol=2e-5)  # table and walk in float32
    assert made.table.calls < plan.make(process, steps=7, weights={}).table.calls


@pytest.mark.parametrize("small", [True, False])
def test_noise_is_added_where_training_adds_it(small):
    """Before the picture is enlarged, or after it: what the program joins against the formula of the task."""
    model = dataclasses.replace(stage(size=12, low=8).model, noised_small=small)
    x = jax.random.uniform(jax.random.key(0), (2, 8, 8, 3))
    keys = [jax.random.split(jax.random.key(1), 2) for _ in range(2)]
    low = (np.float32(0.8), np.float32(0.6))
    made = plan.Plan(None, 0, 1, {}, None, low)
    joined = program.enlarged(model, made, {"keys": keys[0], "size": Size(12, 12)}, x)["joined"]
    enlarge = lambda x: program.stretched(x, 12, 12)
    side = 8 if small else 12
    eps = program.unit_noise(keys[1], program.LOW, (side, side, 3))
    expected = enlarge(0.8 * x + 0.6 * eps) if small else 0.8 * enlarge(x) + 0.6 * eps
    np.testing.assert_allclose(joined, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"noise_level": 500}, "noise_level is 500: this model knows 0 to 499"),
        ({"noise_level": -1}, "noise_level is -1"),
        ({"steps": 0}, "steps is 0"),
        ({"height": 16}, "height is 16: these stages enlarge pictures of one size"),
        ({"sampler": "dimm"}, "unknown sampler 'dimm'"),
        ({"truncate": True, "noise_level": 499, "steps": 1, "strength": 0.2}, "strength"),
    ],
)
def test_what_cannot_be_is_refused_before_any_stage_compiles(options, words):
    pipe = Cascade([stage(), stage(size=12, low=8)])
    with pytest.raises(ValueError, match=words):
        pipe("", key=jax.random.key(0), **{"steps": 2, **options})
    assert pipe.compiled() == 0


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        (
            lambda: [stage(), stage(size=12, low=4)],
            "stage 2 enlarges pictures of 4x4, and the one before it makes .* 8x8",
        ),
        (lambda: [stage(), stage(size=8, low=8)], "expected larger ones"),
        (lambda: [stage(size=12, low=8)], "stage 1 enlarges pictures"),
        (lambda: [stage(), stage()], "stage 2 makes pictures of its own"),
        (lambda: [_renamed(stage("class")), stage("class", size=12, low=8)], "know other classes than each other"),
    ],
)
def test_stages_that_do_not_follow_each_other(stages, words):
    with pytest.raises(ValueError, match=words):
        Cascade(stages())


def _renamed(pipe):
    pipe.model = dataclasses.replace(pipe.model, labels=("a", "b", "c"))
    return pipe


def test_settings_name_the_options_of_each_stage(cascade):
    told = cascade.settings({"steps": 3, "noise_level": 7})
    assert [one["size"] for one in told] == [[8, 8], [12, 12]]
    assert [one["steps"] for one in told] == [3, 3]
    assert (told[1]["noise_level"], "noise_level" in told[0]) == (7, False)
    assert cascade.settings({})[1]["noise_level"] == 50


def test_a_stage_that_knows_classes_is_told_class_and_level():
    pipe = stage("class", size=12, low=8)
    small = np.full((1, 8, 8, 3), 90, np.uint8)
    _, batch = pipe.arguments("dog", key=jax.random.key(0), image=small, steps=2)
    assert batch["prompt"]["label"] == [1]
    assert batch["level"] == [50]
    conds = program.conditions(pipe.model, pipe.params, {}, batch, {"joined": jnp.zeros((1, 12, 12, 3))})
    assert [int(cond.label[0]) for cond in conds] == [1, 3]
    assert [float(cond.augment[0]) for cond in conds] == [50, 50]
