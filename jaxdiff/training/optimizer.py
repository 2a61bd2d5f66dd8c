"""Optimizers as a user types them, and the optax transformation they stand for."""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxdiff.typing import Params

_NO_DECAY = re.compile(r"(.*/)?\w*(norm|embed|position)\w*(/.*)?")


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """An optimizer and its schedule of learning rates.

    Attributes:
      name: adamw (decoupled weight decay), adam, adafactor (no first moment, and of a matrix only the means of rows and
        columns of the second: a few thousandths of Adam's memory; decoupled weight decay), or sgd (plain). Take
        adafactor where memory is short: optax has neither an 8-bit Adam nor CAME.
      lr: highest learning rate.
      warmup: steps in which the learning rate rises linearly from 0.
      decay: learning rate after the warm-up: `cosine` down to `end_lr` at the last step, or `constant`.
      end_lr: learning rate at the end of the cosine.
      b1: decay of the first moment, of adam and adamw.
      b2: decay of the second moment, of adam and adamw; adafactor's grows with the steps, 1 - steps^-0.8.
      eps: constant added to the root of the second moment, of adam and adamw.
      weight_decay: weight decay of adamw and adafactor; biases, norms, embeddings and other vectors have none.
      clip: largest global norm of the gradient; 0 does not clip.
      every: steps from one update to the next; the gradients between are dropped. A generator with 5 moves once in
        five steps of its critic.
    """

    name: Literal["adamw", "adam", "adafactor", "sgd"] = "adamw"
    lr: float = 1e-4
    warmup: int = 0
    decay: Literal["cosine", "constant"] = "cosine"
    end_lr: float = 0.0
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.01
    clip: float = 1.0
    every: int = 1


def learning_rate(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Returns the learning rate of each of `steps` steps."""
    after = (
        optax.cosine_decay_schedule(config.lr, max(steps - config.warmup, 1), alpha=config.end_lr / config.lr)
        if config.decay == "cosine"
        else optax.constant_schedule(config.lr)
    )
    if not config.warmup:
        return after
    return optax.join_schedules([optax.linear_schedule(0.0, config.lr, config.warmup), after], [config.warmup])


class Optimizer(NamedTuple):
    """A transformation of gradients to updates, as optax has it, and what a log tells of it.

    Attributes:
      init: (params) -> state.
      update: (gradients, state, params) -> (updates, state).
      rates: rates of each group, step -> learning rate.
      members: (params) -> a tree of the same shape with each parameter's group.
    """

    init: Callable[[Params], Any]
    update: Callable[[Params, Any, Params], tuple[Params, Any]]
    rates: Mapping[str, optax.Schedule]
    members: Callable[[Params], Any]


def make_optimizer(
    config: OptimizerConfig, steps: int, groups: Sequence[tuple[str, OptimizerConfig]] = ()
) -> Optimizer:
    """Makes the transformation of gradients to updates for a run of `steps` steps.

    Args:
      config: config of all parameters that no group takes.
      steps: steps of the run.
      groups: ((path pattern, config), ...): a parameter is of the first group whose pattern matches its whole path
        'a/b/c'. Each group is clipped and moves by itself.

    Raises:
      ValueError: if a field is out of range; and, by `init`, for a pattern that no parameter matches.
    """
    names = [REST, *(group_name(pattern) for pattern, _ in groups)]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"groups of the optimizer have one name, {', '.join(sorted(repeated))}: change a pattern")
    configs = dict(zip(names, [config, *(one for _, one in groups)], strict=True))
    parts = {name: _one(one, steps, "" if name == REST else f" of group {name}") for name, one in configs.items()}
    rates = {name: _held(learning_rate(one, steps), one.every) for name, one in configs.items()}
    patterns = [(name, re.compile(pattern)) for name, (pattern, _) in zip(names[1:], groups, strict=True)]

    def members(params: Params) -> Any:
        def member(path: tuple[Any, ...], _: Any) -> str:
            full = jax.tree_util.keystr(path, simple=True, separator="/")
            return next((name for name, pattern in patterns if pattern.fullmatch(full)), REST)

        return jax.tree_util.tree_map_with_path(member, params)

    if not groups:
        return Optimizer(parts[REST].init, parts[REST].update, rates, members)
    transform = optax.multi_transform(parts, members)

    def init(params: Params) -> Any:
        found = {*jax.tree.leaves(members(params))}
        for name, pattern in patterns:
            if name not in found:
                tops = ", ".join([*params][:10])
                raise ValueError(
                    f"the optimizer group {pattern.pattern!r} matches no parameter, or all it matches go to groups "
                    f"before it: patterns match whole paths, which begin with {tops}"
                )
        return transform.init(params)

    return Optimizer(init, transform.update, rates, members)


def guarded(optimizer: Optimizer) -> Optimizer:
    """Returns the optimizer with room in its state for the typical norm of the gradient; see `make_train_step`."""

    def init(params: Params) -> Any:
        return {"inner": optimizer.init(params), "typical": jnp.zeros(())}

    def update(grads: Params, state: Any, params: Params) -> tuple[Params, Any]:
        updates, inner = optimizer.update(grads, state["inner"], params)
        return updates, {"inner": inner, "typical": state["typical"]}

    return optimizer._replace(init=init, update=update)


REST = "rest"
"""The group of the parameters that no pattern matches."""


def group_name(pattern: str) -> str:
    """Returns the name of a group in the log: its pattern's words, 'discriminator' for r'discriminator/.*'."""
    return "_".join(re.findall(r"\w+", pattern)) or "all"


def _one(config: OptimizerConfig, steps: int, whose: str) -> optax.GradientTransformation:
    """Returns the transformation of one group."""
    check(config, steps, whose)
    parts = [optax.clip_by_global_norm(config.clip)] if config.clip else []
    if config.name in ("adam", "adamw"):
        parts.append(optax.scale_by_adam(config.b1, config.b2, config.eps))
    if config.name == "adafactor":  # Shazeer & Stern 2018, arXiv 1804.04235, algorithm 4, with rates as they are given
        parts += [optax.scale_by_factored_rms(), optax.clip_by_block_rms(1.0)]
    if config.name in ("adamw", "adafactor"):
        parts.append(optax.add_decayed_weights(config.weight_decay, mask=decayed))
    rate, every = learning_rate(config, steps), config.every
    # its count is of its own updates, of which one comes in `every` steps
    chain = optax.chain(*parts, optax.scale_by_learning_rate(rate if every == 1 else lambda n: rate(n * every)))
    return chain if every == 1 else _now_and_then(chain, every)


def check(config: OptimizerConfig, steps: int, whose: str = "") -> None:
    """Refuses fields out of range; `whose` says of which group, after 'optimizer'.

    Raises:
      ValueError: names the field, what it is and what is expected.
    """
    ranges = {
        **dict.fromkeys(("lr", "eps"), (lambda x: 0 < x < math.inf, "a number above 0")),
        **dict.fromkeys(("end_lr", "weight_decay", "clip"), (lambda x: 0 <= x < math.inf, "a number of 0 or more")),
        **dict.fromkeys(("b1", "b2"), (lambda x: 0 <= x < 1, "at least 0 and less than 1")),
        "warmup": (lambda x: x >= 0, "0 or more steps"),
        "every": (lambda x: x >= 1, "1 or more steps"),
    }
    for field, (fits, expected) in ranges.items():
        if not fits(value := getattr(config, field)):
            raise ValueError(f"optimizer.{field}{whose} is {value}: expected {expected}")
    if config.end_lr > config.lr:
        raise ValueError(f"optimizer.end_lr{whose} is {config.end_lr}: expected at most lr, which is {config.lr}")
    if config.warmup and config.warmup >= steps:
        raise ValueError(
            f"optimizer.warmup{whose} is {config.warmup}, which leaves nothing of the {steps} steps: choose it below "
            "train.steps"
        )


def _held(rate: optax.Schedule, every: int) -> optax.Schedule:
    """Returns the learning rate at each step of weights that move every so many."""
    return rate if every == 1 else lambda step: rate(step // every * every)


def _now_and_then(inner: optax.GradientTransformation, every: int) -> optax.GradientTransformation:
    """Moves at step 0, `every`, 2 `every`, ...; the gradients of the other steps are dropped."""

    def init(params: Params) -> Any:
        return {"step": jnp.zeros((), jnp.int32), "inner": inner.init(params)}

    def update(grads: Params, state: Any, params: Params | None = None) -> tuple[Params, Any]:
        on = state["step"] % every == 0
        updates, moved = inner.update(grads, state["inner"], params)
        updates = jax.tree.map(lambda x: jnp.where(on, x, jnp.zeros_like(x)), updates)
        kept = jax.tree.map(lambda new, old: jnp.where(on, new, old), moved, state["inner"])
        return updates, {"step": state["step"] + 1, "inner": kept}

    return optax.GradientTransformation(init, update)


def decayed(params: Any) -> Any:
    """Returns true for each weight that decay applies to: matrices and kernels outside norms and embeddings."""

    def weight(path: tuple[Any, ...], leaf: Any) -> bool:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return leaf.ndim > 1 and not name.endswith("bias") and not _NO_DECAY.fullmatch(name)

    return jax.tree_util.tree_map_with_path(weight, params)
