"""Optimizers as a user types them, and the optax transformation they stand for."""

import dataclasses
import re
from typing import Any, Literal

import jax
import optax

_NO_DECAY = re.compile(r"(.*/)?\w*(norm|embed|position)\w*(/.*)?")


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """An optimizer and its learning rate over the run.

    Attributes:
      name: adamw (decoupled weight decay), adam, or sgd (plain).
      lr: the highest learning rate.
      warmup: steps in which it rises from 0.
      decay: what follows: "cosine" down to `end_lr` at the last step, or "constant".
      end_lr: where the cosine ends.
      b1: decay of the first moment.
      b2: decay of the second moment.
      eps: added to the root of the second moment.
      weight_decay: of adamw; biases, norms, embeddings and other vectors are spared.
      clip: largest global norm of the gradient; 0 does not clip.
    """

    name: Literal["adamw", "adam", "sgd"] = "adamw"
    lr: float = 1e-4
    warmup: int = 0
    decay: Literal["cosine", "constant"] = "cosine"
    end_lr: float = 0.0
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.01
    clip: float = 1.0


def learning_rate(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """The learning rate of each of `steps` steps.

    Raises:
      ValueError: if the warm-up takes the whole run.
    """
    if config.warmup and config.warmup >= steps:
        raise ValueError(f"warmup = {config.warmup} leaves nothing of the {steps} steps: choose it below train.steps.")
    after = (
        optax.cosine_decay_schedule(config.lr, max(steps - config.warmup, 1), alpha=config.end_lr / config.lr)
        if config.decay == "cosine"
        else optax.constant_schedule(config.lr)
    )
    if not config.warmup:
        return after
    return optax.join_schedules([optax.linear_schedule(0.0, config.lr, config.warmup), after], [config.warmup])


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """The transformation of gradients to updates for a run of `steps` steps.

    Raises:
      ValueError: if a field is out of range.
    """
    for field in ("lr", "eps"):
        if not getattr(config, field) > 0:
            raise ValueError(f"optimizer.{field} = {getattr(config, field)} must be above 0.")
    for field in ("warmup", "end_lr", "weight_decay", "clip"):
        if getattr(config, field) < 0:
            raise ValueError(f"optimizer.{field} = {getattr(config, field)} must not be below 0.")
    parts = [optax.clip_by_global_norm(config.clip)] if config.clip else []
    if config.name != "sgd":
        parts.append(optax.scale_by_adam(config.b1, config.b2, config.eps))
    if config.name == "adamw":
        parts.append(optax.add_decayed_weights(config.weight_decay, mask=decayed))
    return optax.chain(*parts, optax.scale_by_learning_rate(learning_rate(config, steps)))


def decayed(params: Any) -> Any:
    """True for each weight that decay applies to: matrices and kernels outside norms and embeddings."""

    def weight(path: tuple[Any, ...], leaf: Any) -> bool:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return leaf.ndim > 1 and not name.endswith("bias") and not _NO_DECAY.fullmatch(name)

    return jax.tree_util.tree_map_with_path(weight, params)
