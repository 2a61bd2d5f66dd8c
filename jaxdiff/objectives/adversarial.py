"""The two sides of an adversarial loss, and the weight that balances one of them against a reconstruction.

A critic d gives logits, high for real images. With softplus(x) = log(1 + exp(x)):

    non-saturating   critic  (softplus(-d(x)) + softplus(d(y))) / 2      generator  softplus(-d(y))
    hinge            critic  (relu(1 - d(x)) + relu(1 + d(y))) / 2       generator  -d(y)

Both sides are terms of one loss: the critic's sees stop_gradient(y), the generator's stop_gradient(parameters of d), so
each moves its own parameters alone.

Sources: Goodfellow et al. 2014, arXiv 1406.2661, section 3; Lim and Ye 2017, arXiv 1705.02894; the half as in the code
of Esser et al. 2021, arXiv 2012.09841.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Kind = Literal["hinge", "non_saturating"]


def critic_loss(real: Float[Array, " b *s"], fake: Float[Array, " b *s"], kind: Kind) -> Float[Array, ""]:
    """Returns the critic's loss from its logits."""
    above = {"hinge": lambda x: jax.nn.relu(1 + x), "non_saturating": jax.nn.softplus}[kind]
    return (above(-real) + above(fake)).mean() / 2


def generator_loss(fake: Float[Array, " b *s"], kind: Kind) -> Float[Array, ""]:
    """Returns the generator's loss from the critic's logits of what it made."""
    return {"hinge": lambda x: -x, "non_saturating": lambda x: jax.nn.softplus(-x)}[kind](fake).mean()


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
