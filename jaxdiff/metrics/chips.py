"""Accelerators by name: what their makers publish, and the topologies that their compiler knows.

Sources: Cloud TPU documentation, system architecture pages of v4, v5e, v5p and v6e (peak, HBM bandwidth, link
bandwidth, which there counts both directions). The usable memory is what the compiler of each chip names when it
refuses a program, 'exceeds available HBM', with libtpu 0.0.52; it is less than what is soldered on.
"""

import dataclasses
import math
from typing import NamedTuple

from jax.sharding import AbstractDevice

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One kind of accelerator, as one JAX device.

    Attributes:
      kind: its `device_kind` in JAX.
      flops: peak of bfloat16 products, 1/s.
      bandwidth: bandwidth of its memory, bytes/s.
      link: between chips of a slice, all links of one, bytes/s in one direction.
      memory: usable bytes.
      dims: sides of its torus.
      most: chips of the largest slice.
      cores: JAX devices on a chip.
    """

    kind: str
    flops: float
    bandwidth: float
    link: float
    memory: float
    dims: int
    most: int
    cores: int = 1


CHIPS = {
    "v5e": Chip("TPU v5 lite", 197e12, 819e9, 200e9, 15.75 * GIB, 2, 256),
    "v6e": Chip("TPU v6 lite", 918e12, 1638e9, 400e9, 31.24 * GIB, 2, 256),
    "v5p": Chip("TPU v5", 459e12, 2765e9, 600e9, 95.73 * GIB, 3, 8960),
    "v4": Chip("TPU v4", 137.5e12, 614e9, 150e9, 15.25 * GIB, 3, 4096, cores=2),
}
"""A v4 has two cores, each a device for this compiler with half of the chip's 275 TF, 1228 GB/s and links."""

FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
"""Topologies of chips whose torus has two dimensions."""


class Topology(NamedTuple):
    """Chips that are joined.

    Attributes:
      name: 'v5e:16x16'.
      chip: the kind of chip.
      devices: as JAX counts them, of all slices.
      slices: slices of this size, joined by the data centre's network.
    """

    name: str
    chip: Chip
    devices: int
    slices: int = 1

    @property
    def device(self) -> AbstractDevice:
        """Returns one device, as a mesh that is only described has it."""
        return AbstractDevice(device_kind=self.chip.kind, num_cores=1, platform="tpu")


def parse(name: str, slices: int = 1) -> Topology:
    """Reads a topology by name, such as v5e:16x16 or v5p:4x4x4.

    Raises:
      ValueError: if there is none of that name; lists those that there are.
    """
    if slices < 1:
        raise ValueError(f"--slices is {slices}: expected 1 or more")
    kind, _, shape = name.partition(":")
    if kind not in CHIPS or not _exists(CHIPS[kind], shape):
        flat = f"v5e: or v6e: with {', '.join(FLAT)}"
        raise ValueError(
            f"there is no topology {name!r}: expected {flat}; or v4: or v5p: with AxBxC, as 2x2x1, 2x2x2, 2x2x4, "
            "2x4x4, 4x4x4 and multiples of 4"
        )
    chip = CHIPS[kind]
    return Topology(name, chip, math.prod(map(int, shape.split("x"))) * chip.cores * slices, slices)


def by_kind(kind: str) -> Chip | None:
    """Returns the chip that JAX calls so, if it is a known one."""
    return next((chip for chip in CHIPS.values() if chip.kind == kind), None)


def _exists(chip: Chip, shape: str) -> bool:
    if chip.dims == 2:
        return shape in FLAT
    sides = shape.split("x")
    if len(sides) != 3 or not all(side.isascii() and side.isdigit() and len(side) < 4 for side in sides):
        return False
    a, b, c = map(int, sides)
    if shape in ("2x2x1", "2x2x2", "2x2x4", "2x4x4"):
        return True
    return 0 < a <= b <= c and all(side % 4 == 0 for side in (a, b, c)) and a * b * c <= chip.most
