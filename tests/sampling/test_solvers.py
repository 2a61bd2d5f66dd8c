import ast
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import DETERMINISTIC, FAR, MIXTURE, STOCHASTIC, VP, deviation, even, flow

import jaxdiff.sampling.solvers
from jaxdiff import sampling
from jaxdiff.diffusion import exact, guidance, schedule, variance
from jaxdiff.sampling import grid
from jaxdiff.typing import Cond

LAST = 0.02
POINTS = np.random.default_rng(0).standard_normal((32, 2))
GAUSSIAN = exact.gaussian(np.array([1.0, -2.0]), np.array([[1.0, 0.3], [0.3, 0.5]]))


@pytest.fixture(scope="module")
def truth():
    return flow(MIXTURE, VP, 1.0, LAST, POINTS)


def slope(errors):
    """The order of convergence: minus the slope of log error over log steps."""
    return -np.polyfit(np.log(list(errors)), np.log(list(errors.values())), 1)[0]


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_the_error_falls_at_the_order_of_the_solver(name, truth):
    make, order = DETERMINISTIC[name]
    # high orders show late; multiples of 6 are whole rounds of every singlestep solver
    errors = {}
    for steps in (48, 72, 108, 162) if order < 3 else (138, 204, 300):
        table = make(VP, even(VP, steps, 1.0, LAST))
        errors[steps] = np.abs(sampling.replay(table, MIXTURE.denoiser(VP), POINTS)[0][-1] - truth).mean()
    assert abs(slope(errors) - order) < 0.2, (slope(errors), errors)


def test_the_reference_trajectory_is_the_closed_form_of_a_gaussian():
    np.testing.assert_allclose(flow(GAUSSIAN, VP, 1.0, LAST, POINTS), GAUSSIAN.flow(POINTS, VP, 1.0, LAST), atol=1e-7)


@pytest.mark.parametrize(("name", "order"), [("euler", 1), ("flow_heun", 2), ("dpmpp_2m", 2), ("unipc", 2)])
def test_flows_start_at_pure_noise(name, order):
    s, errors = schedule.flow(3.0), {}
    for steps in (32, 48, 72):
        times = np.linspace(1, 0.05, steps + 1)
        xs, _ = sampling.replay(sampling.make_table(name, s, steps, times), GAUSSIAN.denoiser(s), POINTS)
        errors[steps] = np.abs(xs[-1] - GAUSSIAN.flow(POINTS, s, 1.0, 0.05)).mean()
    assert order - 0.2 < slope(errors) < order + 1.2, errors  # the corrector of unipc gives it one more
    assert errors[72] < 0.05


@pytest.mark.parametrize("name", STOCHASTIC)
def test_samples_have_the_right_weights_means_and_covariances(name):
    """Twelve statistics, each within 4.5 of its own standard deviations over 4000 samples."""
    n, make, rng = 4000, STOCHASTIC[name], np.random.default_rng(1)
    first_order = name in ("ddpm", "ddpm large", "euler_ancestral", "repaint", "dpmpp_2s, sde")
    times = grid.karras(VP, 400 if first_order else 100)
    if name == "dpm_solver, sde":  # in eps it keeps noise down to the end of the grid
        times[-1] = 5e-4
    table = make(VP, times)
    x_init, noise = rng.standard_normal((n, 2)), rng.standard_normal((table.calls, n, 2))
    x = sampling.replay(table, FAR.denoiser(VP), x_init, noise)[0][-1]
    mean, covariance = FAR.moments()
    mode = FAR.posterior_weights(x, 1.0, 1e-3).argmax(axis=0)
    share = np.bincount(mode, minlength=3) / n
    z = [(share - FAR.weights) / np.sqrt(FAR.weights * (1 - FAR.weights) / n)]
    z.append((x.mean(axis=0) - mean) / np.sqrt(np.diag(covariance) / n))
    for k in range(3):
        C = (FAR.axes[k] * FAR.variances[k]) @ FAR.axes[k].T
        spread = np.sqrt((np.outer(np.diag(C), np.diag(C)) + C**2) / (share[k] * n))
        z.append(((np.cov(x[mode == k].T) - C) / spread)[np.triu_indices(2)])
    assert np.abs(np.concatenate(z)).max() < 4.5, z


@pytest.mark.parametrize("name", STOCHASTIC)
def test_the_variance_of_samples_approaches_that_of_the_data(name):
    """From the coefficients alone, so that 1% of wrong noise shows, which 4000 samples would hide."""
    off = {}
    for steps in (400, 800):
        times = grid.karras(VP, steps)
        if name == "dpm_solver, sde":  # in eps it keeps noise down to the end of the grid
            times[-1] = 5e-4
        table = sampling.restart(VP, times, descent=steps // 10) if name == "restart" else STOCHASTIC[name](VP, times)
        off[steps] = abs(deviation(table, VP, 0.25) ** 2 / 0.25 - 1)
    assert off[800] < 0.65 * off[400] or off[800] < 1e-3  # at least of first order
    assert off[800] < 0.04


def test_all_samplers_with_as_many_calls_share_one_program():
    traces = []

    def denoise(x, t, aux):
        traces.append(1)
        return MIXTURE.x0(x, VP.alpha(t), VP.sigma(t))

    run = jax.jit(lambda table, x, key: sampling.run(table, denoise, x, key))
    steps_for = {"plms": 14, "pndm": 6, "repaint": 15}
    done = []
    for name in sampling.SAMPLERS:
        options = {"jump": 20} if name == "repaint" else {"repeats": 1, "descent": 1} if name == "restart" else {}
        if name == "flow_heun":
            continue
        steps = steps_for.get(name, 15)
        table = sampling.make_table(name, VP, steps, **options)
        if table.calls == 29:
            table = sampling.make_table(name, VP, 8, **options)
        if table.calls != 15:
            assert name == "restart"
            continue
        assert np.all(np.isfinite(run(table, jnp.asarray(POINTS, jnp.float32), jax.random.key(len(done)))))
        done.append(name)
    assert len(done) >= 29
    assert len(traces) == 1


@pytest.mark.parametrize("s", [schedule.linear(), schedule.cosine()])
def test_a_thousand_steps_with_a_bfloat16_network_stay_near_float64(s):
    """The same rounded network in a float32 scan with float32 tables, and in float64 throughout."""
    table = sampling.ddpm(s, grid.trailing(s, 1000))
    network = lambda x, t: 0.4 * x / (1 + x * x) + 0.3 * (1 - t) * x
    bf16 = lambda a: np.asarray(jnp.asarray(a, jnp.bfloat16).astype(jnp.float32), np.float64)
    noise = np.asarray(
        jax.vmap(
            lambda n: jax.vmap(lambda k: jax.random.normal(jax.random.fold_in(k, n), (2,)))(
                jax.random.split(jax.random.key(5), 32)
            )
        )(jnp.arange(1000)),
        np.float64,
    )
    x_init = np.asarray(jnp.asarray(POINTS, jnp.float32), np.float64)
    exact_run, _ = sampling.replay(table, lambda x, t, aux: bf16(network(x, t)), x_init, noise)
    low = lambda x, t, aux: network(x, t).astype(jnp.bfloat16)
    got = sampling.run(table, low, jnp.asarray(x_init, jnp.float32), jax.random.key(5), trajectory=True)
    # a rounding decided the other way moves one estimate by 2^-9 of itself; the mean drift has none of that left
    assert np.abs(got.x - exact_run).mean() < 1e-3
    assert np.abs((got.x - exact_run).mean(axis=(1, 2))).max() < 1e-3


def test_inversion_is_undone_by_sampling():
    times = grid.from_steps(VP, np.arange(999, 0, -2), 0.0)
    x0 = np.asarray(GAUSSIAN.sample(np.random.default_rng(0), 16))
    up, down = sampling.ddim_inverse(VP, times), sampling.ddim(VP, times)
    noise = sampling.replay(up, GAUSSIAN.denoiser(VP), x0)[0][-1]
    back = sampling.replay(down, GAUSSIAN.denoiser(VP), noise)[0][-1]
    np.testing.assert_allclose(back, x0, atol=0.02)  # both are first order, in 500 steps


def test_edm_churn_and_restart_write_the_published_moves():
    s, times = schedule.edm(), grid.karras(schedule.edm(), 10, last=0.002 / 80)
    plain = sampling.heun(s, times)
    churned = sampling.edm(s, times, churn=4.0, low=0.05, high=50.0, extra=1.003)
    levels = 80 * times[:-1]
    lifted = np.where((levels >= 0.05) & (levels <= 50), levels * 1.4, levels)
    np.testing.assert_allclose(80 * churned.t[::2], lifted, rtol=1e-9)
    np.testing.assert_allclose(churned.c[1::2, 0], 1.003 * np.sqrt(lifted[1:] ** 2 - levels[1:] ** 2), rtol=1e-9)
    np.testing.assert_allclose(sampling.edm(s, times).A, plain.A)
    again = sampling.restart(VP, grid.trailing(VP, 20), low=0.11, high=0.33, repeats=3, descent=2)
    assert again.calls == 2 * 20 - 1 + 2 + 3 * 4
    assert np.count_nonzero(again.c) == 3


def test_a_learned_variance_reaches_the_noise(key):
    s, times = schedule.linear(), grid.trailing(schedule.linear(), 6)
    table = sampling.ddpm(s, times, "learned")
    x = jnp.zeros((4, 2, 2, 1))
    for v, name in ((-1.0, "small"), (1.0, "large")):
        network = lambda p, x, t, c, v=v: jnp.concatenate([0.3 * x, jnp.full_like(x, v)], axis=-1)
        learned = variance.learned_denoiser(network, {}, Cond(), s, "x0")
        got = sampling.run(table, learned, x, jax.random.key(1))
        want = sampling.run(sampling.ddpm(s, times, name), lambda x, t, aux: 0.3 * x, x, jax.random.key(1))
        np.testing.assert_allclose(got, want, atol=1e-5)


def test_repaint_brings_a_hole_nearer_to_its_conditional_distribution():
    correlated = exact.gaussian(np.zeros(2), np.array([[1.0, 0.8], [0.8, 1.0]]))
    n, hole = 3000, jnp.broadcast_to(jnp.array([0.0, 1.0]).reshape(1, 1, 2, 1), (3000, 1, 2, 1))

    def denoise(x, t, aux):
        return correlated.x0(x.reshape(n, 2), VP.alpha(t), VP.sigma(t)).reshape(x.shape)

    def error(resamples):
        table = sampling.repaint(VP, grid.trailing(VP, 100), jump=5, resamples=resamples)
        filled = guidance.inpaint(jnp.full((n, 1, 2, 1), 1.5), hole)(denoise)
        x = sampling.run(table, filled, jax.random.normal(jax.random.key(1), (n, 1, 2, 1)), jax.random.key(0))
        np.testing.assert_allclose(x[:, 0, 0, 0], 1.5, atol=1e-5)
        return abs(float(x[:, 0, 1, 0].mean()) - 1.2)  # x2 given x1 = 1.5 is N(1.2, 0.36)

    once, often = error(1), error(5)
    assert once > 0.4
    assert often < 0.2


def test_consistency_with_the_exact_map_samples_the_data():
    n, rng = 4000, np.random.default_rng(3)
    times = np.array([1.0, 0.6, 0.3, 0.0])
    table = sampling.consistency(VP, times)
    to_data = lambda x, t, aux: GAUSSIAN.flow(x, VP, t, 0.0)
    x = sampling.replay(table, to_data, rng.standard_normal((n, 2)), rng.standard_normal((3, n, 2)))[0][-1]
    mean, covariance = GAUSSIAN.moments()
    assert np.abs((x.mean(axis=0) - mean) / np.sqrt(np.diag(covariance) / n)).max() < 4.5
    np.testing.assert_allclose(np.cov(x.T), covariance, atol=0.08)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda t: sampling.lms(VP, t, 5), "order = 5"),
        (lambda t: sampling.unipc(VP, t, 0), "order = 0"),
        (lambda t: sampling.dpm_solver(VP, t, 0), "order = 0"),
        (lambda t: sampling.dpm_solver_single(VP, t, 4), "expected an order of 1, 2 or 3"),
        (lambda t: sampling.pndm(VP, t), "at least 4 steps, got 3: use plms"),
        (lambda t: sampling.heun(schedule.flow(), t), "alpha is 0 at times"),
        (lambda t: sampling.flow_heun(VP, t), "alpha = 1 - sigma"),
        (lambda t: sampling.dpm_solver(schedule.flow(), t, 1), "divides by alpha or sigma"),
        (lambda t: sampling.tcd(VP, t, eta=-0.1), "eta = -0.1"),
        (lambda t: sampling.kdpm2_ancestral(VP, t, eta=1.1), "eta = 1.1"),
        (lambda t: sampling.restart(VP, t, low=0.5, high=0.2), "inside the grid"),
        (lambda t: sampling.repaint(VP, t, jump=0), "at least 1"),
        (lambda t: sampling.cut(sampling.dpmpp_2m(VP, t), 1), "make the table from grid.cut"),
    ],
)
def test_bad_input_says_what_was_expected(call, says):
    with pytest.raises(ValueError, match=says):
        call(np.array([1.0, 0.7, 0.4, 0.2]))


def test_no_sampler_is_longer_than_forty_lines():
    for path in pathlib.Path(jaxdiff.sampling.solvers.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                doc = ast.get_docstring(node, clean=False)
                lines = node.end_lineno - node.lineno + 1 - (doc.count("\n") + 1 if doc else 0)
                assert lines <= 40, (path.name, node.name, lines)


def test_latent_consistency_mixes_output_and_input_as_published():
    """The reference's steps are noisy ones, where the input hardly counts; at step 0 nothing else does."""
    s = schedule.scaled_linear()
    for step, scaling in ((0, 10.0), (3, 0.1), (40, 0.02)):
        table = sampling.lcm(s, grid.from_steps(s, [step], 0.0), scaling=scaling)
        T = scaling * step
        np.testing.assert_allclose(table.A[0, 0, 0], 0.25 / (T**2 + 0.25), rtol=1e-9)
        np.testing.assert_allclose(table.b[0, 0], T / np.sqrt(T**2 + 0.25), rtol=1e-9, atol=1e-12)
