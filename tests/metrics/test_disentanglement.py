"""The mutual information gap of latents that are factors, mixtures of them, or noise."""

import numpy as np
import pytest

from jaxdiff.metrics.disentanglement import mig, mutual_information

FACTORS = np.stack(np.meshgrid(np.arange(4), np.arange(5), np.arange(10), indexing="ij")[:2], -1).reshape(-1, 2)


def test_information_is_entropy_of_the_same_and_none_of_independent_numbers():
    one, other = FACTORS.T
    assert mutual_information(one, one) == pytest.approx(np.log(4))
    assert mutual_information(one, other) == pytest.approx(0, abs=1e-12)


def test_the_gap_is_one_of_factors_and_none_where_two_latents_say_the_same():
    one, other = FACTORS.T.astype(float)
    assert mig(np.stack([other, -3 * one], -1), FACTORS) == pytest.approx(1)
    assert mig(np.stack([one, 2 * one, other, other + 1], -1), FACTORS) == pytest.approx(0, abs=1e-12)
    half = mig(np.stack([one, 2 * one, other], -1), FACTORS)  # of two factors, one is told by one latent
    assert half == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("latents", "factors", "message"),
    [
        (np.zeros((200, 1)), FACTORS, "got 1 latents"),
        (np.zeros((200, 2)), FACTORS * np.array([1, 0]), "factor 1 never changes"),
    ],
)
def test_what_has_no_gap_is_refused(latents, factors, message):
    with pytest.raises(ValueError, match=message):
        mig(latents, factors)
