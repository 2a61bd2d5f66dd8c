import dataclasses
import json
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import sampling
from jaxdiff.diffusion import draws, loss, prediction, schedule, times
from jaxdiff.diffusion.objective import time_sampler, weight_of
from jaxdiff.diffusion.process import ProcessConfig
from jaxdiff.diffusion.published import PUBLISHED
from jaxdiff.metrics.speed import compilations
from jaxdiff.typing import Cond

NAMES = {
    f.name: f.type.__args__
    for f in dataclasses.fields(ProcessConfig)
    if hasattr(f.type, "__args__") and isinstance(f.type.__args__[0], str)
}


def allowed(**fields):
    """The config, or None where it is refused."""
    try:
        (config := ProcessConfig(**fields)).check()
    except ValueError:
        return None
    return config


def with_fields(**fields):
    """A config with fields of any type, as a file may have them: the tests' type checks stand in the constructor."""
    config = ProcessConfig()
    for name, value in fields.items():
        object.__setattr__(config, name, value)
    return config


def network(config):
    """One small layer that depends on everything a network is given."""

    def apply(params, x, t, cond):
        features = jnp.concatenate([x, 1e-3 * t[:, None]], axis=1)
        return (jnp.tanh(features @ params["in"]) @ params["out"])[:, : config.out_channels(2)]

    return apply


BASE = {"in": 0.3 * jnp.ones((3, 8)), "out": 0.1 * jnp.ones((8, 4))}


def known_of(frozen=(), extra=(), ema=(), step=0):
    return types.SimpleNamespace(frozen=frozen, extra=extra, ema=ema, step=jnp.asarray(step, jnp.int32))


def gradient(config, step=0):
    """(loss, metrics, stats, gradient) of one batch of two-dimensional points."""
    params = {**BASE, **config.init_params(jax.random.key(0))}
    known = known_of(frozen={"teacher": BASE}, extra=config.init_extra(BASE), ema=params, step=step)
    x0, keys = 0.5 * jax.random.normal(jax.random.key(1), (8, 2)), jax.random.split(jax.random.key(2), 8)
    f = config.loss(network(config))

    def value(params):
        out, metrics, stats = f(params, known, x0, Cond(), keys)
        return out, (metrics, stats)

    (out, (metrics, stats)), grads = jax.jit(jax.value_and_grad(value, has_aux=True))(params)
    config.absorb(known.extra, stats)
    return out, metrics, stats, grads


def test_every_weighted_error_that_check_allows_is_finite_at_all_times_that_are_drawn():
    """All schedules x predictions x weights x times, at draws even in u and at its ends."""
    u = jnp.concatenate([jnp.array([2.0**-24, 1 - 2.0**-24]), (jnp.arange(30.0) + 0.5) / 30])
    count = 0
    for name in NAMES["schedule"]:
        for zero_terminal in (False, True):
            base = {"schedule": name, "zero_terminal": zero_terminal}
            drawn = [c for how in NAMES["times"] if (c := allowed(**base, prediction="v", times=how))]
            if not drawn:
                assert name == "learned" or zero_terminal
                continue
            s = drawn[0].make_schedule()
            t = jnp.concatenate(
                [times.steps(1000)(u) if c.times == "importance" else time_sampler(c, s)(u) for c in drawn]
            )
            x0, eps = jax.random.normal(jax.random.key(0), (2, len(t), 1))
            assert bool(jnp.all((t > 0) & (t <= 1)))
            for kind in NAMES["prediction"]:
                if not allowed(**base, prediction=kind):
                    assert kind in ("eps", "score")
                    assert float(s.alpha(1.0)) == 0
                    continue
                goal = prediction.target(x0, eps, s.alpha(t)[:, None], s.sigma(t)[:, None], kind)
                for weight in NAMES["weight"]:
                    made = weight_of(allowed(**base, prediction=kind, weight=weight))
                    error = loss.weighted_mse(1.01 * goal + 0.01, x0, eps, t, s, kind, made)
                    assert bool(jnp.isfinite(error).all()), (base, kind, weight, t[~jnp.isfinite(error)])
                    count += len(drawn)
    assert count > 3500


FORMS = {
    **PUBLISHED,
    "coupled": ProcessConfig(schedule="flow", prediction="v", coupling="nearest", offset_noise=0.1),
    "perturbed": ProcessConfig(prediction="x0", weight="capped_v", input_perturbation=0.1, times="mode"),
    "fixed_bound": ProcessConfig(objective="bound", schedule="vp", bins=0),
    "learned_variance_v": ProcessConfig(prediction="v", variance="learned", times="steps", weight="min_snr", bins=0),
    "consistency_uniform": ProcessConfig(objective="consistency_training", schedule="edm", prediction="edm"),
    "progressive_flow": ProcessConfig(objective="progressive", schedule="flow", prediction="flow", stage=10),
    "importance_of_a_flow": ProcessConfig(schedule="flow", prediction="flow", times="importance"),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_objective_has_a_finite_loss_and_gradient_and_logs_it_by_noise_level(name):
    config = FORMS[name]
    config.check()
    out, metrics, _, grads = gradient(config, step=60_000)
    assert np.isfinite(out)
    assert np.mean([metrics[f"loss_q{n}"] for n in range(4)]) == pytest.approx(float(out), rel=1e-5)
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
        assert np.all(np.isfinite(leaf)), path
        assert np.any(leaf != 0), path


@pytest.mark.parametrize("name", FORMS)
def test_the_default_sampler_samples_by_its_table(name):
    config = FORMS[name]
    params = {**BASE, **config.init_params(jax.random.key(0))}
    s = config.make_schedule(params)
    table = sampling.make_table(config.sampler(), s, 4, config.grid(), **config.options())
    cond, null = Cond(pooled=jnp.ones((3, 2))), Cond(pooled=jnp.zeros((1, 2)))
    x = sampling.start(s, sampling.with_aux(table, guidance=2.0), jax.random.normal(jax.random.key(1), (3, 2)))
    for denoise in (config.denoiser(network(config), params, cond, n) for n in (None, null)):
        # two of its steps, not compiled
        short = jax.tree.map(lambda a: a[:2], table)
        assert np.all(np.isfinite(sampling.run(short, denoise, x.astype(jnp.float32), jax.random.key(2))))


def test_a_config_is_plain_numbers():
    for config in FORMS.values():
        text = json.dumps(dataclasses.asdict(config))
        back = ProcessConfig(**{k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(text).items()})
        assert back == config


REFUSED = [
    ({"schedule": "cosin"}, "unknown schedule 'cosin': expected one of cosine, "),
    ({"prediction": "epsilon"}, "unknown prediction 'epsilon': expected one of eps"),
    ({"zero_terminal": 1}, "zero_terminal = 1: expected true or false"),
    ({"steps": 2.5}, "steps = 2.5: expected a whole number from 3 to 1e"),
    ({"steps": True}, "steps = True"),
    ({"steps": 2}, "steps = 2: expected a whole number from 3"),
    ({"schedule": "flow", "prediction": "v", "shift": float("nan")}, "shift = nan: expected a number"),
    ({"schedule": "flow", "prediction": "v", "shift": 0.0}, "shift = 0.0"),
    ({"schedule": "linear", "beta_max": float("inf")}, "beta_max = inf"),
    ({"schedule": "linear", "beta_min": 0.5}, "beta_min = 0.5 and beta_max = 0.02 with schedule = linear"),
    ({"schedule": "linear", "beta_max": 1.5}, "beta_min < beta_max < 1; set both"),
    ({"schedule": "vp", "beta_min": 30.0}, "beta_min = 30 and beta_max = 20 with schedule = vp"),
    ({"schedule": "ve", "sigma_min": 60.0}, "sigma_min = 60 and sigma_max = 50"),
    ({"schedule": "edm", "sigma_max": 0.001}, "expected more than 0.002"),
    ({"clip": -1.0}, "clip = -1.0"),
    ({"clip": float("nan")}, "clip = nan"),
    ({"offset_noise": -0.1}, "offset_noise = -0.1: expected a number from 0 to 1"),
    ({"input_perturbation": float("nan")}, "input_perturbation = nan"),
    ({"weight": "min_snr", "weight_number": 0.0}, "weight_number = 0.0"),
    ({"weight": "p2", "weight_number": "1"}, "weight_number = '1'"),
    ({"times": "log_normal", "time_std": 0.0}, "time_std = 0.0"),
    ({"objective": "bound", "bins": 1}, "bins = 1: expected the number of levels"),
    ({"objective": "progressive", "prediction": "v", "intervals": (8, 3)}, "numbers that are halved"),
    ({"objective": "progressive", "prediction": "v", "intervals": (1, 8)}, "halved from the first to the last"),
    ({"objective": "progressive", "prediction": "v", "intervals": (8, 0)}, "intervals = 0"),
    ({"objective": "progressive", "prediction": "v", "intervals": 8}, "intervals = 8: expected two whole numbers"),
    (
        {"objective": "consistency_training", "schedule": "edm", "prediction": "edm", "intervals": (20, 10)},
        "numbers that are doubled from the first to the last",
    ),
    # choices that exclude each other
    ({"schedule": "flow"}, "eps prediction divides by alpha, which is 0"),
    ({"zero_terminal": True}, "eps prediction divides by alpha, which is 0"),
    ({"schedule": "shifted_cosine", "prediction": "score"}, "score prediction divides by alpha"),
    ({"objective": "consistency_training"}, "objective = consistency_training does not go with schedule = cosine: set"),
    ({"objective": "consistency_training", "schedule": "edm"}, "with prediction = eps: set prediction to edm"),
    ({"objective": "bound", "schedule": "flow", "prediction": "v"}, "does not go with schedule = flow"),
    ({"objective": "bound", "zero_terminal": True, "prediction": "v"}, "with zero_terminal = True: set zero_terminal"),
    ({"objective": "bound", "weight": "snr"}, "does not go with weight = snr: set weight to simple"),
    ({"objective": "progressive"}, "does not go with prediction = eps: set prediction to x0 or v or flow or edm"),
    ({"objective": "progressive", "schedule": "ve", "prediction": "v"}, "does not go with schedule = ve"),
    ({"objective": "progressive", "prediction": "v", "times": "steps"}, "does not go with times = steps"),
    ({"schedule": "learned"}, "schedule = learned does not go with objective = denoising: set objective to bound"),
    ({"variance": "learned"}, "variance = learned does not go with times = uniform: set times to steps or importance"),
    ({"variance": "learned", "times": "steps", "schedule": "vp"}, "does not go with schedule = vp"),
    ({"variance": "learned", "times": "steps", "input_perturbation": 0.1}, "set input_perturbation to 0.0"),
    ({"variance": "large", "objective": "progressive", "prediction": "v"}, "variance = large does not go with"),
]


@pytest.mark.parametrize(("fields", "says"), REFUSED)
def test_what_does_not_fit_is_refused_and_says_what_to_set(fields, says):
    with pytest.raises(ValueError, match=re.escape(says)) as refused:
        with_fields(**fields).check()
    assert "\n" not in str(refused.value)


UNREAD = {
    "zero_terminal": ({"schedule": "vp"}, True),
    "steps": ({"schedule": "vp"}, 10),
    "shift": ({}, 2.0),
    "beta_min": ({}, 1e-3),
    "beta_max": ({}, 0.1),
    "sigma_min": ({}, 0.1),
    "sigma_max": ({}, 10.0),
    "weight_number": ({"weight": "snr"}, 3.0),
    "times": ({"objective": "progressive", "prediction": "v"}, "steps"),
    "time_mean": ({}, 1.0),
    "time_std": ({}, 1.0),
    "coupling": ({"objective": "bound"}, "nearest"),
    "offset_noise": ({"objective": "bound"}, 0.1),
    "input_perturbation": ({"objective": "bound"}, 0.1),
    "variance": ({"objective": "progressive", "prediction": "v"}, "large"),
    "bins": ({}, 2),
    "intervals": ({}, (4, 1)),
    "stage": ({}, 3),
    "target": ({}, "average"),
}
ALWAYS_READ = {"objective", "schedule", "prediction", "weight", "clip"}


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(ProcessConfig) if f.name not in ALWAYS_READ])
def test_a_field_that_nothing_reads_is_refused_by_name(field):
    others, value = UNREAD[field]
    ProcessConfig(**others).check()
    with pytest.raises(ValueError, match=f"{field} = ") as refused:
        ProcessConfig(**others, **{field: value}).check()
    assert str(ProcessConfig.__dataclass_fields__[field].default) in str(refused.value) or "set" in str(refused.value)


def test_every_number_reaches_its_schedule():
    made = lambda **fields: ProcessConfig(**fields).make_schedule()
    assert made(schedule="linear", steps=10, beta_min=0.1, beta_max=0.2).knots.shape == (10,)
    np.testing.assert_allclose(made(schedule="linear", beta_max=0.01).knots, schedule.linear(end=0.01).knots)
    np.testing.assert_allclose(made(schedule="sigmoid", beta_min=1e-3).knots, schedule.sigmoid(start=1e-3).knots)
    assert made(schedule="scaled_linear", zero_terminal=True).alpha(1.0) == 0
    assert made(schedule="vp", beta_min=0.2, beta_max=10.0) == schedule.vp(0.2, 10.0)
    assert made(schedule="sub_vp", beta_max=10.0) == schedule.sub_vp(0.1, 10.0)
    assert made(schedule="ve", sigma_min=0.1, sigma_max=9.0) == schedule.ve(0.1, 9.0)
    assert made(schedule="edm", sigma_max=9.0) == schedule.edm(9.0)
    assert made(schedule="flow", shift=3.0) == schedule.flow(3.0)
    assert made(schedule="shifted_cosine", shift=0.5) == schedule.shifted_cosine(0.5)
    with pytest.raises(ValueError, match="part of the parameters"):
        made(schedule="learned")


def test_the_named_losses_are_those_of_the_papers():
    """NCSN's |sigma s(x0 + sigma eps) + eps|^2 over its ten levels, and flow matching's |v - (eps - x0)|^2."""
    x0, keys = jax.random.normal(jax.random.key(1), (64, 4)), jax.random.split(jax.random.key(4), 64)
    u, eps = draws.uniform(keys), loss.independent(keys, x0)
    sigma = jnp.asarray(np.geomspace(0.01, 1.0, 10)[np.floor(np.asarray(u) * 10).astype(int)], jnp.float32)[:, None]
    score = lambda p, x, level, cond: jnp.sin(x) / level[:, None]
    got = PUBLISHED["ncsn"].loss(score)({}, known_of(), x0, Cond(), keys)[0]
    want = ((sigma * jnp.sin(x0 + sigma * eps) / sigma + eps) ** 2).mean()
    assert float(got) == pytest.approx(float(want), rel=1e-4)
    t = 1e-3 + (1 - 1e-3) * u[:, None]
    velocity = lambda p, x, level, cond: jnp.sin(x)
    got = PUBLISHED["flow_matching"].loss(velocity)({}, known_of(), x0, Cond(), keys)[0]
    assert float(got) == pytest.approx(float(((jnp.sin((1 - t) * x0 + t * eps) - (eps - x0)) ** 2).mean()), rel=1e-4)


def test_importance_draws_are_weighted_and_remembered():
    config = dataclasses.replace(PUBLISHED["ddpm"], times="importance", steps=4, variance="small")
    config.check()
    x0, keys = jnp.zeros((20_000, 2)), jax.random.split(jax.random.key(0), 20_000)
    # worse at the first step
    level = lambda p, x, t, cond: jnp.broadcast_to(jnp.where(t == 0, 3.0, 0.0)[:, None], x.shape)
    extra = config.init_extra()
    for _ in range(10):
        known = known_of(extra=extra)
        uniform, metrics, stats = config.loss(level)({}, known, x0, Cond(), keys)
        extra = {"other": 1, **config.absorb(extra, stats)}
    warm, after, _ = config.loss(level)({}, known_of(extra=extra), x0, Cond(), keys)
    assert float(extra["importance"].probabilities()[0]) > 0.6
    assert float(warm) == pytest.approx(float(uniform), rel=0.05)  # the same mean; 5 sigma
    for name in (f"loss_q{n}" for n in range(4)):
        assert float(after[name]) == pytest.approx(float(metrics[name]), rel=0.15)
    assert extra["other"] == 1


def test_a_progressive_run_hands_its_students_on():
    config = ProcessConfig(objective="progressive", prediction="v", intervals=(4, 1), stage=2)
    extra, steps, teachers = config.init_extra(BASE), [], []
    x0, keys = jnp.ones((2, 2)), jax.random.split(jax.random.key(0), 2)
    run = jax.jit(
        lambda p, extra, n: config.loss(network(config))(p, known_of(extra=extra, step=n), x0, Cond(), keys)[1:]
    )
    compiled = []
    for n in range(7):
        params = {**BASE, "out": BASE["out"] + n}
        with compilations() as each:
            metrics, stats = run(params, extra, np.int32(n))
        compiled.append(each.count)
        extra = config.absorb(extra, stats)
        steps.append(int(metrics["student_steps"]))
        teachers.append(round(float(extra["teacher"]["out"][0, 0] - BASE["out"][0, 0])))
    assert steps == [4, 4, 2, 2, 1, 1, 1]
    assert teachers == [0, 0, 2, 2, 4, 4, 4]
    assert compiled[0] > 0
    assert not any(compiled[1:])
    with pytest.raises(ValueError, match="starts from a teacher"):
        config.init_extra()


def test_distillation_asks_the_teacher_and_its_target_is_what_the_config_says():
    config = PUBLISHED["consistency_distillation"]
    asked = []

    def told(params, x, t, cond):
        asked.append((params["name"], cond.pooled is None))
        return x * params["a"]

    tree = lambda name, a: {"name": name, "a": jnp.float32(a)}
    for target, expected in (("average", {"ema", "teacher", "student"}), ("student", {"teacher", "student"})):
        asked.clear()
        known = known_of(frozen={"teacher": tree("teacher", 1)}, ema=tree("ema", 2))
        f = dataclasses.replace(config, target=target).loss(told)
        x0, keys = jnp.ones((4, 2)), jax.random.split(jax.random.key(0), 4)
        f(tree("student", 3), known, x0, Cond(pooled=jnp.ones((4, 2))), keys, lambda params: Cond())
        assert {name for name, _ in asked} == expected
        assert {bare for name, bare in asked if name == "teacher"} == {True}
        assert {bare for name, bare in asked if name != "teacher"} == {False}
