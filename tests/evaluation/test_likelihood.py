"""Bits per dimension of a model that says every picture is grey, for which both ways have a closed form."""

import jax
import numpy as np
import pytest
from evaluation.small import pipeline
from scipy.stats import norm

from jaxdiff.diffusion import schedule
from jaxdiff.evaluation.likelihood import bits_per_dim
from jaxdiff.evaluation.pictures import Pictures
from jaxdiff.sampling import ode

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3), np.uint8)
SET = Pictures("set", (8, 8), 9, lambda i: PIXELS[i])
X = PIXELS / 127.5 - 1
S = schedule.linear()


def mean(x):
    return x.reshape(9, -1).mean(1)


def test_the_bound():
    steps = 50
    got = bits_per_dim(pipeline(0.0, "linear"), SET, [""] * 9, "bound", steps=steps, batch_size=1)
    # with D = 0 each step costs (SNR_{i-1} - SNR_i) x^2 / 2, whatever the noise; the sum telescopes
    snr = np.exp(S.log_snr(np.array([1 / steps, 1.0])))
    walk = 0.5 * (snr[0] - snr[1]) * mean(X**2)
    alpha, sigma = S.alpha(np.array(1.0)), S.sigma(np.array(1.0))
    prior = 0.5 * (sigma**2 + alpha**2 * mean(X**2) - 1 - 2 * np.log(sigma))
    deviation = np.exp(-S.log_snr(np.array(1 / steps)) / 2)
    # the mass of the bin, in the tail above zero, where it keeps its digits
    low, high = np.abs(X) - 1 / 255, np.where(np.isin(PIXELS, (0, 255)), np.inf, np.abs(X) + 1 / 255)
    first = -mean(np.log(norm.sf(low / deviation) - norm.sf(high / deviation)))
    np.testing.assert_allclose(got, (walk + prior + first) / np.log(2), rtol=1e-4)


def test_the_ode(monkeypatch):
    """With steps of a hundredth of the error that measuring allows."""
    pytest.importorskip("diffrax")
    measured = ode.log_likelihood
    finer = lambda *args, tolerance, **numbers: measured(*args, tolerance=tolerance / 100, **numbers)
    monkeypatch.setattr(ode, "log_likelihood", finer)
    got = bits_per_dim(pipeline(0.0, "linear"), SET, [""] * 9, "ode", batch_size=2, seed=4)
    keys = [jax.random.fold_in(jax.random.fold_in(jax.random.key(4), i), 0) for i in range(9)]
    x = (PIXELS + np.stack([jax.random.uniform(key, (8, 8, 3)) for key in keys]) - 0.5) / 127.5 - 1
    # with D = 0, x / sigma stays as it is on the way
    t = np.array([1e-3, 1.0])
    alpha, sigma = S.alpha(t), S.sigma(t)
    last = x * alpha[0] * sigma[1] / sigma[0]
    total = alpha[1] ** 2 + sigma[1] ** 2
    nats = 0.5 * mean(last**2) / total + 0.5 * np.log(2 * np.pi * total) - np.log(alpha[0] * sigma[1] / sigma[0])
    np.testing.assert_allclose(got, nats / np.log(2) + np.log2(127.5), rtol=1e-4)


def test_another_size_is_refused():
    with pytest.raises(ValueError, match="wide is 9x8, the model 8x8"):
        bits_per_dim(pipeline(0.0), Pictures("wide", (8, 9), 1, lambda i: None), [""])
