import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import sampling
from jaxdiff.diffusion import exact, schedule
from jaxdiff.sampling import grid
from jaxdiff.sampling.table import from_rows, symbols

S = schedule.vp()
DATA = exact.gaussian(np.array([1.0, -2.0]), np.array([[1.0, 0.3], [0.3, 0.5]]))
X = np.random.default_rng(0).standard_normal((6, 2))


def start(b=6):
    return jnp.asarray(X[:b], jnp.float32)


def test_run_is_replay_in_float32():
    table = sampling.ddim(S, grid.trailing(S, 12))
    xs, x0s = sampling.replay(table, DATA.denoiser(S), X)
    got = sampling.run(table, DATA.denoiser(S), start(), None, trajectory=True)
    np.testing.assert_allclose(got.x, xs, atol=2e-6)
    np.testing.assert_allclose(got.x0, x0s, atol=2e-6)
    np.testing.assert_array_equal(got.x[-1], sampling.run(table, DATA.denoiser(S), start(), None))


def test_a_recurrence_written_in_symbols_is_the_table():
    (x, old), D, noise = symbols(2)
    table = from_rows([0.5, 0.25], [[2 * x + 3 * D - noise, x], [x - old, D]])
    y, _ = sampling.replay(table, lambda x, t, aux: t * x, np.ones((1, 1)), noise=np.full((2, 1, 1), 0.1))
    np.testing.assert_allclose(y[:, 0, 0], [2 + 1.5 - 0.1, 3.4 - 1])


def test_padding_and_cutting_change_nothing():
    table = sampling.ddim(S, grid.trailing(S, 8), eta=0.5)
    whole = sampling.run(table, DATA.denoiser(S), start(), jax.random.key(1), trajectory=True)
    padded = sampling.run(sampling.pad(table, 4), DATA.denoiser(S), start(), jax.random.key(1))
    np.testing.assert_allclose(padded, whole.x[-1], atol=1e-6)
    plain = sampling.ddim(S, grid.trailing(S, 8))
    whole = sampling.run(plain, DATA.denoiser(S), start(), None, trajectory=True)
    tail = sampling.run(sampling.cut(plain, 3), DATA.denoiser(S), whole.x[2], None)
    np.testing.assert_allclose(tail, whole.x[-1], atol=1e-6)


def test_a_picture_depends_on_its_own_key_and_on_nothing_else():
    table = sampling.ddpm(S, grid.trailing(S, 8))
    keys = jax.random.split(jax.random.key(3), 6)
    batch = sampling.run(table, DATA.denoiser(S), start(), keys)
    order = np.array([4, 0, 2])
    few = sampling.run(table, DATA.denoiser(S), start()[order], keys[order])
    np.testing.assert_allclose(few, batch[order], atol=1e-6)
    np.testing.assert_array_equal(sampling.run(table, DATA.denoiser(S), start(), jax.random.key(3)), batch)


def test_eta_guidance_seed_and_sampler_compile_nothing_new():
    traces = []

    def denoise(x, t, aux):
        traces.append(1)
        return aux["guidance"] * DATA.x0(x, S.alpha(t), S.sigma(t))

    f = jax.jit(lambda table, x, key: sampling.run(table, denoise, x, key))
    tables = [sampling.make_table("ddim", S, 7, eta=eta) for eta in (0.0, 0.5, 1.0)]
    tables += [sampling.make_table("ddpm", S, 7), sampling.make_table("ddim", S, 7, grid="karras")]
    outputs = [
        f(sampling.with_aux(table, guidance=g), start(), jax.random.key(seed))
        for seed, (table, g) in enumerate(zip(tables, [1.0, 2.0, np.linspace(1, 2, 7), 1.0, 3.0], strict=True))
    ]
    assert len(np.unique([float(o.sum()) for o in outputs])) == 5
    assert len(traces) == 1


def test_eta_one_is_ddpm():
    times = grid.trailing(S, 9)
    a, b = sampling.ddpm(S, times), sampling.ddim(S, times, eta=1.0)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-12)


def test_the_first_picture():
    s = schedule.ve()
    table = sampling.ddim(s, grid.trailing(s, 4))
    np.testing.assert_allclose(sampling.start(s, table, start()), np.hypot(1, 50.0) * X, rtol=1e-5)
    np.testing.assert_allclose(sampling.noised(s, table, start(), start() * 2), X + 100 * X, rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: sampling.ddim(S, np.array([1.0, 0.5, 0.5, 0.0])), r"times\[2\] = 0.5 is not below times\[1\] = 0.5"),
        (lambda: sampling.ddim(S, np.array([1.2, 0.5])), r"times\[0\] = 1.2 is outside"),
        (lambda: sampling.ddim(S, np.array([1.0])), "at least 2 times"),
        (lambda: sampling.ddim(S, np.array([1.0, 0.0]), eta=1.5), "eta = 1.5"),
        (lambda: sampling.make_table("dimm", S, 4), "unknown sampler 'dimm': expected one of ddim"),
        (lambda: sampling.make_table("ddim", S, 4, grid="karas"), "unknown grid 'karas': expected one of karras"),
        (lambda: sampling.make_table("ddim", S, 4, churn=1), "no option 'churn': it takes eta"),
        (lambda: sampling.make_table("ddim", schedule.linear(10), 11), "takes 1 to 10 steps"),
        (lambda: sampling.cut(sampling.ddim(S, np.array([1.0, 0.0])), 1), "at least one must be left"),
        (lambda: sampling.pad(sampling.ddim(S, np.array([1.0, 0.0])), 0), "to 0"),
        (lambda: sampling.with_aux(sampling.ddim(S, np.array([1.0, 0.0])), guidance=np.ones(3)), "3 entries for 1"),
    ],
)
def test_bad_input_says_what_was_expected(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_noise_without_a_key_and_keys_of_another_batch_are_refused():
    table = sampling.ddpm(S, grid.trailing(S, 4))
    with pytest.raises(ValueError, match="pass a key"):
        sampling.run(table, DATA.denoiser(S), start(), None)
    with pytest.raises(ValueError, match="for 6 pictures"):
        sampling.run(table, DATA.denoiser(S), start(), jax.random.split(jax.random.key(0), 3))
