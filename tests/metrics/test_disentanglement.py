"""The mutual information gap of latents that are factors, mixtures of them, or noise."""

import numpy as np
import pytest

from jaxdiff.metrics.disentanglement import beta_vae_score, mig, mutual_information

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


def test_the_beta_vae_score_is_near_one_of_factors_and_a_guess_of_noise():
    rng = np.random.default_rng(0)
    factors = np.stack(np.meshgrid(*[np.arange(4)] * 4, indexing="ij"), -1).reshape(-1, 4)
    told = factors + 0.05 * rng.standard_normal(factors.shape)
    assert beta_vae_score(told @ np.diag([3.0, -1.0, 0.2, 5.0]), factors) > 0.98
    assert beta_vae_score(rng.standard_normal((256, 4)), factors) == pytest.approx(0.25, abs=0.06)
    half = np.concatenate([told[:, :2], rng.standard_normal((256, 2))], 1)  # of two factors nothing is told
    assert beta_vae_score(half, factors) == pytest.approx(0.75, abs=0.08)


def test_what_has_no_score_is_refused():
    with pytest.raises(ValueError, match="got 1, expected two"):
        beta_vae_score(np.zeros((4, 2)), np.arange(4)[:, None] // 2)
    with pytest.raises(ValueError, match="alone has its value"):
        beta_vae_score(np.zeros((4, 2)), np.stack([np.arange(4), np.arange(4)], 1))
