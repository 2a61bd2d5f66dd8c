"""What all tasks on a model of others promise, with a network that compiles at once and depends on every parameter."""

import dataclasses
import json
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pipelines import directory, small
from tasks import published_cases as cases
from tasks.published_cases import (
    ADAM,
    CONTROL,
    COUNT,
    DATA,
    FINE,
    LORA,
    SIZE,
    TASKS,
    WORD,
    Given,
    batch_of,
    made,
    one_device,
    started,
    walk,
)  # fmt: skip

from jaxdiff.data import DataConfig, picture
from jaxdiff.pipelines import first_stage
from jaxdiff.pretrained.read import read_component
from jaxdiff.pretrained.rules import flatten
from jaxdiff.tasks import base_model, class_pictures, controlnet, published
from jaxdiff.tasks.class_pictures import PriorConfig
from jaxdiff.tasks.previews import PreviewConfig
from jaxdiff.training import Known, OptimizerConfig
from jaxdiff.typing import Cond


class Sum:
    """A U-Net that adds up its parameters, each by waves of its own."""

    def __init__(self, config):
        self.config = config

    def apply(self, variables, x, t, cond, residuals=()):
        total = sum(jnp.asarray(p, jnp.float32).mean() for p in jax.tree.leaves(variables["params"]))
        words = cond.context.mean((1, 2)) + 0.1 * t / 1000
        seen = [*residuals, *cond.features, *(y for y in (cond.picture, cond.image) if y is not None)]
        # by weights that no norm makes zero
        more = sum(
            (y * jnp.sin(1.0 + jnp.arange(y.shape[-1])).reshape((1,) * (y.ndim - 1) + (-1,))).mean() for y in seen
        )
        return x * jnp.sin(total) + (words + more)[:, None, None, None]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return cases.save(tmp_path_factory.mktemp("models"))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(published, "UNet", Sum)
    apply = lambda params, x, t, cond: Sum(None).apply({"params": params}, x, t, cond)
    monkeypatch.setattr(first_stage, "moments", moments)
    monkeypatch.setattr(controlnet, "controlled", lambda unet, controls: apply)


@pytest.mark.parametrize("name", TASKS)
def test_a_run_that_shows_itself_is_read_without_its_data(name, model, tmp_path):
    task = dataclasses.replace(cases.fitted(name, model), preview=PreviewConfig(("a red heart",), steps=2))
    made(task, tmp_path)
    assets = task.assets(tmp_path, DATA)
    assert task.task(assets).previews


def moments(part, params, image):
    """Stands for an autoencoder's encoder."""
    small = image.astype(jnp.float32).reshape(len(image), SIZE // 2, 2, SIZE // 2, 2, 3).mean((2, 4)) / 255
    return jnp.concatenate([small, small, small], -1)[..., :8] * params["encoder"]["conv_in"]["bias"].mean()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "textual_inversion" else pytest.mark.heavy) for name in TASKS]
)
def test_what_is_said_to_train_moves_and_nothing_else_does(name, model, tmp_path):
    """It starts as the model is; and what is frozen is not averaged."""
    config = cases.fitted(name, model)
    task, assets = made(config, tmp_path)
    optimizer, state = started(task)
    weights = lambda state: flatten(config._weights(assets, state.params, state.frozen))
    first, after = weights(state), walk(task, optimizer, state, 2)
    moved = {path for path, x in weights(after).items() if not np.array_equal(x, first[path])}
    if hasattr(config, "train"):
        # a softmax does not see what is added to all its logits, as the bias of keys is
        expected = {p for p in first if any(re.fullmatch(one, p) for one in config.train) and "/attn/k/bias" not in p}
    elif hasattr(config, "rank"):
        more = r"|text_encoder/.*/fc\d" if "text_feed_forward" in config.parts else ""
        kinds = r"unet/.*/(attn\d/(q|k|v|out)|conv1|conv2|shortcut|conv|upsample)" + more
        expected = {path for path in first if re.fullmatch(f"({kinds})/kernel", path)}
    elif name == "textual_inversion":
        expected = {"text_encoder/token_embed/embedding"}
        table, old = (x["text_encoder/token_embed/embedding"] for x in (weights(after), first))
        np.testing.assert_array_equal(table[:-3], old[:-3])
        np.testing.assert_allclose(np.linalg.norm(table[-3:], axis=1), np.linalg.norm(old[-3:], axis=1), rtol=1e-5)
    else:
        own = {"controlnet": "controlnet/.*", "t2i_adapter": "adapter/.*"}
        pattern = own.get(name, r"projection/.*|unet/.*/(k|v)_picture/kernel")
        expected = {path for path in first if re.fullmatch(pattern, path)}
    assert moved == expected
    for path, x in flatten(after.params).items():  # a critic too, which is no part of the model
        assert np.any(np.asarray(x) != np.asarray(flatten(state.params)[path])) or path.endswith("attn/k/bias"), path
    jax.tree.map(np.testing.assert_array_equal, after.frozen, state.frozen)
    averaged = {name: after.params[name] for name in task.averaged or after.params}
    assert jax.tree.structure(after.ema_params) == jax.tree.structure(averaged)
    for path, x in flatten(task.load(one_device)).items():
        given = first[path][: len(x)] if path.endswith("embedding") else first[path]
        np.testing.assert_allclose(given, x, rtol=1e-6, atol=1e-7, err_msg=f"{path} starts otherwise than the model")


@pytest.mark.heavy
def test_accumulation_changes_nothing(model, tmp_path):
    """Of plain descent: Adam divides by a gradient's own size, and so makes much of how a sum was rounded."""
    task, _ = made(dataclasses.replace(LORA, model=model), tmp_path)
    optimizer, state = started(task, rate=OptimizerConfig(name="sgd", lr=1.0, decay="constant", clip=0.0))
    one, two = (walk(task, optimizer, state, 2, accumulate=parts).params for parts in (1, 2))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6), one, two)
    assert not all(np.array_equal(x, y) for x, y in zip(*map(jax.tree.leaves, (one, state.params)), strict=True))


@pytest.mark.heavy
def test_a_text_encoders_rate_has_its_effect(model, tmp_path):
    still = OptimizerConfig(name="sgd", lr=1e-12, decay="constant")
    config = dataclasses.replace(FINE, model=model, groups=(("text_encoder/.*", still),))
    task, _ = made(config, tmp_path)
    optimizer, state = started(task, config.groups)
    after = walk(task, optimizer, state, 1)
    far = {name: max(jax.tree.leaves(jax.tree.map(lambda x, y: float(jnp.abs(x - y).max()), after.params[name],
                                                  state.params[name]))) for name in after.params}  # fmt: skip
    assert far["unet"] > 1e-3
    assert far["text_encoder"] < 1e-6


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["finetune", "lora"])
def test_adafactor_trains_in_groups_of_its_own(name, model, tmp_path):
    """A U-Net by Adafactor and its text encoder by AdamW: all moves, and the state of the first has no first moment."""
    factored = dataclasses.replace(ADAM, name="adafactor", lr=1e-3)
    config = dataclasses.replace(TASKS[name], model=model, groups=(("text_encoder/.*", ADAM),))
    task, _ = made(config, tmp_path)
    optimizer, state = started(task, config.groups, rate=factored)
    _, plain = started(task, config.groups)
    held = lambda state: sum(x.size for x in jax.tree.leaves(state.opt_state))
    own = sum(x.size for path, x in flatten(state.params).items() if path.startswith("unet/"))
    assert held(state) < held(plain) - 0.9 * own
    before, after = flatten(state.params), flatten(walk(task, optimizer, state, 2).params)
    for path, x in after.items():
        assert np.all(np.isfinite(x))
        assert np.any(np.asarray(x) != np.asarray(before[path])) or path.endswith("attn/k/bias"), path


def test_frozen_weights_lie_in_the_dtype_of_the_computation_and_masters_in_float32(model, tmp_path):
    task, assets = made(dataclasses.replace(LORA, model=model, dtype="bfloat16"), tmp_path)
    _, state = started(task)
    assert {x.dtype for x in jax.tree.leaves(state.params)} == {jnp.dtype("float32")}
    for path, x in flatten(state.frozen).items():
        wide = path.startswith("vae/") or path in assets.more
        assert x.dtype == ("float32" if wide else "bfloat16"), path


@pytest.mark.heavy
def test_a_class_is_added_by_its_weight(model, tmp_path):
    """loss = loss of the pictures + weight x loss of those of the class, each with draws of its own."""
    task, _ = made(dataclasses.replace(FINE, drop=0.0, model=model), tmp_path)
    _, state = started(task)
    keys = jax.random.split(jax.random.key(5), COUNT)
    losses = {}
    for weight in (0.0, 2.0):
        config = dataclasses.replace(FINE, drop=0.0, model=model, prior=PriorConfig(prompt="a heart", weight=weight))
        both, _ = made(dataclasses.replace(config, prior=PriorConfig()), tmp_path, classes=Given())
        both = config.task(dataclasses.replace(config, prior=PriorConfig()).assets(tmp_path, DATA, Given())._replace(
            classes=Given()))  # fmt: skip
        batch = batch_of(both)
        assert {name for name in batch if name.startswith("class/")} == {"class/image", "class/text_encoder"}
        loss, metrics, _ = jax.jit(both.loss)(state.params, Known(state.frozen, {}, {}, 0), batch, keys)
        np.testing.assert_allclose(loss, metrics["loss_own"] + weight * metrics["loss_class"], rtol=1e-6)
        losses[weight] = float(metrics["loss_own"]), float(metrics["loss_class"])
    assert losses[0.0] == losses[2.0]
    own = {name: x for name, x in batch.items() if not name.startswith("class/")}
    alone = jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys)
    expected = jax.jit(task.loss)(state.params, Known(state.frozen, {}, {}, 0), own, alone)[0]
    np.testing.assert_allclose(losses[0.0][0], expected, rtol=1e-6)


@pytest.mark.heavy
def test_latents_that_are_kept_train_as_pictures_do(model, tmp_path):
    task, assets = made(dataclasses.replace(FINE, model=model), tmp_path)
    _, state = started(task)
    batch, vae = batch_of(task), read_component(model / "vae")
    encoded = np.asarray(moments(vae, vae.params, batch["image"]))
    rows = [task.example({"moments": encoded[i][None], "caption": one}, np.random.default_rng(0))
            for i, one in enumerate(Given().captions())]  # fmt: skip
    kept = {name: jnp.asarray(np.stack([row[name] for row in rows])) for name in rows[0]}
    assert kept.keys() == {"moments", "text_encoder"}
    keys = jax.random.split(jax.random.key(5), COUNT)
    told = [jax.jit(task.loss)(state.params, Known(state.frozen, {}, {}, 0), x, keys)[0] for x in (batch, kept)]
    np.testing.assert_allclose(*told, rtol=1e-5)
    del assets


def test_the_scheduler_says_what_the_model_becomes(model):
    config = dataclasses.replace(FINE, model=model, prediction="v_prediction", zero_terminal=True)
    base = config._outline()
    assert base.model.process.kind == "v"
    assert base.model.process.schedule.zero_terminal
    assert base.bundle.index["scheduler"] == ["diffusers", "DDIMScheduler"]


def test_numbers_of_sdxl_are_those_of_the_cut():
    """A picture of 40x20, scaled by 0.8 to cover 16x16, loses 8 rows above and below."""
    np.testing.assert_array_equal(published.sizes((40, 20), (16, 16), 6), [40, 20, 8, 0, 16, 16])
    np.testing.assert_array_equal(published.sizes((16, 16), (16, 16), 5), [16, 16, 0, 0, 6])
    rows = np.arange(40, dtype=np.uint8)[:, None, None].repeat(20, 1).repeat(3, 2)
    cut = picture.decode(picture.encode(rows).getvalue(), 16)
    assert abs(int(cut[0, 0, 0]) - 8 / 0.8) <= 1


def test_noise_on_the_text_is_that_of_each_example_and_of_the_deviation_that_is_said():
    keys, states = jax.random.split(jax.random.key(0), 8), jnp.ones((8, 77, 64))
    noise = published.noisy(Cond(context=states), keys, 2.0).context - states
    np.testing.assert_allclose(noise.std(), 2 / 64**0.5, rtol=0.02)  # 39 thousand numbers
    np.testing.assert_allclose(noise.mean(), 0, atol=5e-3)
    alone = published.noisy(Cond(context=states[3:4]), keys[3:4], 2.0).context - states[3:4]
    np.testing.assert_allclose(alone, noise[3:4], atol=1e-6)


@pytest.mark.heavy
def test_noise_on_the_text_changes_the_loss(model, tmp_path):
    losses = []
    for gamma in (0.0, 1.0):
        task, _ = made(dataclasses.replace(FINE, drop=0.0, model=model, condition_noise=gamma), tmp_path)
        _, state = started(task)
        keys = jax.random.split(jax.random.key(5), COUNT)
        losses.append(float(jax.jit(task.loss)(state.params, Known(state.frozen, {}, {}, 0), batch_of(task), keys)[0]))
    assert abs(losses[0] - losses[1]) > 1e-4


BAD = [
    (FINE, {"model": None}, "task.model is not given"),
    (FINE, {"model": pathlib.Path("nowhere")}, "task.model is nowhere, and nothing is there"),
    (FINE, {"model": pathlib.Path(__file__)}, "file, which has no tokenizer: give task.tokenizer"),
    (FINE, {"tokenizer": pathlib.Path("words")}, "is a directory, which has its own: leave it out"),
    (FINE, {"train": ("unet/nothing.*",)}, "task.train has 'unet/nothing.*', which matches no parameter"),
    (
        FINE,
        {"train": ("vae/.*",)},
        "task.train has 'vae/.*', which matches no parameter of (unet, text_encoder|text_encoder, unet):",
    ),
    (FINE, {"train": ("unet/(",)}, r"task.train has 'unet/\(', which is no pattern"),
    (FINE, {"train": ()}, "task.train is empty"),
    (FINE, {"drop": 1.5}, "task.drop is 1.5: expected at least 0 and at most 1"),
    (FINE, {"condition_noise": -1.0}, "task.condition_noise is -1.0: expected at least 0 and at most 100"),
    (cases.TASKS["lcm"], {"condition_noise": 1.0}, "task.condition_noise is 1.0, and a student follows its teacher"),
    (FINE, {"min_snr": 0.0}, "task.min_snr is 0.0"),
    (FINE, {"zero_terminal": True}, "task.zero_terminal wants task.prediction v_prediction"),
    (FINE, {"prior": PriorConfig(folder=pathlib.Path("x"))}, "task.prior.folder is x: give task.prior.prompt"),
    (FINE, {"prior": PriorConfig(count=0)}, "task.prior.count is 0"),
    (LORA, {"parts": ()}, "task.parts and task.paths are empty"),
    (LORA, {"paths": ("unet/.*norm.*",)}, "which is no layer's kernel"),
    (LORA, {"rank": 0}, "gets rank 0 and alpha 3"),
    (LORA, {"alphas": (("unet/none", 1.0),)}, "task.alphas has 'unet/none', which matches no parameter"),
    (WORD, {"word": "heart"}, "task.word: the tokenizer knows 'heart' already: choose another word"),
    (WORD, {"word": " "}, "task.word: a new word for prompts needs at least one sign"),
    (WORD, {"init": ""}, "task.init is ''"),
    (WORD, {"vectors": 0}, "task.vectors is 0"),
    (WORD, {"templates": ("a photo",)}, "task.templates has 'a photo', without {} for the word"),
    (CONTROL, {"folder": pathlib.Path("x")}, "task.hint is 'canny' and task.folder x: only files lie in one"),
    (cases.TASKS["lcm"], {"guidance": (3.0, 2.0)}, r"task.guidance is \(3.0, 2.0\): expected the least and the most"),
    (cases.TASKS["lcm"], {"intervals": 3}, "task.intervals is 3: expected a divisor of the model's 1000 steps"),
    (cases.TASKS["lcm"], {"huber": 0.0}, "task.huber is 0.0: expected a number above 0"),
    (cases.TASKS["lcm"], {"min_snr": 5.0}, "task.min_snr is 5.0, and a student follows its teacher"),
    (
        cases.TASKS["lcm"],
        {"train": ("text_encoder/.*",)},
        "task.train matches .*student and teacher read the same text",
    ),
    (cases.TASKS["lcm"], {"adversarial": -1.0}, "task.adversarial is -1.0: expected 0 or more"),
    (cases.TASKS["lcm"], {"adversarial": 1.0}, r"critic: an image of 8 is too small for 2 layers"),
    (cases.TASKS["lcm"], {"guidance_width": 3}, "task.guidance_width is 3: expected an even number, or 0"),
    (cases.TASKS["lcm"], {"guidance_width": 8}, "task.train leaves out unet/guidance_proj/kernel, which reads"),
    (cases.TASKS["dmd"], {"steps": 3}, "task.steps is 3: expected a divisor of the model's 1000 steps"),
    (cases.TASKS["dmd"], {"adversarial": -1.0}, "task.adversarial is -1.0: expected 0 or more"),
    (cases.TASKS["dmd"], {"min_snr": 5.0}, "task.min_snr is 5.0, and a student follows its teacher"),
    (cases.TASKS["progressive"], {}, "which predicts eps: of pure noise that says nothing"),
    (cases.TASKS["instruct"], {"drop": 0.5}, "task.drop is 0.5, three times of which are left out"),
    (cases.TASKS["inpaint"], {"whole": -1.0}, "task.whole is -1.0"),
    (cases.TASKS["t2i_adapter"], {"layers": 0}, "task.layers is 0: expected 1 to 100"),
    (cases.TASKS["ip_adapter"], {}, "task.image_encoder is not given"),
    (cases.TASKS["ip_adapter"], {"tokens": 0}, "task.tokens is 0: expected 1 to 1024"),
    (FINE, {"tags": -1}, "task.tags is -1"),
    (CONTROL, {"hint_channels": (4, 4, 4)}, "task.hint_channels is .*expected 2 widths"),
    (CONTROL, {"low": 300.0}, "task.low is 300.0"),
    (CONTROL, {"prior": PriorConfig(prompt="a heart")}, "task.prior is for what learns"),
]


@pytest.mark.parametrize(("task", "change", "message"), BAD, ids=[message[:40] for *_, message in BAD])
def test_what_does_not_fit_is_refused_before_anything_is_read(task, change, message, model):
    config = dataclasses.replace(task, **{"model": model, **change})
    with pytest.raises((ValueError, OSError), match=message) as told:
        config.check(DATA, ADAM)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("unet", "message"), [("tiny unet_inpaint", "takes 5 more channels"), ("tiny unet_edit", "takes 4 more channels")]
)
def test_models_that_take_a_picture_are_refused(unet, message, tmp_path):
    directory.save(tmp_path / "other", {**small.TINY, "unet": unet})
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(FINE, model=tmp_path / "other").check(DATA, ADAM)


def test_captions_without_the_word_and_sizes_that_do_not_fit_are_refused(model, tmp_path):
    with pytest.raises(ValueError, match="4 of 4 captions lack the word '<toy>', such as 'heart number 0'"):
        made(dataclasses.replace(WORD, model=model, templates=()), tmp_path)
    with pytest.raises(ValueError, match=r"data\.size is 15: the model wants multiples of 2"):
        dataclasses.replace(FINE, model=model).check(DataConfig(size=15), ADAM)


def test_hints_that_are_missing_are_named(model, tmp_path, monkeypatch):
    class Named(Given):
        def names(self):
            return [f"{i}.jpg" for i in range(COUNT)]

    (tmp_path / "hints").mkdir()
    for i in (0, 2):
        (tmp_path / "hints" / f"{i}.png").write_bytes(picture.encode(small.picture("x")[0]).getvalue())
    config = dataclasses.replace(CONTROL, model=model, hint="files", folder=tmp_path / "hints")
    with pytest.raises(ValueError, match=r"lacks 2 of 4: 1\.jpg, 3\.jpg; a file has the name of its picture"):
        config.assets(tmp_path, DATA, Named(), new=True)
    with pytest.raises(ValueError, match=r"task\.folder goes with pictures in a folder"):
        config.assets(tmp_path, DATA, Given(), new=True)
    alone = dataclasses.replace(config, folder=None)
    with pytest.raises(ValueError, match=r"give task\.folder, or name hints in the metadata\.jsonl of a folder"):
        alone.assets(tmp_path, DATA, Given(), new=True)
    monkeypatch.setattr(Named, "hints", lambda self: [None, pathlib.Path("x"), None, None], raising=False)
    with pytest.raises(ValueError, match=r'3 of 4 pictures have no hint: 0\.jpg, 2\.jpg, 3\.jpg; give each a "hint"'):
        alone.assets(tmp_path, DATA, Named(), new=True)


class Pipe:
    """Makes pictures of one colour, and is killed where it is told."""

    calls = 0

    def __init__(self, bundle, devices):
        pass

    def __call__(self, prompts, *, key, steps, guidance, height, width):
        Pipe.calls += 1
        if Pipe.calls == 2:
            raise KeyboardInterrupt
        shade = np.asarray(jax.random.randint(key[0], (), 0, 255), np.uint8)
        return np.full((len(prompts), height, width, 3), shade)


def test_class_pictures_are_made_once_and_a_kill_is_gone_on_from(tmp_path, monkeypatch):
    monkeypatch.setattr(class_pictures, "DiffusionPipeline", Pipe)
    Pipe.calls = 0
    prior, bundle = PriorConfig(prompt="a heart", count=5, batch=2), lambda: None
    with pytest.raises(KeyboardInterrupt):
        class_pictures.opened(prior, tmp_path, DATA, bundle)
    assert not (tmp_path / "class_pictures").exists()
    found = class_pictures.opened(prior, tmp_path, DATA, bundle)
    assert (len(found), Pipe.calls) == (5, 4)
    assert found[0]["image"].shape == (SIZE, SIZE, 3)
    class_pictures.opened(prior, tmp_path, DATA, lambda: pytest.fail("they are there"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty is there and has no picture: put pictures of the class in, or remove"):
        class_pictures.opened(dataclasses.replace(prior, folder=tmp_path / "empty"), tmp_path, DATA, bundle)
    many = dataclasses.replace(prior, count=2000, folder=tmp_path / "many")
    monkeypatch.setattr(class_pictures.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10**6 - 1}))
    with pytest.raises(OSError, match="many: 2000 pictures may take 2 MB, and 1 MB are free"):
        class_pictures.opened(many, tmp_path, DATA, bundle)


def test_tags_come_in_every_order_after_those_that_stay():
    orders = {published.shuffled("toy, red,blue , green,", 1, np.random.default_rng(i)) for i in range(60)}
    assert {one.split(", ")[0] for one in orders} == {"toy"}
    assert len(orders) == 6
    assert all(sorted(one.split(", ")) == ["blue", "green", "red", "toy"] for one in orders)


def test_another_base_is_refused_and_a_run_without_its_note_too(model, tmp_path):
    config = dataclasses.replace(LORA, model=model)
    config.assets(tmp_path, DATA, Given(), new=True)
    told = json.loads((tmp_path / base_model.NOTE).read_text())
    assert told["sha256"] == config.assets(tmp_path, DATA).base.sha256
    (tmp_path / base_model.NOTE).write_text(json.dumps({**told, "sha256": "0" * 64}))
    with pytest.raises(ValueError, match=r"task.model is .*, another model \(hash .*\) than .* was trained on"):
        config.assets(tmp_path, DATA)
    (tmp_path / base_model.NOTE).unlink()
    with pytest.raises(FileNotFoundError, match=r"base\.json is missing"):
        config.assets(tmp_path, DATA)


def test_a_run_from_the_hub_goes_on_with_the_commit_that_it_began_with(model, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(base_model.hub, "local", lambda path, revision, **options: asked.append(revision) or model)
    monkeypatch.setattr(base_model.hub, "commit_of", lambda folder: "c" * 40)
    config = dataclasses.replace(LORA, model=pathlib.Path("org/name"), revision="main")
    config.assets(tmp_path, DATA, Given(), new=True)
    config.assets(tmp_path, DATA)
    assert asked == ["main", "c" * 40]
    assert json.loads((tmp_path / base_model.NOTE).read_text())["revision"] == "c" * 40
