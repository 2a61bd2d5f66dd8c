"""Five steps of every task on a model of others, as plain PyTorch loops make them over the reference's modules."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pipelines import small
from reference import finetune_cases as cases
from reference.sd_weights import load, noise

from jaxdiff import training
from jaxdiff.models.unet import UNet
from jaxdiff.pretrained import files, lora
from jaxdiff.pretrained.components import family
from jaxdiff.pretrained.rules import to_tensors
from jaxdiff.typing import Cond

INDEX, ARRAYS = load(small.REFERENCE / "finetune.npz")
ARRAYS = {**ARRAYS, **np.load(small.REFERENCE / "lcm.npz")}
BY_DEFAULT = ("textual_inversion sd",)
"""The smallest gradient; the others are `heavy`."""


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """(family) -> the directory of its model."""

    return {name: cases.save(INDEX[name], tmp_path_factory.mktemp(name)) for name in INDEX}


def published(task, assets, params, folder):
    """Trained parameters by the reference's names."""
    if hasattr(task, "factors"):
        lora.write(
            folder / "x.safetensors", cases.unscaled(task.factors(assets, params)), assets.base.bundle.components
        )
        return {name: np.asarray(x) for name, x in files.read_safetensors(folder / "x.safetensors").items()}
    if "vectors" in params:
        return dict(params["vectors"])
    found = {}
    for name, own in params.items():
        part = assets.base.bundle.components[name]
        made = to_tensors(own, family(part.kind).rules(part.config, part.json))
        found |= {f"{name}.{tensor}": np.asarray(x) for tensor, x in made.items()}
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=[] if case in BY_DEFAULT else pytest.mark.heavy)
        for case in cases.CASES | cases.STUDENTS
    ],
)
def test_five_steps_are_the_references(case, models, tmp_path):
    path = models[case.split()[1]]
    task, assets = cases.prepared(case, path, tmp_path)
    made = task.task(assets)
    loaded = made.load(cases.one_device)
    optimizer = training.make_optimizer(cases.OPTIMIZER, cases.STEPS)
    state = training.make_init_state(made, optimizer)(cases.first_key(), loaded, cases.batch(made, 0))
    before = cases.thinned(published(task, assets, state.params, tmp_path))
    step = jax.jit(training.make_train_step(made, optimizer, training.make_ema(0.0)))
    losses = []
    for n in range(cases.STEPS):
        state, metrics = step(state, jax.tree.map(jnp.asarray, cases.batch(made, n)), cases.keys(n))
        losses.append(float(metrics["loss"]))
    np.testing.assert_allclose(losses, ARRAYS[f"{case}/losses"], rtol=1e-4)
    after, expected = cases.thinned(published(task, assets, state.params, tmp_path)), ARRAYS[f"{case}/trained"]
    error = np.abs(after - expected).max() / np.abs(expected).max()
    assert error < 1e-4, f"relative error {error:.1e}"
    # Adam divides by a gradient's own size, so that the least of them move by the rounding of either library
    moved = np.linalg.norm(after - expected) / np.linalg.norm(expected - before)
    assert moved < 1e-2, f"relative error of what moved {moved:.1e}"


def test_a_published_run_is_read_by_what_it_stands_on(models, tmp_path):
    """A run notes the hash of its base, and refuses another."""
    task, _ = cases.prepared("lora sd", models["sd"], tmp_path)
    task.assets(tmp_path, cases.DATA)
    other = dataclasses.replace(task, model=models["xl"], ranks=())
    with pytest.raises(ValueError, match=r"task.model is .*, another model \(hash .* than .* was trained on"):
        other.assets(tmp_path, cases.DATA)


@pytest.mark.heavy
def test_a_new_controlnet_changes_no_bit(models, tmp_path):
    """Its zero convolutions add zeros; as soon as one is not zero, the output is another."""
    task, assets = cases.prepared("controlnet sd", models["sd"], tmp_path)
    made = task.task(assets)
    loaded = made.load(cases.one_device)
    params = made.init(cases.first_key(), loaded, cases.batch(made, 0)).params
    x, t = jnp.asarray(noise("x", (2, 8, 8, 4))), jnp.array([3.0, 700.0])
    context = jnp.asarray(noise("context", (2, 77, 8)))
    hint = jnp.asarray((noise("hint", (2, 16, 16, 3)) + 1) / 2)
    network = jax.jit(lambda control: task._network(assets)(
        {"unet": loaded["unet"], "controlnet": control}, x, t, Cond(context=context, hints=(hint,))))  # fmt: skip
    unet = UNet(assets.base.model.nets["unet"])
    plain = jax.jit(lambda: unet.apply({"params": loaded["unet"]}, x, t, Cond(context=context)))
    np.testing.assert_array_equal(network(params["controlnet"]), plain())
    other = {**params["controlnet"], "skip_mid": jax.tree.map(jnp.ones_like, params["controlnet"]["skip_mid"])}
    assert np.abs(np.asarray(network(other)) - plain()).max() > 1e-3
