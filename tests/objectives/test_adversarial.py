import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.objectives.adversarial import balance, critic_loss, generator_loss, passed_on

KINDS = ("hinge", "non_saturating")


@pytest.mark.parametrize("kind", KINDS)
def test_losses_are_the_published_formulas(kind):
    real, fake = np.array([[0.5, -2.0], [3.0, 1.0]]), np.array([[-0.25, 0.0], [2.0, -4.0]])
    if kind == "hinge":
        critic = (np.maximum(1 - real, 0) + np.maximum(1 + fake, 0)).mean() / 2
        generator = -fake.mean()
    else:
        critic = (np.log1p(np.exp(-real)) + np.log1p(np.exp(fake))).mean() / 2
        generator = np.log1p(np.exp(-fake)).mean()
    np.testing.assert_allclose(critic_loss(jnp.array(real), jnp.array(fake), kind), critic, rtol=1e-6)
    np.testing.assert_allclose(generator_loss(jnp.array(fake), kind), generator, rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_critic_of_equal_distributions_is_undecided(kind):
    """log 2 a term, halved sums: -log 4 / 2 of the minimax game (Goodfellow et al. 2014, theorem 1)."""
    undecided = critic_loss(jnp.zeros((1, 1)), jnp.zeros((1, 1)), kind)
    np.testing.assert_allclose(undecided, {"hinge": 1.0, "non_saturating": np.log(2)}[kind], rtol=1e-6)


def test_a_loss_that_is_passed_on_has_its_value_and_its_gradient():
    y = jnp.array([1.0, -2.0, 3.0])
    loss = lambda y: (y**3).sum()
    value, gradient = jax.value_and_grad(loss)(y)
    inner = lambda x: 2 * x + 1
    passed = lambda x: passed_on(value, gradient, inner(x))
    x = (y - 1) / 2
    direct = jax.value_and_grad(lambda x: loss(inner(x)))(x)
    for got, expected in zip(jax.value_and_grad(passed)(x), direct, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_the_balance_is_a_ratio_of_norms_within_bounds():
    np.testing.assert_allclose(balance(jnp.full((2, 2), 3.0), jnp.full((1,), 2.0)), 6 / 2.0001, rtol=1e-6)
    assert balance(jnp.full((2,), 1e9), jnp.zeros(2)) == 1e4
