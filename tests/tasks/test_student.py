"""Few-step students of a run of our own: they start as it is, every part moves, and they are sampled as taught."""

import dataclasses

import flax.linen as nn
import jax
import numpy as np
import pytest
from tasks.test_teacher import ADAM, DATA, NET, run

from jaxdiff import training
from jaxdiff.diffusion.process import ProcessConfig
from jaxdiff.models.patch_critic import PatchCriticConfig
from jaxdiff.models.unet import UNetConfig
from jaxdiff.pretrained.rules import flatten
from jaxdiff.tasks import picture, picture_dmd, picture_lcm
from jaxdiff.training import OptimizerConfig, Variables

V = ProcessConfig(prediction="v")
SIZE = 8
TEACHER = picture.Config(process=V, net=dataclasses.replace(NET, labels=3), condition="class", drop=0.3)
SHARED = {name: getattr(TEACHER, name) for name in ("process", "net", "condition", "drop")}
CRITIC = PatchCriticConfig(width=4, layers=1, groups=4)
KINDS = {
    "lcm": picture_lcm.Config(**SHARED, guidance=2.0),
    "dmd": picture_dmd.Config(**SHARED, guidance=2.0, steps=2, adversarial=0.1, critic=CRITIC),
}
ASSETS = picture.Assets(SIZE, labels=("a", "b", "c"))
COUNT = 4


class Small(nn.Module):
    """A network that compiles at once, and reads all that a U-Net of classes reads."""

    @nn.compact
    def __call__(self, x, t, cond, keys=None):
        told = nn.Embed(4, 3, name="label")(cond.label) + 0.001 * t[:, None]
        return nn.Dense(3, name="out")(x + told[:, None, None, :])


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(UNetConfig, "build", lambda self: Small())


@pytest.fixture
def teacher(tmp_path, monkeypatch):
    """(path, its weights) of a run with random weights."""
    rng, given = np.random.default_rng(0), {}

    def load(at, like):
        given["weights"] = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32) * 0.2, like)
        return given["weights"]

    monkeypatch.setattr(picture, "load_params", load)
    return run(tmp_path / "teacher", TEACHER, SIZE), given


def batch():
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (COUNT, SIZE, SIZE, 3), dtype=np.uint8)
    return {"image": image, "label": np.array([0, 1, 2, 1], np.int32)}


@pytest.mark.parametrize("name", KINDS)
def test_a_student_starts_as_its_teacher_and_every_part_moves_but_the_teacher(name, teacher):
    path, given = teacher
    config = dataclasses.replace(KINDS[name], teacher=path)
    config.check(dataclasses.replace(DATA, size=SIZE), ADAM)
    task = config.task(ASSETS)
    loaded = task.load(lambda shapes: jax.tree.map(lambda _: None, shapes))
    optimizer = training.make_optimizer(OptimizerConfig(lr=1e-2, decay="constant"), 4, task.groups)
    state = first = jax.jit(training.make_init_state(task, optimizer))(jax.random.key(0), loaded, batch())
    same = lambda a, b: jax.tree.map(np.testing.assert_array_equal, a, b)
    beside = {"dmd": {"fake", "critic"}}.get(name, set())
    assert state.params.keys() == {"unet"} | beside
    same({"unet": state.params["unet"]}, given["weights"])
    same(state.frozen["teacher"], given["weights"])
    same(state.params.get("fake", given["weights"]), given["weights"])
    step = jax.jit(training.make_train_step(task, optimizer, training.make_ema(0.5)))
    for n in range(2):
        state, metrics = step(state, batch(), jax.random.split(jax.random.key(n), COUNT))
    assert np.mean([metrics[f"loss_q{n}"] for n in range(4)]) == pytest.approx(float(metrics["loss"]), rel=1e-4)
    same(state.frozen, first.frozen)
    assert state.ema_params.keys() == {"unet"}
    before, after = flatten(first.params), flatten(state.params)
    still = {path for path in after if np.array_equal(before[path], after[path])}
    assert still == set()


@pytest.mark.parametrize(("name", "sampler"), [("lcm", "lcm"), ("dmd", "consistency")])
def test_a_student_that_is_sampled_knows_no_teacher(name, sampler, teacher):
    config = dataclasses.replace(KINDS[name], teacher=teacher[0])
    task = config.sampled().task(ASSETS)
    assert task.load(lambda shapes: shapes) == {}
    shapes = jax.eval_shape(task.init, jax.random.key(0), {}, batch())
    assert (shapes.params.keys(), shapes.frozen) == ({"unet"}, {})
    process = config.bundle(ASSETS, Variables(shapes.params)).process()
    assert (process.sampler, process.grid) == (sampler, "trailing")
    np.testing.assert_allclose(process.times(4), [1, 0.75, 0.5, 0.25, 0], atol=1e-6)


BAD = [
    ("lcm", {"teacher": None}, "task.teacher is None: give the run to learn from, --task.teacher RUN"),
    ("lcm", {"process": dataclasses.replace(V, weight="snr")}, "task.process.weight is snr, which a student does not"),
    ("lcm", {"process": dataclasses.replace(V, offset_noise=0.1)}, "task.process.offset_noise is 0.1"),
    ("lcm", {"process": ProcessConfig(schedule="flow", prediction="v")}, "schedule is 'flow', of continuous times"),
    ("lcm", {"process": ProcessConfig()}, "task.process.prediction is 'eps': of pure noise that says nothing"),
    ("lcm", {"process": ProcessConfig(prediction="x0")}, "task.process.prediction is v there and x0 here"),
    ("lcm", {"guidance": -1.0}, "task.guidance is -1.0 and task.condition 'class': expected 0 or more"),
    ("lcm", {"intervals": 3}, "task.intervals is 3: expected a divisor of task.process.steps, 1000"),
    ("lcm", {"huber": 0.0}, "task.huber is 0.0: expected a number above 0"),
    ("dmd", {"steps": 0}, "task.steps is 0: expected 1 to 1000; 1 to 4 are usual"),
    ("dmd", {"adversarial": -1.0}, "task.adversarial is -1.0: expected 0 or more"),
    ("dmd", {"critic": PatchCriticConfig(width=4, layers=3, groups=4)}, "critic: an image of 8 is too small"),
]


@pytest.mark.parametrize(("name", "change", "words"), BAD, ids=[words[:40] for *_, words in BAD])
def test_what_does_not_fit_is_refused_in_a_line(name, change, words, teacher):
    config = dataclasses.replace(KINDS[name], **{"teacher": teacher[0], **change})
    with pytest.raises(ValueError, match=words) as told:
        config.check(dataclasses.replace(DATA, size=SIZE), ADAM)
    assert "\n" not in str(told.value)


def test_a_student_is_no_teacher_of_another_kind_and_groups_are_checked(tmp_path, teacher):
    other = run(tmp_path / "other", dataclasses.replace(KINDS["lcm"], teacher=teacher[0]), SIZE)
    with pytest.raises(ValueError, match="a run of the task picture_lcm: expected one of picture"):
        dataclasses.replace(KINDS["dmd"], teacher=other).check(dataclasses.replace(DATA, size=SIZE), ADAM)
    groups = (("fake/.*", OptimizerConfig(lr=0.0)),)
    with pytest.raises(ValueError, match=r"optimizer.lr of group 'fake/\.\*' is 0.0"):
        dataclasses.replace(KINDS["dmd"], groups=groups).check_steps(10)
