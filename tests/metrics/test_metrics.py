"""Closed forms and invariants of the arithmetic of metrics."""

import numpy as np
import pytest

from jaxdiff.metrics import statistics
from jaxdiff.metrics.bootstrap import Estimate, bootstrap
from jaxdiff.metrics.clip_score import clip_score, r_precision
from jaxdiff.metrics.diversity import diversity, vendi
from jaxdiff.metrics.fid import frechet_distance, frechet_distance_of
from jaxdiff.metrics.inception_score import inception_score
from jaxdiff.metrics.kid import polynomial_mmd
from jaxdiff.metrics.neighbours import neighbours
from jaxdiff.metrics.pixels import psnr, ssim


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def covariance(rng, d):
    x = rng.standard_normal((2 * d, d))
    return x.T @ x / (2 * d)


def test_frechet_distance_of_gaussians_that_commute(rng):
    # with common axes the distance is that of the deviations: |m|^2 + sum (s - r)^2
    d = 50
    axes, _ = np.linalg.qr(rng.standard_normal((d, d)))
    s, r, m = rng.uniform(0.01, 3, d), rng.uniform(0.01, 3, d), rng.standard_normal(d)
    a, b = (axes * s**2) @ axes.T, (axes * r**2) @ axes.T
    expected = (m**2).sum() + ((s - r) ** 2).sum()
    np.testing.assert_allclose(frechet_distance(m, a, np.zeros(d), b), expected, rtol=1e-12)


def test_frechet_distance_of_a_scaled_and_moved_set(rng):
    # b = 2 a + 1: tr (A 4A)^(1/2) = 2 tr A, so d^2 = |m_b - m_a|^2 + tr A; by [n, n] and by [d, d]
    for n in (20, 300):
        a = rng.standard_normal((n, 40)) @ rng.standard_normal((40, 40))
        expected = ((a.mean(0) + 1) ** 2).sum() + np.trace(np.cov(a.T))
        np.testing.assert_allclose(frechet_distance_of(a, 2 * a + 1), expected, rtol=1e-10)
        assert abs(frechet_distance_of(a, a)) < 1e-9 * expected


def test_frechet_distance_of_singular_covariances_keeps_its_digits(rng):
    # orthogonal supports: no overlap, so d^2 is the sum of traces; the root of rounding errors would show at 1e-6
    a, b = np.zeros((200, 200)), np.zeros((200, 200))
    a[:50, :50], b[50:, 50:] = covariance(rng, 50), covariance(rng, 150)
    axes, _ = np.linalg.qr(rng.standard_normal((200, 200)))
    a, b = axes @ a @ axes.T, axes @ b @ axes.T
    expected = np.trace(a) + np.trace(b)
    np.testing.assert_allclose(frechet_distance(np.zeros(200), a, np.zeros(200), b), expected, rtol=1e-7)


@pytest.mark.parametrize(
    ("cov", "words"), [(np.diag([1, np.nan]), "finite"), (-np.eye(2), "eigenvalue"), (np.triu(np.ones((2, 2))), "symm")]
)
def test_no_covariance_is_refused(cov, words):
    with pytest.raises(ValueError, match=words):
        frechet_distance(np.zeros(2), np.eye(2), np.zeros(2), cov)


def test_moments_merge_in_any_split_and_order(rng):
    # far from zero, where sums of squares would lose eight digits
    x = (1e4 + rng.standard_normal((101, 7))).astype(np.float32)
    parts = [statistics.moments(part) for part in np.split(x, [1, 2, 60])]
    merged = statistics.merge(statistics.merge(parts[3], parts[0]), statistics.merge(parts[1], parts[2]))
    assert merged.count == 101
    np.testing.assert_allclose(merged.mean, x.astype(np.float64).mean(0), rtol=1e-14)
    np.testing.assert_allclose(merged.covariance, np.cov(x.astype(np.float64).T), rtol=1e-9, atol=1e-9)


def test_statistics_are_saved_and_other_programs_files_are_read(rng, tmp_path):
    of = statistics.moments(rng.standard_normal((9, 4)))
    statistics.save(tmp_path / "a.npz", of)
    again = statistics.load(tmp_path / "a.npz")
    assert again.count == 9
    np.testing.assert_array_equal(again.covariance, of.covariance)
    np.savez_compressed(tmp_path / "theirs.npz", mu=of.mean, sigma=of.covariance)
    theirs = statistics.load(tmp_path / "theirs.npz")
    np.testing.assert_array_equal(theirs.mean, of.mean)
    with pytest.raises(ValueError, match="without a count"):
        statistics.merge(again, theirs)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": np.ones(3)}, "no mu and no sigma, but x"),
        ({"mu": np.ones(3), "sigma": np.eye(2)}, r"expected \[d\] and"),
        ({"mu": np.ones(2), "sigma": np.diag([1, np.inf])}, "not finite"),
        ({"mu": np.ones(2), "sigma": np.eye(2) * 1j}, "numbers of type complex128, where real ones are expected"),
        ({"mu": np.array(["a", "b"]), "sigma": np.eye(2)}, "numbers of type <U1"),
        ({"mu": np.array([None, 1]), "sigma": np.eye(2)}, "holds no statistics"),
        ({"mu": np.ones(2), "sigma": np.eye(2), "count": -3}, "the count of pictures is -3"),
        ({"mu": np.ones(2), "sigma": np.eye(2), "count": 2.5}, "the count of pictures is 2.5"),
        ({"mu": np.ones(2), "sigma": np.eye(2), "count": np.nan}, "the count of pictures is nan"),
        ({"mu": np.ones(2), "sigma": np.eye(2), "count": np.ones(2)}, "the count of pictures is"),
    ],
)
def test_other_files_are_no_statistics(tmp_path, arrays, words):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(ValueError, match=words):
        statistics.load(tmp_path / "x.npz")
    (tmp_path / "text.npz").write_text("mu")
    with pytest.raises(ValueError, match="holds no statistics"):
        statistics.load(tmp_path / "text.npz")


def test_damaged_statistics_are_named(rng, tmp_path):
    statistics.save(tmp_path / "a.npz", statistics.moments(rng.standard_normal((9, 4))))
    whole = (tmp_path / "a.npz").read_bytes()
    for _ in range(60):
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] ^= 1 + rng.integers(255)
        (tmp_path / "a.npz").write_bytes(damaged[: rng.integers(len(whole))] if rng.random() < 0.5 else damaged)
        try:
            statistics.load(tmp_path / "a.npz")
        except ValueError as error:
            message = str(error)
        else:
            continue  # a byte that no reader looks at, such as a date
        assert "a.npz" in message
        assert "\n" not in message
    (tmp_path / "bare.npz").write_bytes(b"")
    np.save(tmp_path / "array.npy", np.ones(3))
    for name in ("bare.npz", "array.npy"):
        with pytest.raises(ValueError, match="holds no statistics of features"):
            statistics.load(tmp_path / name)


def test_mmd_has_no_bias_and_needs_no_covariance(rng):
    # two sets of one distribution: the mean over many draws is zero within its error
    draws = [polynomial_mmd(rng.standard_normal((5, 3)), rng.standard_normal((6, 3))) for _ in range(400)]
    assert abs(np.mean(draws)) < 4 * np.std(draws) / 20
    with pytest.raises(ValueError, match="at least 2"):
        polynomial_mmd(np.ones((1, 3)), np.ones((5, 3)))


def test_inception_score_between_its_bounds():
    np.testing.assert_allclose(inception_score(np.tile(np.eye(5), (4, 1)) * 200, 4), (5, 0), atol=1e-9)
    np.testing.assert_allclose(inception_score(np.ones((20, 5)), 2), (1, 0), atol=1e-12)
    with pytest.raises(ValueError, match="3 pictures in 10 parts"):
        inception_score(np.ones((3, 5)))


def test_neighbours_of_the_same_of_another_and_of_a_collapsed_set(rng):
    real = rng.standard_normal((60, 4))
    same = neighbours(real, real.copy(), 3)
    assert (same.precision, same.recall, same.coverage) == (1, 1, 1)
    assert neighbours(real, real + 100, 3) == (0, 0, 0, 0)
    # all near one real picture: what is made is good, and there is no variety
    collapsed = neighbours(real, real[:1] + 1e-3 * rng.standard_normal((60, 4)), 3)
    assert collapsed.precision == 1
    assert collapsed.recall < 0.02  # the one picture itself
    assert collapsed.coverage < 0.2
    with pytest.raises(ValueError, match="at least 6 pictures"):
        neighbours(real[:5], real)


def test_intervals_cover_the_truth_as_often_as_they_say(rng):
    hits = 0
    for seed in range(300):
        x = rng.exponential(size=(60, 1))
        low, high = bootstrap(lambda x: {"m": float(x.mean())}, x, resamples=200, level=0.9, seed=seed)["m"][1:]
        hits += low < 1 < high
    # 0.9 with a binomial deviation of 0.017, less a little for the skewed mean of 60
    assert 0.84 < hits / 300 < 0.94


def test_intervals_can_be_left_out_and_levels_are_checked():
    value, low, high = bootstrap(lambda x: {"n": len(x)}, np.zeros(7), resamples=0)["n"]
    assert value == 7
    assert np.isnan([low, high]).all()
    with pytest.raises(ValueError, match=r"level 95\.0"):
        bootstrap(lambda x: {}, np.zeros(7), level=95.0)


def test_an_interval_holds_its_value_and_stays_in_its_range(rng):
    assert Estimate(0.98, 0.9, 1.1).within(0.0, 1.0) == (0.98, 0.9, 1.0)
    assert Estimate(0.02, -0.1, 0.1).within(0.0, 1.0) == (0.02, 0.0, 0.1)
    assert Estimate(-0.001, -0.1, 0.1).within(0.0, np.inf) == (
        -0.001,
        -0.001,
        0.1,
    )  # KID has no bias, and so may be < 0
    assert Estimate(5.0, 6.0, 7.0).within(0.0, np.inf) == (5.0, 5.0, 7.0)
    for value in (np.inf, np.nan):
        ends = Estimate(value, 0.0, 1.0).within(0.0, np.inf)[1:]
        assert np.isnan(ends).all()
    for draws in (1, 2, 5):  # so few that the quantiles may lie on one side
        for seed in range(20):
            value, low, high = bootstrap(lambda x: {"m": x.max()}, rng.random(9), resamples=draws, seed=seed)["m"]
            assert low <= value <= high


def test_the_mean_of_infinities_has_no_interval():
    value, low, high = bootstrap(lambda x: {"m": float(x.mean())}, np.array([1.0, np.inf, 2.0]), resamples=9)["m"]
    assert value == np.inf
    assert np.isnan([low, high]).all()


def test_clip_score_and_precision():
    captions = np.eye(4)[[0, 1, 2, 2]]
    pictures = np.array([[2, 0, 0, 0], [1, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 3, 1]], float)
    np.testing.assert_allclose(clip_score(pictures, captions), [100, 100 / 2**0.5, 0, 300 / 10**0.5])
    # the second is as near to another caption, the third nearer; the fourth's own is there twice, which does not count
    np.testing.assert_array_equal(r_precision(pictures, captions), [True, False, False, True])
    with pytest.raises(ValueError, match="at least 2 to choose from"):
        r_precision(pictures[:1], captions[:1])


def test_diversity_of_points_on_axes():
    x = np.eye(6)
    np.testing.assert_allclose(diversity(3 * x), 3 * 2**0.5)
    np.testing.assert_allclose(vendi(3 * x), 6)
    np.testing.assert_allclose(vendi(np.ones((6, 3))), 1)
    np.testing.assert_allclose(vendi(x[[0, 0, 0, 1, 1, 1]]), 2)
    with pytest.raises(ValueError, match="pairs"):
        diversity(x[:1])


def test_equal_pictures_are_infinitely_near():
    x = np.arange(12 * 12 * 3, dtype=np.uint8).reshape(1, 12, 12, 3)
    assert psnr(x, x) == np.inf
    np.testing.assert_allclose(ssim(x, x), 1)
    np.testing.assert_allclose(psnr(x[:, :2, :2] * 0, x[:, :2, :2] * 0 + 51), 10 * np.log10(25))
    with pytest.raises(ValueError, match="11x11"):
        ssim(x[:, :10], x[:, :10])
