"""The figures of a program on devices that need not exist, from shapes and the jaxpr."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax

from jaxdiff.dryrun import collectives, estimate, shardings
from jaxdiff.dryrun.subject import Subject
from jaxdiff.metrics import speed
from jaxdiff.metrics.chips import Topology


@dataclasses.dataclass(frozen=True)
class Figures:
    """Needs of a program.

    Attributes:
      devices: devices of the mesh.
      mesh: 'data=16, fsdp=16, tensor=1'.
      parameters: how many are trained, or sampled with.
      state: bytes of all that is kept between steps (or of the weights), once.
      held: bytes of it on one device.
      batch: examples of a step, over all devices.
      at_once: examples that a device works on at once.
      live: see `estimate`.
      flops: flops of one step, products and convolutions, as executed.
      repeated: the part of them that recomputes what was not kept.
      sent: bytes by kind of collective; see `collectives`.
      ways: devices that a collective spans.
      groups: see `shardings`.
    """

    devices: int
    mesh: str
    parameters: int
    state: int
    held: int
    batch: int
    at_once: int
    live: estimate.Live
    flops: float
    repeated: float
    sent: dict[str, float]
    ways: int
    groups: list[shardings.Group]

    @property
    def temporary(self) -> float:
        """Returns the estimated bytes of a device beside the state."""
        return self.live.peak(self.at_once)

    @property
    def peak(self) -> float:
        """Returns the estimated bytes of a device."""
        return self.held + self.temporary

    def largest(self, memory: int | float) -> int:
        """Returns the examples that a device can work on at once in so many bytes; 0 if not one."""
        low, high = 0, 1
        while self.held + self.live.peak(high) <= memory and high < 2**20:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.held + self.live.peak(middle) <= memory else (low, middle)
        return low

    def bound(self, topology: Topology) -> dict[str, float]:
        """Returns the seconds that a step takes at least, by what would be the limit: a roofline.

        Memory moves the state twice, and what is stored once in and once out.
        """
        chip = topology.chip
        moved = 2 * self.held + 2 * (self.live.stored.fixed + self.at_once * self.live.stored.each)
        return {
            "products": self.flops / (self.devices * chip.flops),
            "memory": moved / chip.bandwidth,
            "links": collectives.sent(self.sent, self.ways) / chip.link,
        }


def of_training(subject: Subject, tell: Callable[[str], None] = lambda stage: None) -> Figures:
    """Returns the figures of a training step, by two traces of it.

    The first, for a platform that has no forms of its own, holds the products that the architecture asks for; the
    second, for the platform of the mesh, the values that its kernels keep.
    """
    mesh, train = subject.mesh, subject.config.train
    parts = subject.ways * train.accumulate
    arguments = subject.arguments(parts * estimate.EXAMPLES)
    tell("counts the work")
    plain = speed.trace(subject.step, arguments, mesh, "none")
    tell("estimates the memory")
    sizes = sizes_of(mesh, subject.like.params, train.batch_size // parts)
    kept = estimate.live(speed.trace(subject.step, arguments, mesh), sizes)
    share = train.batch_size / (parts * estimate.EXAMPLES)
    params = subject.like.params
    return Figures(
        devices=mesh.size,
        mesh=named(mesh),
        parameters=sum(math.prod(x.shape) for x in jax.tree.leaves(params)),
        state=shardings.all_bytes(subject.like),
        held=shardings.held_bytes(subject.like) + shardings.held_bytes(subject.arguments(train.batch_size)[1:]),
        batch=train.batch_size,
        at_once=train.batch_size // parts,
        live=kept,
        flops=speed.work(plain).flops * share,
        repeated=speed.recomputed(plain.jaxpr) * share,
        sent=collectives.estimate(params, train.accumulate),
        ways=subject.ways,
        groups=shardings.groups(params),
    )


def resplit(found: Figures, subject: Subject) -> Figures:
    """Returns the figures of the same step with its state split in another way, which changes no activation."""
    params, train = subject.like.params, subject.config.train
    return dataclasses.replace(
        found,
        mesh=named(subject.mesh),
        held=shardings.held_bytes(subject.like) + shardings.held_bytes(subject.arguments(train.batch_size)[1:]),
        live=dataclasses.replace(
            found.live, fixed=found.live.fixed * shardings.held_bytes(params) / held_before(found)
        ),
        sent=collectives.estimate(params, train.accumulate),
        groups=shardings.groups(params),
    )


def held_before(found: Figures) -> int:
    """Returns the bytes of the parameters that a device holds."""
    return sum(group.held for group in found.groups)


def sizes_of(mesh: Any, params: Any, examples: int) -> estimate.Sizes:
    """Returns how large the values of a program over a mesh are on each device, which works on so many examples."""
    tiled = examples if mesh.abstract_mesh.abstract_device.platform == "tpu" else 0
    return estimate.Sizes(mesh.shape["data"] * mesh.shape["fsdp"], estimate.held(params), tiled)


def named(mesh: Any) -> str:
    """Returns the sizes of a mesh as text."""
    return ", ".join(f"{name}={size}" for name, size in mesh.shape.items())
