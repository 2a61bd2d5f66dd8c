"""Few-step students against their teacher on the mixture: how near its own fine samples they come, at 1, 2 and 4 steps.

Distances are root mean squares over 1000 points between what two samplers make of the same noise; the teacher's fine
samples are those of 256 (DDIM) or 64 (Heun) steps.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import draw, energy_distance, init, network, train

from jaxdiff import sampling
from jaxdiff.diffusion.process import ProcessConfig
from jaxdiff.sampling import grid
from jaxdiff.typing import Cond

NOISE = jax.random.normal(jax.random.key(5), (1000, 2))


def samples(config, net, params, times, name, **options):
    """What the sampler makes of NOISE."""
    s = config.make_schedule()
    table = sampling.make_table(name, s, 0, np.asarray(times), **options)
    x = sampling.start(s, table, NOISE).astype(jnp.float32)
    run = lambda p: sampling.run(table, config.denoiser(net, p, Cond()), x, jax.random.key(3))
    return np.asarray(jax.jit(run)(params))


def apart(a, b):
    return np.sqrt(((a - b) ** 2).sum(axis=1).mean())


@pytest.mark.heavy
def test_a_progressive_run_halves_its_steps_and_stays_near_its_teacher():
    shared = {"prediction": "v", "weight": "truncated_snr"}
    base, config = (
        ProcessConfig(**shared),
        ProcessConfig(objective="progressive", intervals=(8, 1), stage=600, **shared),
    )
    net = network(base.make_schedule(), "v")
    teacher, _, _ = train(base, net, init(jax.random.key(0), 2), {}, jax.random.key(1), 1500)
    even = lambda steps: np.linspace(1, 0, steps + 1)
    fine = samples(base, net, teacher, even(256), "ddim")
    students = {}
    for updates, last in ((1200, 4), (2400, 1)):
        extra = config.init_extra(teacher)
        params, extra, _ = train(config, net, teacher, {}, jax.random.key(2), updates, rate=2e-3, extra=extra)
        students |= {last: params, 2 * last: extra["teacher"]}  # this stage's student, and the last stage's
    # at most these parts of the distance of the teacher itself at so many steps
    for steps, part in ((4, 0.5), (2, 0.4), (1, 0.2)):
        student, own = (samples(base, net, p, even(steps), "ddim") for p in (students[steps], teacher))
        assert apart(student, fine) < part * apart(own, fine), steps


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("objective", "part", "fields"),
    [
        ("consistency_distillation", 0.05, {"intervals": (40, 40)}),
        ("consistency_training", 0.1, {"intervals": (10, 160), "stage": 600, "times": "log_normal"}),
    ],
)
def test_a_consistency_student_has_the_samples_of_the_data_in_few_steps(objective, part, fields):
    """The energy distance to the data is at most this part of the teacher's own at so many steps."""
    shared = {"schedule": "edm", "prediction": "edm"}
    base = ProcessConfig(**shared, weight="edm", times="log_normal")
    config = ProcessConfig(objective=objective, **shared, **fields)
    config.check()
    s = base.make_schedule()
    net = network(s, "edm")
    teacher, _, _ = train(base, net, init(jax.random.key(0), 2), {}, jax.random.key(1), 1500)
    params, _, _ = train(config, net, teacher, {"teacher": teacher}, jax.random.key(2), 3000, rate=2e-3)
    data = np.asarray(draw(jax.random.key(11), 1000))
    for steps in (1, 2, 4):
        times = grid.GRIDS[config.grid()](s, steps)
        student = samples(config, net, params, times, config.sampler(), **config.options())
        own = samples(base, net, teacher, times, "heun")
        assert energy_distance(student, data) < part * energy_distance(own, data), steps
