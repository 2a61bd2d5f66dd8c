"""Our numbers against other libraries' on the same features; tests/reference/metrics.py made the fixture."""

import pathlib

import numpy as np
import pytest
from reference.sd_weights import noise

from jaxdiff.metrics.fid import frechet_distance, frechet_distance_of
from jaxdiff.metrics.inception_score import inception_score
from jaxdiff.metrics.kid import kid, polynomial_mmd
from jaxdiff.metrics.neighbours import neighbours
from jaxdiff.metrics.pixels import psnr, ssim
from jaxdiff.metrics.statistics import moments

FIXTURE = np.load(pathlib.Path(__file__).parents[1] / "reference" / "metrics.npz")
SIZES = {"many": (400, 300, 24), "few": (60, 80, 96)}
cases = pytest.mark.parametrize("case", SIZES)


def features(name, n, d):
    """As the maker has them."""
    z = noise(name, (n, d)).astype(np.float64)
    mix = noise("mix", (d, d)).astype(np.float64) + np.eye(d)
    return np.maximum(z @ mix + 0.3, -0.5) + 0.2 * noise(name + "/shift", (d,))


def pair(case):
    n, m, d = SIZES[case]
    return features(case + "/a", n, d), features(case + "/b", m, d)


@cases
@pytest.mark.parametrize("theirs", ["pytorch_fid", "torch_fidelity"])
def test_frechet_distance(case, theirs):
    a, b = (moments(x) for x in pair(case))
    ours = frechet_distance(a.mean, a.covariance, b.mean, b.covariance)
    # theirs takes roots of eigenvalues that are zero but for rounding where there are fewer pictures than features
    np.testing.assert_allclose(ours, FIXTURE[f"{case}/{theirs}"], rtol=1e-6)
    np.testing.assert_allclose(frechet_distance_of(*pair(case)), ours, rtol=1e-10)


@cases
def test_kernel_inception_distance(case):
    a, b = pair(case)
    size = min(len(a), len(b))
    np.testing.assert_allclose(polynomial_mmd(a[:size], b[:size]), FIXTURE[f"{case}/kid"], rtol=1e-9)
    drawn = kid(a, b, subsets=40, size=30)
    assert abs(drawn.mean - polynomial_mmd(a, b)) < 4 * drawn.deviation / np.sqrt(40)


@cases
def test_nearest_neighbours(case):
    a, b = pair(case)
    np.testing.assert_allclose(neighbours(a, b, 5), FIXTURE[f"{case}/prdc"], rtol=1e-12)
    np.testing.assert_allclose(neighbours(a, b, 3)[:2], FIXTURE[f"{case}/prc"], rtol=1e-6)  # theirs is a float32


@cases
def test_inception_score(case):
    logits = 4 * noise(case + "/logits", (SIZES[case][0], 10))
    np.testing.assert_allclose(inception_score(logits, 7), FIXTURE[f"{case}/isc"], rtol=1e-9)


def test_pixels():
    x = ((noise("picture", (3, 24, 20, 3)) + 1) * 127.5).astype(np.uint8)
    y = np.clip(x + 40.0 * noise("error", x.shape), 0, 255).astype(np.uint8)
    np.testing.assert_allclose(psnr(x, y), FIXTURE["psnr"], rtol=1e-9)
    np.testing.assert_allclose(ssim(x, y), FIXTURE["ssim"], rtol=1e-9)
