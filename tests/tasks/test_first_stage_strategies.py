"""A task with a codebook, averages over steps and a critic trains the same on every mesh, under pmap, and in parts."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from jaxdiff.models.autoencoder_vq import VQConfig
from jaxdiff.models.patch_critic import PatchCriticConfig
from jaxdiff.parallel import MeshSpec, compile, rules
from jaxdiff.tasks.first_stage import Assets, Config
from jaxdiff.tasks.first_stage_loss import LossConfig
from jaxdiff.training import OptimizerConfig, make_ema, make_init_state, make_optimizer, make_train_step

SGD = OptimizerConfig(name="sgd", lr=0.1, decay="constant", clip=0.0)
TASK = Config(
    net=VQConfig(channels=(4, 8), layers=1, latent_channels=2, groups=2, mid_attention=False, codes=8, width=2),
    loss=LossConfig(
        perceptual="none", frechet="none", adversarial_start=1, critic=PatchCriticConfig(width=4, layers=1, groups=2)
    ),
    critic_optimizer=dataclasses.replace(SGD, lr=0.05, clip=0.5),
).task(Assets(16, np.zeros((0, 16, 16, 3), np.uint8)))
BATCH = 16


def batch(step):
    return {"image": np.random.default_rng(step).integers(0, 256, (BATCH, 16, 16, 3)).astype(np.uint8)}


def first(shapes):
    """A state of random arrays, instead of the task's own first one, which takes longer to compile."""
    rng = np.random.default_rng(0)
    state = jax.tree.map(lambda x: (0.3 * rng.standard_normal(x.shape)).astype(x.dtype), shapes)
    book = state.extra["codebook"]
    ones = np.ones(8, np.float32)
    extra = {
        "latents": np.zeros(3, np.float32),
        "balance": np.float32(1),
        "codebook": book._replace(counts=ones, chosen=ones),
    }
    generator = {"generator": state.params["generator"]}
    zero = jax.tree.map(np.zeros_like, state.opt_state)
    return dataclasses.replace(state, step=np.int32(0), opt_state=zero, ema_params=generator, extra=extra)


def train(spec, devices, accumulate, steps=3):
    optimizer = make_optimizer(SGD, steps, TASK.groups)
    make_step = functools.partial(make_train_step, TASK, optimizer, make_ema(0.9), accumulate=accumulate)
    run = compile(make_step, make_init_state(TASK, optimizer), {}, batch(0), spec, (), jax.devices()[:devices])
    state = jax.device_put(first(run.like), run.shardings)
    for step in range(steps):
        state, metrics = run.step(state, run.put(batch(step)), run.keys(jax.random.key(1), step, BATCH))
    return jax.device_get((state, metrics))


@pytest.fixture(scope="module")
def one_device():
    return train(MeshSpec(), 1, 1)


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("spec", "devices", "accumulate"),
    [
        (MeshSpec(), 1, 4),
        ("pmap", 8, 1),
        (MeshSpec(data=8), 8, 1),
        (MeshSpec(data=1, fsdp=8), 8, 1),
        (MeshSpec(data=2, fsdp=2, tensor=2), 8, 2),
    ],
    ids=str,
)
def test_every_strategy_trains_the_same(spec, devices, accumulate, one_device, monkeypatch):
    monkeypatch.setattr(rules, "SMALLEST", 64)  # so that these small weights are split too
    found, told = train(spec, devices, accumulate)
    for name in ("params", "ema_params", "extra"):
        ours, theirs = getattr(found, name), getattr(one_device[0], name)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), ours, theirs)
    for name, value in one_device[1].items():
        assert told[name] == pytest.approx(value, rel=1e-3), name
    assert not np.allclose(found.extra["codebook"].codes, first(found).extra["codebook"].codes)
