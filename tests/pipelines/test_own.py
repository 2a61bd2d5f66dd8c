"""Models of our own training in the pipeline of all diffusion models: their pictures, what tells them, every task."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pipelines import own

from jaxdiff import sampling
from jaxdiff.diffusion import guidance
from jaxdiff.models.text import TextTransformer
from jaxdiff.models.unet import UNet
from jaxdiff.parallel import MeshSpec, rules
from jaxdiff.pipelines import edit
from jaxdiff.pipelines.bundles import diffusion_bundle
from jaxdiff.pipelines.diffusion import DiffusionPipeline
from jaxdiff.typing import Cond

PROMPTS = {"text": ["red heart", "blue square"], "class": ["dog", "cat"], "nothing": ["", ""]}
OTHER = {"text": "green book", "class": "frog"}


@pytest.fixture(scope="module")
def pipes():
    return {told: own.pipeline(told) for told in own.NETS}


def run(pipe, prompts, seed=0, **options):
    return pipe(prompts, key=jax.random.key(seed), **{"steps": 4, **options})


def told(kind, params, prompts):
    """The condition, as training makes it."""
    if kind == "class":
        return Cond(label=jnp.array([own.CLASSES.index(p) if p else 3 for p in prompts]))
    tokens = jnp.stack([own.VOCABULARY.encode(p, own.WORDS.length) for p in prompts])
    context, mask, pooled = TextTransformer(own.WORDS).apply({"params": params["text"]}, tokens)
    return Cond(context=context, context_mask=mask, pooled=pooled)


@pytest.mark.parametrize("kind", own.NETS)
@pytest.mark.parametrize(("sampler", "options"), [("ddim", {}), ("ddpm", {"guidance": 5.0, "negative": "other"})])
def test_pictures_are_those_of_the_formulas(pipes, kind, sampler, options):
    """Noise from the keys, both conditions, x0 clipped to [-1, 1], each step: by hand."""
    prompts, params, schedule = PROMPTS[kind], own.weights(kind), own.process().schedule
    options = {**options, "negative": OTHER[kind]} if kind in OTHER and "negative" in options else {}
    made = run(pipes[kind], prompts, sampler=sampler, **options)
    keys = jax.random.split(jax.random.key(0), 2)
    network = lambda params, x, t, cond: UNet(own.NETS[kind]).apply({"params": params}, x, t, cond)
    if kind == "nothing":
        denoise = lambda x, t, aux: network(params["unet"], x, schedule.timestep(t) * jnp.ones(2), Cond())
    else:
        good, bad = told(kind, params, prompts), told(kind, params, [options.get("negative", "")] * 2)
        denoise = guidance.classifier_free(network, params["unet"], good, bad, schedule, "x0")
    table = sampling.with_aux(sampling.make_table(sampler, schedule, 4), guidance=options.get("guidance", 3.0))
    noise = jnp.stack([jax.random.normal(jax.random.fold_in(key, 2**31 - 1), (8, 8, 3)) for key in keys])
    x = sampling.run(
        table, lambda *args: jnp.clip(denoise(*args), -1, 1), noise, jax.random.split(jax.random.key(0), 2)
    )
    expected = np.clip(np.asarray(x) * 127.5 + 127.5, 0, 255).round()
    # a number next to a half may round the other way
    assert np.abs(made - expected).max() <= 1
    assert made.std() > 10


def test_nothing_compiles_again(pipes):
    pipe, prompts = pipes["text"], PROMPTS["text"]
    first, count = run(pipe, prompts), pipe.compiled()
    others = [
        run(pipe, ["green book"] * 2),
        run(pipe, prompts, seed=1),
        run(pipe, prompts, guidance=7.0),
        run(pipe, prompts, rescale=0.5),
        run(pipe, prompts, negative="heart"),
        run(pipe, prompts, eta=1.0),
        run(pipe, prompts, sampler="euler_ancestral"),
    ]
    pipe.params = {**pipe.params, "unet": jax.tree.map(lambda x: 0.9 * x, pipe.params["unet"])}
    others.append(run(pipe, prompts))
    pipe.params = {**pipe.params, "unet": own.weights("text")["unet"]}
    assert pipe.compiled() == count
    for other in others:
        assert (other != first).any()
    np.testing.assert_array_equal(run(pipe, prompts), first)


@pytest.mark.parametrize("spec", [MeshSpec(), MeshSpec(data=2, fsdp=2, tensor=2), "pmap"])
def test_the_same_pictures_on_one_device_and_on_eight(pipes, spec):
    prompts = [*PROMPTS["text"], "third"]
    there = run(own.pipeline("text", 8, spec=spec), prompts)
    # sums in another order may round a channel the other way
    assert np.abs(run(pipes["text"], prompts).astype(int) - there.astype(int)).max() <= 1


def test_weights_lie_split_while_pictures_are_made(monkeypatch):
    """Of every large matrix a device has an eighth: before a call, and as the program takes it."""
    monkeypatch.setattr(rules, "SMALLEST", 1)
    pipe = own.pipeline("text", 8, spec=MeshSpec(data=1, fsdp=4, tensor=2))
    seen = {}

    def spy(whole, batch, call=pipe._run._program):
        for path, x in jax.tree_util.tree_leaves_with_path(whole[0]):
            seen[jax.tree_util.keystr(path, simple=True, separator="/")] = x
        return call(whole, batch)

    monkeypatch.setattr(pipe._run, "_program", spy)
    run(pipe, PROMPTS["text"] * 2, steps=2)
    parts = {path: x.size // x.addressable_shards[0].data.size for path, x in seen.items()}
    assert parts["unet/down_1/attn_0/block_0/attn1/q/kernel"] == 8
    assert parts["unet/down_0/resnet_0/conv1/kernel"] == 4
    assert parts["text_encoder/block_0/fc1/kernel"] == 8
    whole = [path for path, ways in parts.items() if ways == 1]
    assert all(seen[path].shape[-1] % 4 and seen[path].shape[0] % 4 for path in whole), whole
    for x in seen.values():
        assert {shard.device for shard in x.addressable_shards} == set(jax.devices())


def test_a_picture_depends_on_its_own_key_and_not_on_its_batch(pipes):
    keys, again = (jax.random.split(jax.random.key(3), 2) for _ in range(2))
    together = pipes["text"](PROMPTS["text"], key=keys, steps=4, sampler="ddpm")
    alone = pipes["text"](PROMPTS["text"][1:], key=again[1:], steps=4, sampler="ddpm")
    assert np.abs(alone[0].astype(int) - together[1].astype(int)).max() <= 1


def test_guidance_of_one_ignores_what_to_keep_away_from(pipes):
    for kind, other in OTHER.items():
        plain = run(pipes[kind], PROMPTS[kind], guidance=1.0)
        np.testing.assert_array_equal(plain, run(pipes[kind], PROMPTS[kind], guidance=1.0, negative=other))
        alone = run(pipes[kind], PROMPTS[kind], guidance=None)
        assert np.abs(plain.astype(int) - alone).max() <= 1


def test_the_unseen_end_of_a_prompt_is_told(pipes):
    long = "a very long prompt that no model of eight tokens sees whole"
    assert pipes["text"].cut("red heart") == ""
    assert pipes["text"].cut(long).endswith("sees whole")
    with pytest.warns(UserWarning, match="does not see '.*sees whole'"):
        run(pipes["text"], [long, ""])
    assert pipes["nothing"].cut(long) == ""


def test_classes_go_by_name(pipes):
    options = {"init_noise": np.ones((2, 8, 8, 3)), "guidance": 1.0}
    dog, again = run(pipes["class"], ["dog", "dog"], **options)
    np.testing.assert_array_equal(dog, again)
    assert (run(pipes["class"], ["cat", "frog"], **options)[0] != dog).any()
    with pytest.raises(ValueError, match=r"'dgo' is not a class of this model: expected one of dog, cat, frog"):
        run(pipes["class"], "dgo")


def test_ten_classes_and_a_count_are_listed():
    names = [f"kind {n}" for n in range(30)]
    net = dataclasses.replace(own.FREE, labels=30)
    pipe = DiffusionPipeline(diffusion_bundle(net, own.weights("class"), process=own.process(), size=8, labels=names))
    with pytest.raises(ValueError, match=r"kind 7.* and 20 more$") as error:
        run(pipe, "kind 77")
    assert str(error.value).count("kind ") == 11


def test_every_way_to_edit_a_picture(pipes):
    pipe, prompts = pipes["class"], PROMPTS["class"]
    image = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype(np.uint8)
    changed = run(pipe, prompts, image=image, strength=0.5)
    assert changed.shape == image.shape
    mask = np.zeros((2, 8, 8, 1))
    mask[:, :4] = 1
    filled = run(pipe, prompts, image=image, mask=mask)
    np.testing.assert_array_equal(filled[:, 4:], image[:, 4:])
    assert (filled[:, :4] != image[:, :4]).any()
    larger, _ = edit.hires(pipe, prompts, key=jax.random.key(0), scale=1.5, steps=4)
    assert larger.shape == (2, 12, 12, 3)
    noises = edit.between(*pipe.noise(jax.random.split(jax.random.key(0), 2)), 3)
    assert run(pipe, [prompts[0]] * 3, init_noise=noises).shape == (3, 8, 8, 3)
    again, _ = edit.invert_and_edit(pipe, image, prompts, source=prompts[0], key=jax.random.key(0), steps=4)
    assert again.shape == image.shape


def test_an_untrained_model_makes_grey_pictures():
    """Its output is the same everywhere, and has no deviation to rescale by."""
    params = jax.tree.map(jnp.zeros_like, own.weights("class"))
    pipe = DiffusionPipeline(own.bundle("class", params), devices=jax.devices()[:1])
    np.testing.assert_array_equal(run(pipe, ["cat"], sampler="ddim"), 128)


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("text", {"vocabulary": None}, "has a text encoder and no vocabulary"),
        ("class", {"vocabulary": own.VOCABULARY}, "has no text encoder and a vocabulary"),
        ("class", {"labels": ("cat",)}, "names of 1 classes and the model knows 3"),
        ("nothing", {"labels": ("cat",)}, "names of 1 classes and the model knows 0"),
    ],
)
def test_what_does_not_belong_together(kind, options, words):
    with pytest.raises(ValueError, match=words):
        own.bundle(kind, **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sampler": "dimm"}, "unknown sampler 'dimm': expected one of ddim"),
        ({"prompts": []}, "no prompt was given"),
        ({"init_noise": np.zeros((2, 8, 8, 4))}, r"expected \(2, 8, 8, 3\)"),
        ({"steps": 2000}, "1000"),
        ({"eta": 2.0}, "eta"),
        ({"sampler": "dpmpp_2m", "eta": 0.5}, "no option 'eta'"),
        ({"guidance": [1.0, 2.0]}, "guidance is a list of 2: expected one number for all pictures"),
        ({"guidance": np.ones(2)}, "guidance is a list of 2"),
        ({"guidance": "3"}, "guidance is '3': expected a finite number"),
        ({"guidance": np.nan}, "guidance is nan"),
        ({"rescale": None}, "rescale is None"),
        ({"strength": np.inf, "image": np.zeros((2, 8, 8, 3), np.uint8)}, "strength is inf"),
        ({"steps": 2.5}, "steps is 2.5: expected a whole number"),
        ({"steps": True}, "steps is True"),
        ({"height": 0}, "height is 0"),
        ({"width": 2**15}, "expected sides from 1 to 16384"),
        ({"init_noise": np.ones((2, 8, 8, 3), int)}, "init_noise is of int64: expected finite floating-point numbers"),
        ({"init_noise": np.full((2, 8, 8, 3), np.nan)}, "init_noise is not finite everywhere"),
        ({"init_noise": 3}, "init_noise is a int: expected an array"),
        ({"init_noise": np.ones(3)}, r"init_noise has shape \(3,\): expected an array"),
        ({"image": np.full((2, 8, 8, 3), np.inf, np.float32)}, "image is not finite everywhere"),
        (
            {"image": np.zeros((2, 8, 8, 3), np.uint8), "mask": np.full((2, 8, 8, 1), np.nan)},
            "mask has values from nan",
        ),
        ({"chunks": 2}, "takes no chunks"),
        ({"stesp": 2}, "there is no option 'stesp': did you mean steps"),
        ({"key": 3}, r"key is 3: expected jax.random.key\(seed\)"),
        ({"key": np.array([0, 1], np.uint32)}, r"key is uint32 of shape \(2,\): expected jax.random.key"),
        ({"key": jax.random.PRNGKey(0)}, r"key is uint32 of shape \(2,\)"),
        ({"key": jax.random.split(jax.random.key(0), 3)}, "there are 3 keys for 2 pictures"),
    ],
)
def test_what_cannot_be_is_refused(pipes, options, words):
    before = pipes["text"].compiled()
    with pytest.raises(ValueError, match=words):
        pipes["text"](**{"prompts": PROMPTS["text"], "key": jax.random.key(0), "steps": 4, **options})
    assert pipes["text"].compiled() == before


def test_options_are_a_class_of_what_the_model_takes(pipes):
    names = {kind: {*pipe.Options.__annotations__} for kind, pipe in pipes.items()}
    assert names["text"] == names["class"] == names["nothing"] | {"guidance", "rescale", "negative"}
    assert names["nothing"] == {
        "steps", "sampler", "grid", "eta", "init_noise", "height", "width", "image", "mask", "strength"
    }  # fmt: skip
    pipe, prompts = pipes["class"], PROMPTS["class"]
    options = pipe.Options(steps=4, guidance=2.0)
    np.testing.assert_array_equal(
        pipe(prompts, key=jax.random.key(0), options=options), run(pipe, prompts, guidance=2.0)
    )
    assert pipe.Options().guidance == 3.0
    assert pipe.options(options, steps=5).steps == 5  # a field comes before them
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.steps = 3
    # the default and off are what a model without guidance does anyway
    assert {pipes["nothing"].options(guidance=g).guidance for g in (1, 3.0, None)} == {1, 3.0, None}
    with pytest.raises(ValueError, match="takes no guidance: it reads no prompt"):
        pipes["nothing"].options(guidance=2.0)


def test_a_prompt_that_is_not_read_is_said(pipes):
    with pytest.warns(UserWarning, match="this model reads no prompts"):
        one = run(pipes["nothing"], ["anything", ""])
    np.testing.assert_array_equal(one, run(pipes["nothing"], ["", ""]))


def test_pictures_that_are_not_finite_are_an_error():
    params = own.weights("class")
    params["unet"]["conv_out"]["bias"] = jnp.full(3, jnp.nan)
    pipe = DiffusionPipeline(own.bundle("class", params), devices=jax.devices()[:1])
    with pytest.raises(
        FloatingPointError, match=r"^the values of pictures 0 are not finite, computed in float32: use a"
    ):
        run(pipe, ["cat"])
