"""One program for every prompt, seed, guidance and sampler; the same pictures on one device and on eight."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.data import BytePair
from jaxdiff.models.text import TextConfig
from jaxdiff.models.unet import UNetConfig
from jaxdiff.parallel import MeshSpec
from jaxdiff.pipelines.text_to_image import Pipeline
from jaxdiff.tasks.picture import Model, ProcessConfig, make_task

VOCABULARY = BytePair.learn(["red heart", "blue square", "green book"], 300)
MODEL = Model(
    ProcessConfig(prediction="x0"),
    UNetConfig(
        channels=(8, 8), layers=1, attention=("none", "cross"), mid_attention="none", heads=(1, 2), depth=(1, 1),
        groups=4, pooled=True,
    ),
    TextConfig(vocabulary=300, length=8, width=8, layers=1, heads=2),
    8,
)  # fmt: skip
PROMPTS = ["red heart", "blue square", "a very long prompt that no model of eight tokens sees whole"]


@pytest.fixture(scope="module")
def params():
    shapes = jax.eval_shape(make_task(MODEL).init, jax.random.key(0))
    leaves, tree = jax.tree.flatten(shapes)
    rng = np.random.default_rng(0)
    return jax.tree.unflatten(tree, [jnp.asarray(rng.normal(size=x.shape) * 0.3, jnp.float32) for x in leaves])


@pytest.fixture(scope="module")
def pipe(params):
    return Pipeline(MODEL, params, VOCABULARY)


def run(pipe, prompts=PROMPTS, seed=0, **options):
    return pipe(prompts, key=jax.random.key(seed), **{"steps": 4, **options})


def test_nothing_compiles_again(pipe):
    first = run(pipe)
    assert first.shape == (3, 8, 8, 3)
    assert first.dtype == np.uint8
    count = pipe.compiled()
    others = [
        run(pipe, ["green book"] * 3),
        run(pipe, seed=1),
        run(pipe, guidance=7.0),
        run(pipe, negative="heart"),
        run(pipe, sampler="ddim", eta=1.0),
        run(pipe, sampler="ddpm"),
        run(pipe, sampler="dpmpp_2m"),
        run(pipe, sampler="euler_ancestral"),
    ]
    assert pipe.compiled() == count == 1
    for other in others:
        assert not np.array_equal(other, first)
    np.testing.assert_array_equal(run(pipe), first)


@pytest.mark.parametrize("spec", [MeshSpec(), MeshSpec(data=4, fsdp=2), "pmap"])
def test_the_same_pictures_on_one_device_and_on_eight(params, pipe, spec):
    from jaxdiff.parallel.spread import Spread
    from jaxdiff.tasks.picture import make_sample

    one = Pipeline(MODEL, params, VOCABULARY)
    sample = make_sample(MODEL)
    one._run = Spread(lambda whole, batch: sample(*whole, **batch), devices=jax.devices()[:1])
    here, there = run(one), run(Pipeline(MODEL, params, VOCABULARY, spec=spec))
    # sums in another order may round a channel the other way
    assert np.abs(here.astype(int) - there.astype(int)).max() <= 1


def test_a_picture_depends_on_its_own_key_and_not_on_its_batch(pipe):
    keys, again = (jax.random.split(jax.random.key(3), 3) for _ in range(2))
    together = pipe(PROMPTS, key=keys, steps=4, sampler="ddpm")
    alone = pipe(PROMPTS[1:2], key=again[1:2], steps=4, sampler="ddpm")
    assert np.abs(alone[0].astype(int) - together[1].astype(int)).max() <= 1


def test_given_noise_is_what_the_picture_starts_from(pipe):
    noise = np.random.default_rng(0).normal(size=(3, 8, 8, 3))
    np.testing.assert_array_equal(run(pipe, init_noise=noise), run(pipe, seed=9, init_noise=noise))


def test_guidance_of_one_ignores_the_negative_prompt(pipe):
    np.testing.assert_array_equal(run(pipe, guidance=1.0), run(pipe, guidance=1.0, negative="green book"))


def test_the_unseen_end_of_a_prompt_is_told(pipe):
    assert pipe.cut(PROMPTS[0]) == ""
    assert pipe.cut(PROMPTS[2]).endswith("sees whole")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sampler": "dimm"}, "unknown sampler 'dimm': expected one of ddim"),
        ({"prompts": []}, "no prompt was given"),
        ({"init_noise": np.zeros((3, 8, 8))}, r"expected \(3, 8, 8, 3\)"),
        ({"steps": 2000}, "1000"),
        ({"sampler": "ddim", "eta": 2.0}, "eta"),
        ({"sampler": "dpmpp_2m", "eta": 0.5}, "no option 'eta'"),
    ],
)
def test_what_cannot_be_is_refused(pipe, options, words):
    with pytest.raises(ValueError, match=words):
        run(pipe, **options)
