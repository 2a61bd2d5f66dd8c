"""Edges and blurs that steer a ControlNet."""

import numpy as np
import pytest

from jaxdiff.data import hints


def grey(x):
    return np.repeat(np.asarray(x, np.uint8)[..., None], 3, -1)


def test_a_step_is_one_line():
    """Sobel's gradient of a step is the same on both of its sides: one of them is the edge."""
    x = np.zeros((9, 12))
    x[:, 6:] = 200
    edges = hints.canny(grey(x))
    assert edges.dtype == np.uint8
    np.testing.assert_array_equal(np.flatnonzero(edges[4, :, 0]), [5])
    np.testing.assert_array_equal(hints.canny(grey(x.T)), edges.transpose(1, 0, 2))


def test_a_weak_edge_counts_where_a_strong_one_leads_to_it():
    """Sobel's gradient of a step of height s is 4 s: 160 is between the thresholds, and 320 above both."""
    x = np.zeros((12, 12))
    x[:, 6:] = 40
    assert not hints.canny(grey(x)).any()
    assert not hints.canny(grey(x / 2), low=10.0, high=200.0).any()
    x[6:, 6:] = 80
    edges = hints.canny(grey(x))
    assert edges[:5, 5].all()  # the line turns at the corner
    assert edges[7:, 5].all()


def test_the_channel_that_changes_most_counts():
    x = np.zeros((8, 8, 3), np.uint8)
    x[:, 4:, 2] = 255
    np.testing.assert_array_equal(hints.canny(x), hints.canny(x[..., ::-1]))
    assert hints.canny(x).any()


@pytest.mark.parametrize("deviation", [1.0, 3.0])
def test_a_blur_keeps_the_mean_and_spreads(deviation):
    x = np.zeros((41, 41), np.uint8)
    x[20, 20] = 255
    made = hints.blur(grey(x), deviation)
    assert made[20, 20, 0] == round(255 / (2 * np.pi * deviation**2)) or abs(
        int(made[20, 20, 0]) - 255 / (2 * np.pi * deviation**2)) < 1.5  # fmt: skip
    np.testing.assert_array_equal(hints.blur(grey(np.full((5, 5), 77)), deviation), grey(np.full((5, 5), 77)))
