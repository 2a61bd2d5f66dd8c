"""The real network under every strategy, and what conditions do."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import parallel, training
from jaxdiff.data.config import DataConfig
from jaxdiff.data.tokenizer import BytePair
from jaxdiff.models.text import TextConfig
from jaxdiff.models.unet import UNetConfig
from jaxdiff.parallel import MeshSpec, rules
from jaxdiff.tasks import picture
from jaxdiff.tasks.previews import PreviewConfig
from jaxdiff.training import Known, OptimizerConfig, Variables

MODEL = picture.Config(
    process=picture.ProcessConfig(prediction="v"),
    drop=0.3,
    net=UNetConfig(
        channels=(8, 16), layers=1, attention=("none", "cross"), mid_attention="none", heads=(1, 2), depth=(1, 1),
        groups=4, pooled=True, dropout=0.1,
    ),
    text=TextConfig(vocabulary=20, length=6, width=8, layers=1, heads=2),
)  # fmt: skip
ASSETS = picture.Assets(8, BytePair(()))
EMPTY = ASSETS.vocabulary.encode("", 6)
CLASSES = picture.Assets(8, labels=("cat", "dog", "frog", "toad"))
NOTHING = Known({}, {}, {}, 0)
SGD = OptimizerConfig(name="sgd", lr=0.1, decay="constant", clip=0.0)


def batch(size=8, told=("tokens",)):
    rng = np.random.default_rng(0)
    every = {
        "image": rng.integers(0, 256, (size, 8, 8, 3), dtype=np.uint8),
        "tokens": rng.integers(1, 20, (size, 6)).astype(np.int32),
        "label": rng.integers(0, 4, size).astype(np.int32),
    }
    return {name: every[name] for name in ("image", *told)}


def weights(task, data):
    """Nowhere zero; constants, since drawing them on eight devices takes longer to compile than the step."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(task.init, jax.random.key(0), {}, data).params
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) * 0.2, jnp.float32), shapes)


@functools.cache
def trained(spec, devices):
    """Parameters after 5 steps of SGD, which unlike Adam sees the scale of gradients."""
    optimizer = training.make_optimizer(SGD, 5)
    task = MODEL.task(ASSETS)
    task = dataclasses.replace(task, init=lambda key, loaded, data: Variables(weights(MODEL.task(ASSETS), batch())))

    program = parallel.compile(
        functools.partial(training.make_train_step, task, optimizer, training.make_ema(0.9)),
        training.make_init_state(task, optimizer),
        {},
        batch(),
        spec,
        devices=jax.devices()[:devices],
    )
    state = program.init(jax.random.key(0))
    root = jax.random.key(1)
    for step in range(5):
        state, _ = program.step(state, program.put(batch()), program.keys(root, step, 8))
    return jax.device_get(state.params)


@pytest.mark.slow
@pytest.mark.parametrize(
    "spec",
    [
        pytest.param(MeshSpec(), marks=pytest.mark.heavy),
        pytest.param(MeshSpec(data=1, fsdp=8), marks=pytest.mark.heavy),
        MeshSpec(2, 2, 2),
        "pmap",
    ],
)
def test_every_strategy_trains_the_same_parameters(monkeypatch, spec):
    monkeypatch.setattr(rules, "SMALLEST", 64)  # so that these small weights are split too
    for ours, one in zip(jax.tree.leaves(trained(spec, 8)), jax.tree.leaves(trained(MeshSpec(), 1)), strict=True):
        assert np.linalg.norm(ours - one) <= 1e-5 * np.linalg.norm(one)


def value(model, data, seed=0, assets=ASSETS):
    task = model.task(assets)
    keys = jax.random.split(jax.random.key(seed), len(data["image"]))
    return float(jax.jit(task.loss)(weights(task, data), NOTHING, data, keys)[0])


def test_a_dropped_condition_is_the_empty_text():
    data = batch()
    empty = {**data, "tokens": np.broadcast_to(EMPTY, data["tokens"].shape)}
    always, never = dataclasses.replace(MODEL, drop=1.0), dataclasses.replace(MODEL, drop=0.0)
    np.testing.assert_allclose(value(always, data), value(never, empty), rtol=1e-6)
    assert value(never, data) != value(never, empty)


def test_padding_to_a_longer_text_changes_nothing():
    data = batch()
    data["tokens"][:, 4:] = 0
    short = {**data, "tokens": data["tokens"][:, :4]}
    shorter = dataclasses.replace(MODEL, text=dataclasses.replace(MODEL.text, length=4))
    params = weights(MODEL.task(ASSETS), data)
    cut = {**params, "text": {**params["text"], "position_embed": params["text"]["position_embed"][:4]}}
    losses = [
        jax.jit(model.task(ASSETS).loss)(own, NOTHING, told, jax.random.split(jax.random.key(0), 8))[0]
        for model, own, told in ((MODEL, params, data), (shorter, cut, short))
    ]
    np.testing.assert_allclose(*losses, rtol=1e-5)


def of_classes(**changes):
    net = dataclasses.replace(MODEL.net, labels=4, pooled=False, attention=("none", "self"), dropout=0.0)
    return dataclasses.replace(MODEL, **{"net": net, "condition": "class", **changes})


def test_a_dropped_class_is_the_label_after_the_last():
    data = batch(told=("label",))
    gone = {**data, "label": np.full_like(data["label"], 4)}
    always, never = of_classes(drop=1.0), of_classes(drop=0.0)
    assert np.isfinite(value(never, data, assets=CLASSES))
    np.testing.assert_allclose(value(always, data, assets=CLASSES), value(never, gone, assets=CLASSES), rtol=1e-6)
    assert value(never, data, assets=CLASSES) != value(never, gone, assets=CLASSES)


def test_no_condition_is_a_class_that_adds_nothing():
    none = of_classes(net=dataclasses.replace(of_classes().net, labels=0), condition="none").task(picture.Assets(8))
    classes, data = of_classes().task(CLASSES), batch(told=("label",))
    params = weights(none, batch(told=()))

    def loss(task, told, embedding=None):
        own = {} if embedding is None else {"label_embed": {"embedding": jnp.full((5, 32), embedding)}}
        own = {"unet": {**params["unet"], **own}}
        return float(jax.jit(task.loss)(own, NOTHING, told, jax.random.split(jax.random.key(0), 8))[0])

    assert loss(none, batch(told=())) == pytest.approx(loss(classes, data, 0.0), rel=1e-6)
    assert loss(classes, data, 0.0) != pytest.approx(loss(classes, data, 1.0), rel=1e-4)


def test_a_row_holds_what_the_condition_needs():
    one, rng = {"image": batch()["image"][0], "caption": "red", "label": 3}, np.random.default_rng(0)
    text = MODEL.task(ASSETS).example(one, rng)
    assert {name: x.shape for name, x in text.items()} == {"image": (8, 8, 3), "tokens": (6,)}
    assert of_classes().task(CLASSES).example(one, rng)["label"] == 3
    assert [*of_classes(condition="none").task(picture.Assets(8)).example(one, rng)] == ["image"]


def test_a_preview_of_no_class_is_refused_before_anything_is_trained():
    wanted = of_classes(preview=PreviewConfig(prompts=("cat", "dgo")))
    with pytest.raises(ValueError, match=r"task.preview.prompts has 'dgo', no class of the data: expected some of cat"):
        wanted.task(CLASSES)


def test_a_preview_that_cannot_be_made_is_refused_at_the_start():
    net = dataclasses.replace(of_classes().net, labels=0)
    free = lambda **preview: of_classes(
        net=net, condition="none", preview=PreviewConfig(prompts=("",), **preview)
    ).check(DataConfig(size=8), OptimizerConfig())
    free()
    with pytest.raises(ValueError, match=r"task.preview.guidance is 2.0, and a model with task.condition 'none'"):
        free(guidance=2.0)
    with pytest.raises(ValueError, match="steps is 2000"):
        free(steps=2000)
    with pytest.raises(ValueError, match="unknown sampler 'dimm'"):
        free(sampler="dimm")


def test_text_is_read():
    data = batch()
    other = {**data, "tokens": data["tokens"][::-1].copy()}
    assert value(MODEL, data) != value(MODEL, other)
