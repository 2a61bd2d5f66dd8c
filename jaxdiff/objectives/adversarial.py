"""The two sides of an adversarial loss, what holds a critic back, and the balance of one side with a reconstruction.

A critic d gives logits, high for real images. With softplus(x) = log(1 + exp(x)):

    minimax          critic  (softplus(-d(x)) + softplus(d(y))) / 2      generator  -softplus(d(y))
    non-saturating   critic  the same                                    generator  softplus(-d(y))
    hinge            critic  (relu(1 - d(x)) + relu(1 + d(y))) / 2       generator  -d(y)
    wasserstein      critic  (d(y) - d(x)) / 2                           generator  -d(y)

Both sides are terms of one loss: the critic's sees stop_gradient(y), the generator's stop_gradient(parameters of d), so
each moves its own parameters alone.

Sources: Goodfellow et al. 2014, arXiv 1406.2661, section 3; Lim and Ye 2017, arXiv 1705.02894; Arjovsky et al. 2017,
arXiv 1701.07875; the half as in the code of Esser et al. 2021, arXiv 2012.09841.
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxdiff.typing import Metrics, Params

Kind = Literal["hinge", "non_saturating", "minimax", "wasserstein"]


def critic_loss(real: Float[Array, " b *s"], fake: Float[Array, " b *s"], kind: Kind) -> Float[Array, ""]:
    """Returns the critic's loss from its logits."""
    above = {"hinge": lambda x: jax.nn.relu(1 + x), "wasserstein": lambda x: x}.get(kind, jax.nn.softplus)
    return (above(-real) + above(fake)).mean() / 2


def generator_loss(fake: Float[Array, " b *s"], kind: Kind) -> Float[Array, ""]:
    """Returns the generator's loss from the critic's logits of what it made."""
    if kind == "minimax":
        return -jax.nn.softplus(fake).mean()
    return jax.nn.softplus(-fake).mean() if kind == "non_saturating" else -fake.mean()


def gradient_penalty(
    critic: Callable[[Array], Array], real: Float[Array, " b *s"], fake: Float[Array, " b *s"], at: Float[Array, " b"]
) -> Float[Array, ""]:
    """Returns the mean of (|gradient of d| - 1)^2 at points between real and fake, `at` of the way in [0, 1].

    Source: Gulrajani et al. 2017, arXiv 1704.00028, equation 3.
    """
    at = at.reshape(-1, *[1] * (real.ndim - 1))
    return ((jnp.sqrt(_squares(critic, real + at * (fake - real)) + 1e-12) - 1) ** 2).mean()


def r1(critic: Callable[[Array], Array], real: Float[Array, " b *s"]) -> Float[Array, ""]:
    """Returns the mean of |gradient of d|^2 / 2 at real images.

    Source: Mescheder et al. 2018, arXiv 1801.04406, equation 9.
    """
    return _squares(critic, real).mean() / 2


def _squares(critic: Callable[[Array], Array], x: Array) -> Array:
    """Returns |gradient of d|^2 at each of x."""
    slope = jax.grad(lambda x: critic(x).sum())(x)
    return (slope**2).reshape(len(x), -1).sum(1)


def jensen_shannon(real: Float[Array, " b"], fake: Float[Array, " b"]) -> Float[Array, ""]:
    """Returns what the logits say is the least Jensen-Shannon divergence of both sets in nats, from 0 to log 2.

    The value of the game at any critic is at most 2 JSD - 2 log 2 (Goodfellow et al. 2014, theorem 1).
    """
    return jnp.log(2.0) - critic_loss(real, fake, "minimax")


def class_loss(logits: Float[Array, "b k"], label: Int[Array, " b"], known: Bool[Array, " b"]) -> Float[Array, ""]:
    """Returns the mean of the cross entropy of the class among K real ones, 0 where it is not known.

    Of K classes and a K+1st, fake, whose logit is 0, p(real) = sum exp l_k / (sum exp l_k + 1): so the logit of being
    real is log sum exp l_k.

    Source: Salimans et al. 2016, arXiv 1606.03498, section 5.
    """
    each = -jnp.take_along_axis(jax.nn.log_softmax(logits), label[:, None], -1)[:, 0]
    return jnp.where(known, each, 0.0).mean()


def balance(reconstruction: Array, adversarial: Array, most: float = 1e4) -> Float[Array, ""]:
    """Returns |gradient of the reconstruction| / (|gradient of the adversarial loss| + 1e-4), at most `most`.

    Both gradients are taken at the decoder's last kernel.

    Source: Esser et al. 2021, arXiv 2012.09841, equation 7, with the constant of its code.
    """
    norm = lambda x: jnp.sqrt((x * x).sum())
    return jnp.clip(norm(reconstruction) / (norm(adversarial) + 1e-4), 0.0, most)


def passed_on(value: Float[Array, ""], gradient: Float[Array, "*s"], y: Float[Array, "*s"]) -> Float[Array, ""]:
    """Returns `value`, of which y gets this gradient: a loss whose gradient by y is known already is not traced again.

    As value + gradient (y - stop_gradient(y)), in which nothing but y is differentiated.
    """
    stop = jax.lax.stop_gradient
    return stop(value) + (stop(gradient) * (y - stop(y))).sum()


def both_sides(
    judge: Callable[[Params, Array], tuple[Array, Any]],
    params: Params,
    x: Array,
    y: Array,
    at: Array,
    kind: Kind,
    penalty: float = 0.0,
    real_penalty: float = 0.0,
    slopes: bool = False,
) -> tuple[Array, Metrics, Any]:
    """Returns the sum of both sides' losses, metrics, and what else the critic says.

    Args:
      judge: (parameters, x [b ...]) -> (logits [b], what else).
      params: params of the critic.
      x: real examples.
      y: made ones, through which the generator is differentiated.
      at: where between both the gradient penalty is taken, [b] in [0, 1].
      kind: kind of game.
      penalty: weight of the gradient penalty.
      real_penalty: weight of the gradient penalty at real examples.
      slopes: also measure the mean length of the gradient that the generator gets at each of what it made.
    """
    stop = jax.lax.stop_gradient
    fooled, _ = judge(stop(params), y)
    real, rest = judge(params, x)
    fake, _ = judge(params, stop(y))
    fool, tell = generator_loss(fooled, kind), critic_loss(real, fake, kind)
    metrics = {"fool": fool, "tell": tell, "real": real.mean(), "fake": fake.mean()}
    metrics["right"] = ((real > 0).mean() + (fake < 0).mean()) / 2
    metrics["jensen_shannon"] = jensen_shannon(real, fake)
    loss, alone = fool + tell, lambda x: judge(params, x)[0]
    if slopes:
        each = _squares(lambda y: generator_loss(judge(stop(params), y)[0], kind) * len(y), stop(y))
        metrics["slope"] = stop(jnp.sqrt(each).mean())
    if penalty:
        metrics["penalty"] = gradient_penalty(alone, x, stop(y), at)
        loss += penalty * metrics["penalty"]
    if real_penalty:
        metrics["r1"] = r1(alone, x)
        loss += real_penalty * metrics["r1"]
    return loss, metrics, rest
