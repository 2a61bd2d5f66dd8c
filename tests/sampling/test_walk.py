"""Kernels in other spaces: scores in closed form, what is drawn beside the law it is of, and who stays where."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.diffusion import masked, spaces
from jaxdiff.sampling import kernel, walk

SPACES = {"cube": spaces.cube(), "torus": spaces.torus(), "sphere": spaces.sphere()}
DIMS = {"cube": 2, "torus": 2, "sphere": 3}


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def inside(name, x):
    if name == "sphere":
        return np.abs(np.linalg.norm(x, axis=-1) - 1) < 1e-5
    low, high = {"cube": (0, 1), "torus": (-np.pi - 1e-5, np.pi + 1e-5)}[name]
    return ((x >= low) & (x <= high)).all(-1)


@pytest.mark.parametrize("name", SPACES)
def test_walks_stay_in_the_space_and_end_uniform(name):
    """However long a step; every step of the scan is looked at."""
    space, dims = SPACES[name], DIMS[name]
    far = lambda x, v: 30 * jnp.ones_like(x) if name != "sphere" else jax.vmap(spaces.along)(x, 30 * jnp.ones_like(x))
    rows = walk.Row(jnp.ones(5), jnp.ones(5))
    start = jax.vmap(lambda key: space.uniform(key, jnp.zeros(dims)))(keys(200))
    path = jax.jit(lambda: kernel.drive(walk.surface(space, far), rows, start, jax.random.key(1), True))()
    assert inside(name, np.asarray(path.x)).all()
    assert inside(name, np.asarray(path.x0)).all()
    x0 = start[0]
    ended = np.asarray(jax.jit(jax.vmap(lambda key: space.noised(key, x0, space.most)))(keys(4000, 2)))
    assert inside(name, ended).all()
    uniform = np.asarray(jax.vmap(lambda key: space.uniform(key, x0))(keys(4000, 3)))
    np.testing.assert_allclose(ended.mean(0), uniform.mean(0), atol=0.13 if name == "torus" else 0.06)
    np.testing.assert_allclose(ended.std(0), uniform.std(0), atol=0.08)


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("v", [0.05, 0.7])
def test_scores_are_the_gradients_of_the_laws_of_the_walks(name, v):
    """By eigenfunctions: cosines on the cube, waves on the torus, Legendre polynomials on the sphere, in float64."""
    rng, count = np.random.default_rng(0), 60
    if name == "sphere":
        x0, x = (one / np.linalg.norm(one) for one in rng.standard_normal((2, 3)))
        weights = (2 * np.arange(count) + 1) / (4 * np.pi) * np.exp(-np.arange(count) * (np.arange(count) + 1) * v / 2)
        series = np.polynomial.legendre.Legendre(weights)
        c = x0 @ x
        expected = series.deriv()(c) / series(c) * (x0 - c * x)
    else:
        x0, x = rng.uniform(0.1, 0.9, (2, 2))
        n, scale = np.arange(1, count)[:, None], np.pi if name == "cube" else 1.0
        decay = 2 * np.exp(-((n * scale) ** 2) * v / 2)
        if name == "cube":
            law = 1 + (decay * np.cos(n * np.pi * x0) * np.cos(n * np.pi * x)).sum(0)
            slope = -(decay * n * np.pi * np.cos(n * np.pi * x0) * np.sin(n * np.pi * x)).sum(0)
        else:
            law = 1 + (decay * np.cos(n * (x - x0))).sum(0)
            slope = -(decay * n * np.sin(n * (x - x0))).sum(0)
        expected = slope / law
    got = SPACES[name].score(jnp.asarray(x0, jnp.float32), jnp.asarray(x, jnp.float32), v)
    np.testing.assert_allclose(got, expected, rtol=2e-3, atol=2e-3)


def test_a_reflected_sampler_never_leaves_the_cube_and_matches_its_truncated_gaussian():
    """N(0.8, 0.3^2) cut to [0, 1]: the exact score at v, by the walk's kernel on a grid of 801 points."""
    grid = np.linspace(0, 1, 801)
    law = np.exp(-((grid - 0.8) ** 2) / (2 * 0.09))
    law /= law.sum()
    images = (np.concatenate([grid, -grid])[:, None] + 2 * np.arange(-2, 3)).ravel().astype(np.float32)
    log_law = np.repeat(np.log(np.concatenate([law, law])), 5).astype(np.float32)

    def score(x, v):
        log_p = lambda x, v: jax.nn.logsumexp(log_law - (x[0] - images) ** 2 / (2 * v))
        return jax.vmap(jax.grad(log_p))(x, v)

    drawn = np.asarray(jax.jit(lambda: walk.walked(spaces.cube(), score, keys(1500), 1, 100))())[:, 0]
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    mean = (grid * law).sum()
    deviation = np.sqrt((grid**2 * law).sum() - mean**2)
    assert drawn.mean() == pytest.approx(mean, abs=4 * deviation / np.sqrt(1500))
    assert drawn.std() == pytest.approx(deviation, abs=0.02)
    distance = np.abs(np.searchsorted(np.sort(drawn), grid) / 1500 - np.cumsum(law)).max()
    assert distance < 1.9 / np.sqrt(1500)  # Kolmogorov and Smirnov: of a right one 999 of 1000 are below


@pytest.mark.heavy
def test_samplers_of_torus_and_sphere_match_their_laws():
    """A wrapped Gaussian at 3, across the seam; and the sphere's heat kernel of variance 0.3 around a pole."""
    center = jnp.array([3.0])
    torus = spaces.torus()
    of_torus = lambda x, v: jax.vmap(lambda x, v: torus.score(center, x, v + 0.25))(x, v)
    angle = np.asarray(jax.jit(lambda: walk.walked(torus, of_torus, keys(1500), 1, 200))())[:, 0]
    turned = np.exp(1j * (angle - 3))
    assert turned.mean().real == pytest.approx(np.exp(-0.125), abs=0.02)
    assert turned.mean().imag == pytest.approx(0, abs=0.05)
    assert (angle < 0).any()
    assert (angle > 0).any()
    pole, sphere = jnp.array([0.0, 0.0, 1.0]), spaces.sphere()
    of_sphere = lambda x, v: jax.vmap(lambda x, v: sphere.score(pole, x, v + 0.3))(x, v)
    drawn = np.asarray(jax.jit(lambda: walk.walked(sphere, of_sphere, keys(6000), 3, 200))())
    assert drawn[:, 2].mean() == pytest.approx(np.exp(-0.3), abs=0.02)  # E P_1 = exp(-v), and P_2 = exp(-3 v)
    assert ((3 * drawn[:, 2] ** 2 - 1) / 2).mean() == pytest.approx(np.exp(-0.9), abs=0.04)
    np.testing.assert_allclose(drawn[:, :2].mean(0), 0, atol=0.06)


@pytest.mark.heavy
def test_the_loss_is_least_at_the_score_of_the_data():
    """Of data that are one point: 0 at its own score, and above elsewhere."""
    for name, space in SPACES.items():
        x0 = jnp.asarray(np.full((64, DIMS[name]), 0.4 if name != "sphere" else 3**-0.5), jnp.float32)
        own = lambda x, v, space=space, x0=x0: jax.vmap(space.score)(x0, x, v)
        weaker = lambda x, v, own=own: 0.9 * own(x, v)
        both = lambda draws, space=space, x0=x0, own=own, weaker=weaker: [
            spaces.loss(space, one, x0, draws) for one in (own, weaker)
        ]
        least, more = jax.jit(both)(keys(64))
        assert least.max() < 1e-6
        assert more.mean() > 1e-3


def test_the_simplex_is_the_cube_bent():
    u = jnp.asarray(np.random.default_rng(0).uniform(0.01, 0.99, (50, 3)), jnp.float32)
    p = spaces.to_simplex(u)
    assert (np.asarray(p) >= 0).all()
    np.testing.assert_allclose(p.sum(-1), 1, rtol=1e-6)
    np.testing.assert_allclose(spaces.to_cube(p), u, atol=1e-5)
    np.testing.assert_allclose(spaces.to_simplex(jnp.array([0.5, 0.5])), [0.5, 0.25, 0.25])
    corners = spaces.to_simplex(jnp.array([[1.0, 0.3], [0.0, 1.0], [0.0, 0.0]]))
    np.testing.assert_allclose(corners, np.eye(3), atol=1e-7)


K, N = 2, 3
TABLE = jnp.asarray(np.random.default_rng(0).standard_normal(((K + 1) ** N, N, K)), jnp.float32)
PLACES = (K + 1) ** jnp.arange(N)


def says(x, t):
    """A network that is a table of all masked sequences."""
    return TABLE[(x * PLACES[None]).sum(-1)]


def test_the_masked_bound_is_the_mean_over_all_orders():
    """By quadrature over t and all masks on one side, and all orders of an autoregressive model on the other."""
    x0 = np.array([1, 0, 1])
    log_p = np.asarray(jax.nn.log_softmax(TABLE), np.float64)
    place = lambda x: int((x * np.asarray(PLACES)).sum())
    orders = []
    for order in itertools.permutations(range(N)):
        x, total = np.full(N, K), 0.0
        for i in order:
            total -= log_p[place(x), i, x0[i]]
            x[i] = x0[i]
        orders.append(total)
    at, weight = np.polynomial.legendre.leggauss(8)
    t = jnp.asarray((at + 1) / 2, jnp.float32)
    bound = 0.0
    for hidden in itertools.product((False, True), repeat=N):
        x = jnp.where(jnp.array(hidden), K, jnp.asarray(x0))[None].repeat(8, 0)
        each = masked.terms(says(x, t), jnp.asarray(x0)[None].repeat(8, 0), x, t, K)
        m = sum(hidden)
        bound += (weight / 2 * np.asarray(each) * np.asarray(t) ** m * (1 - np.asarray(t)) ** (N - m)).sum()
    assert bound == pytest.approx(np.mean(orders), rel=1e-5)


@pytest.mark.heavy
def test_tokens_come_out_of_the_mask_as_often_as_all_orders_say():
    """In so many steps that two tokens seldom come at once."""
    p = np.asarray(jax.nn.softmax(TABLE), np.float64)
    expected = dict.fromkeys(itertools.product(range(K), repeat=N), 0.0)
    for order in itertools.permutations(range(N)):
        for x0 in expected:
            x, total = np.full(N, K), 1.0
            for i in order:
                total *= p[int((x * np.asarray(PLACES)).sum()), i, x0[i]]
                x[i] = x0[i]
            expected[x0] += total / 6
    drawn = np.asarray(jax.jit(lambda: walk.unmasked(K, says, keys(4000), (N,), 100))())
    assert drawn.max() < K
    for x, chance in expected.items():
        assert (drawn == x).all(1).mean() == pytest.approx(chance, abs=4 * np.sqrt(chance / 4000) + 0.01)
    hidden = masked.noised(jnp.zeros((2000, N), jnp.int32), jnp.full(2000, 0.3), keys(2000), K)
    assert float((hidden == K).mean()) == pytest.approx(0.3, abs=0.02)
