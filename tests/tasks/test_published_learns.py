"""What tasks on a model of others learn, on toys: a LoRA its four pictures."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pipelines import directory, small
from reference.sd_weights import noise
from tasks import published_cases as cases

from jaxdiff import training
from jaxdiff.tasks import finetune, lora
from jaxdiff.tasks.class_pictures import PriorConfig
from jaxdiff.training import Known, OptimizerConfig

pytestmark = pytest.mark.heavy
RATE = OptimizerConfig(lr=3e-3, decay="constant", clip=1.0)
PARTS = ("attention", "feed_forward", "projections", "convolutions", "time")


def trained(task, loaded, batches, steps, rate=RATE):
    """The state after so many steps; `batches` says the batch of each."""
    optimizer = training.make_optimizer(rate, steps)
    state = jax.jit(training.make_init_state(task, optimizer))(jax.random.key(0), loaded, batches(0))
    step = jax.jit(training.make_train_step(task, optimizer, training.make_ema(0.0)), donate_argnums=0)
    for n in range(steps):
        batch = batches(n)
        state, metrics = step(state, batch, jax.random.split(jax.random.key(n), len(batch["text_encoder"])))
    assert np.isfinite(float(metrics["loss"]))
    return state


def tokens(assets, caption, count):
    base = assets.base
    one = base.bundle.tokenizers["tokenizer"].encode(caption, base.model.texts["text_encoder"])
    return jnp.asarray(np.tile(one, (count, 1)))


def test_a_lora_overfits_four_pictures_and_a_prior_keeps_their_class(tmp_path):
    """The class is a plane of latents, which the base has learned; the subject is four latents beside it."""
    model, rng = directory.save(tmp_path / "model"), np.random.default_rng(0)
    subject = np.stack([2 * noise(f"subject {i}", (8, 8, 4)) for i in range(4)])
    plane = np.stack([np.kron(2 * noise(f"plane {i}", (2, 2, 4)), np.ones((4, 4, 1), np.float32)) for i in range(2)])

    def moments(x0):
        scaled = x0 / small.part("tiny vae").config.scale
        return jnp.asarray(np.concatenate([scaled, np.full_like(x0, -30.0)], -1), jnp.float32)

    members = lambda count: moments(np.einsum("nk,khwc->nhwc", rng.normal(size=(count, 2)), plane).astype(np.float32))
    whole = finetune.Config(model=model)
    assets = whole.assets(tmp_path, cases.DATA, cases.Given(), new=True)
    of_class = lambda n: {"moments": members(16), "text_encoder": tokens(assets, "a heart", 16)}
    task = whole.task(assets)
    loaded = task.load(cases.one_device)
    loaded["unet"] = trained(task, dict(loaded), of_class, 400).params["unet"]

    def both(count):
        given = {"moments": moments(np.tile(subject, (count // 4, 1, 1, 1))), "class/moments": members(count)}
        told = {"text_encoder": "a toy heart", "class/text_encoder": "a heart"}
        return {**given, **{name: tokens(assets, caption, count) for name, caption in told.items()}}

    held, rises = both(64), {}
    for weight in (0.0, 1.0):
        config = lora.Config(model=model, parts=PARTS, rank=8)
        found = config.assets(tmp_path, cases.DATA, cases.Given())._replace(classes=cases.Given())
        task = dataclasses.replace(config, prior=PriorConfig(prompt="a heart", weight=weight)).task(found)
        measure = jax.jit(lambda params, frozen, task=task: task.loss(
            params, Known(frozen, {}, {}, 0), held, jax.random.split(jax.random.key(9), 64))[1])  # fmt: skip
        before = task.init(jax.random.key(0), dict(loaded), held)
        state = trained(task, dict(loaded), lambda n: both(4), 800)
        first, last = measure(before.params, before.frozen), measure(state.params, before.frozen)
        print(weight, {name: (float(first[name]), float(last[name])) for name in ("loss_own", "loss_class")})
        # so small a network learns the subject more slowly where it has to keep the class too
        assert last["loss_own"] < (0.8 if weight else 0.5) * first["loss_own"]
        rises[weight] = float(last["loss_class"] - first["loss_class"])
    assert rises[0.0] > 0
    assert rises[1.0] < 0.5 * rises[0.0]
