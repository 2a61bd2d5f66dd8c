"""A critic as one more loss of a student: it tells what one step makes from pictures, which then get sharp.

Both sides are hinge losses of `objectives.adversarial`, and the student's is multiplied by a weight.

Source: Sauer et al. 2023, arXiv 2311.17042, section 3 (an adversarial term beside one of distillation).
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdiff.models.patch_critic import PatchCritic, PatchCriticConfig
from jaxdiff.objectives import adversarial
from jaxdiff.typing import Key, Params


def check(critic: PatchCriticConfig, weight: float, side: int) -> None:
    """Refuses a weight below 0, and a critic that does not fit what it judges."""
    if not 0 <= weight < 1e6:
        raise ValueError(f"task.adversarial is {weight}: expected 0 or more")
    if weight:
        critic.check(side)


def begin(critic: PatchCriticConfig, key: Key, side: int, channels: int) -> Params:
    """Makes a critic's first parameters."""
    made: Params = PatchCritic(critic).init(key, jnp.zeros((1, side, side, channels)))["params"]
    return made


def terms(
    critic: PatchCriticConfig, weight: float, params: Params, made: Float[Array, "b h w c"], x0: Float[Array, "b h w c"]
) -> Float[Array, " b"]:
    """Returns the losses of both sides, of each example; each moves its own parameters alone."""
    stop = jax.lax.stop_gradient
    judge: Any = lambda params, x: PatchCritic(critic).apply({"params": params}, x)
    tell = jax.vmap(lambda real, fake: adversarial.critic_loss(real, fake, "hinge"))
    fool = jax.vmap(lambda fake: adversarial.generator_loss(fake, "hinge"))
    return tell(judge(params, stop(x0)), judge(params, stop(made))) + weight * fool(judge(stop(params), made))
