"""Both towers under every strategy, their files, and what is refused."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import parallel, training
from jaxdiff.data import tokenizer_clip
from jaxdiff.data.config import DataConfig
from jaxdiff.models.image_clip import ClipImageConfig
from jaxdiff.models.text_clip import ClipTextConfig
from jaxdiff.parallel import MeshSpec, rules
from jaxdiff.pretrained import clip_model
from jaxdiff.pretrained.rules import clip as clip_rules
from jaxdiff.pretrained.write import write_directory
from jaxdiff.tasks import clip
from jaxdiff.training import OptimizerConfig, Variables

CAPTIONS = ("red heart", "blue heart", "green book", "a red book", "Blue circle", "yellow square", "it's", "pear")
MODEL = clip.Config(
    image=ClipImageConfig(size=8, patch=4, width=8, mlp=16, layers=1, heads=2, projection=6),
    text=ClipTextConfig(vocabulary=540, length=8, width=8, mlp=16, layers=1, heads=2, projection=6, end=None),
    vocabulary=540,
)
ASSETS = clip.Assets(8, tokenizer_clip.learn(CAPTIONS, 540))
SGD = OptimizerConfig(name="sgd", lr=1.0, decay="constant", clip=0.0, weight_decay=0.0)


def batch():
    rng, task = np.random.default_rng(0), MODEL.task(ASSETS)
    images = rng.integers(0, 256, (8, 8, 8, 3), dtype=np.uint8)
    rows = [task.example({"image": image, "caption": text}, rng) for image, text in zip(images, CAPTIONS, strict=True)]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def weights():
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(MODEL.task(ASSETS).init, jax.random.key(0), {}, batch()).params
    made = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) * 0.3, jnp.float32), shapes)
    return {**made, "log_scale": jnp.log(jnp.float32(10.0))}


@functools.cache
def moved(spec, devices):
    """The loss, and how far one step of SGD of rate 1 moves: the gradient."""
    task = dataclasses.replace(MODEL.task(ASSETS, spec), init=lambda key, loaded, data: Variables(weights()))
    optimizer = training.make_optimizer(SGD, 1)
    program = parallel.compile(
        functools.partial(training.make_train_step, task, optimizer, training.make_ema(0.9)),
        training.make_init_state(task, optimizer),
        {},
        batch(),
        spec,
        devices=jax.devices()[:devices],
    )
    state = program.init(jax.random.key(0))
    state, metrics = program.step(state, program.put(batch()), program.keys(jax.random.key(1), 0, 8))
    slope = jax.tree.map(lambda a, b: np.asarray(a) - np.asarray(b), weights(), jax.device_get(state.params))
    return jax.device_get(metrics), slope


@pytest.mark.slow
@pytest.mark.parametrize("spec", [MeshSpec(), pytest.param(MeshSpec(2, 2, 2), marks=pytest.mark.heavy), "pmap"])
def test_loss_and_gradients_are_those_of_one_device(monkeypatch, spec):
    monkeypatch.setattr(rules, "SMALLEST", 64)  # so that these small weights are split too
    (there, slopes), (here, expected) = moved(spec, 8), moved(MeshSpec(), 1)
    for name in ("loss", "accuracy", "scale"):
        np.testing.assert_allclose(there[name], here[name], rtol=1e-5)
    for ours, one in zip(jax.tree.leaves(slopes), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, one, atol=1e-5)
    assert abs(expected["log_scale"]) > 1e-3


def test_a_vocabulary_that_was_learned_is_a_published_one(tmp_path):
    """Of the same layout; each caption of the data comes back, and the end token has the largest id."""
    words = ASSETS.tokenizer
    tokenizer_clip.write(words, tmp_path, 8)
    again = tokenizer_clip.read(tmp_path)
    assert (again.ids, again.merges) == (words.ids, words.merges)
    for text in CAPTIONS:
        ids = words.encode(text, 20)
        assert ids.max() == words.size - 1 == ids[-1]
        assert words.cut(text, 20) == (text.lower().replace("'", " '"), "")
    assert len(words.tokens("red heart")) < len("redheart")  # pairs were merged
    assert words.size <= 540
    with pytest.raises(ValueError, match="vocabulary size 514: expected at least 515"):
        tokenizer_clip.learn(CAPTIONS, 514)
    with pytest.raises(ValueError, match="no word of two letters"):
        tokenizer_clip.learn(("a", "b"), 540)


def test_a_runs_towers_are_read_as_published_ones(tmp_path):
    bundle = MODEL.bundle(ASSETS, Variables(weights()))
    write_directory(bundle, tmp_path / "clip")
    found = clip.read(tmp_path / "clip")
    assert (found.image.config, found.text.config) == (MODEL.image, MODEL.text)
    for ours, name in ((found.image, "image"), (found.text, "text")):
        jax.tree.map(np.testing.assert_array_equal, ours.params, weights()[name])
    assert found.tokenizer.ids == ASSETS.tokenizer.ids
    other = dataclasses.replace(found.text, config=dataclasses.replace(MODEL.text, projection=5))
    with pytest.raises(ValueError, match="vectors of pictures have 6 numbers and those of texts 5"):
        clip_model.check(found._replace(text=other), tmp_path)


def test_config_files_say_all_numbers():
    text = dataclasses.replace(MODEL.text, end=7, eps=1e-6, activation="gelu")
    assert clip_rules.text_config(clip_rules.text_json(text), projection=True) == text
    image = dataclasses.replace(MODEL.image, eps=1e-6, activation="gelu")
    assert clip_rules.image_config(clip_rules.image_json(image)) == image


def changed(part, **numbers):
    return {part: dataclasses.replace(getattr(MODEL, part), **numbers)}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (changed("image", size=16), "task.image.size is 16 .*expected data.size 8"),
        (changed("image", patch=3), "task.image.patch 3"),
        (changed("image", projection=4), "task.image.projection is 4 and task.text.projection 6"),
        (changed("image", heads=3), "task.image.width is 8, which does not divide into 3 heads"),
        (changed("image", layers=0), "task.image.layers is 0"),
        (changed("image", activation="relu"), "task.image.activation is 'relu'"),
        (changed("text", length=1), "task.text.length is 1: expected 2 or more"),
        (changed("text", end=7), "task.text.end is 7"),
        (changed("text", eps=0.0), "task.text.eps is 0.0"),
        (changed("text", vocabulary=530), "task.text.vocabulary is 530, below task.vocabulary 540"),
        (changed("text", dtype="float8"), "task.text: dtype is 'float8'"),
        ({"vocabulary": 100}, "vocabulary size 100"),
    ],
)
def test_numbers_that_do_not_fit_are_named(changes, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(MODEL, **changes).check(DataConfig(size=8), OptimizerConfig())


@pytest.mark.parametrize(("size", "parts", "words"), [(1, 1, "train.batch_size is 1"), (8, 2, "train.accumulate is 2")])
def test_batches_that_cannot_be_contrasted_are_refused(size, parts, words):
    with pytest.raises(ValueError, match=words):
        MODEL.check_batch(size, parts)
    MODEL.check(DataConfig(size=8), OptimizerConfig())
    MODEL.check_batch(2, 1)
