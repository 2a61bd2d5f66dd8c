"""The device mesh: one function makes every mesh of the library."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

AXES = ("data", "fsdp", "tensor")


@dataclasses.dataclass(frozen=True)
class MeshSpec:
    """The number of ways that each kind of parallelism splits the work; one may be -1, the devices that are left.

    Attributes:
      data: number of copies of the model; each takes a part of the batch.
      fsdp: number of parts of weights and optimizer state; each also takes a part of the batch.
      tensor: number of parts of the attention heads and MLP width; all parts see the same examples.
    """

    data: int = -1
    fsdp: int = 1
    tensor: int = 1

    def sizes(self, devices: int) -> tuple[int, int, int]:
        """Returns the three sizes with -1 filled in.

        Raises:
          ValueError: if the sizes cannot multiply to `devices`.
        """
        sizes = (self.data, self.fsdp, self.tensor)
        wrong = [f"{name}={size}" for name, size in zip(AXES, sizes, strict=True) if size < 1 and size != -1]
        if wrong or sizes.count(-1) > 1:
            raise ValueError(
                f"mesh {', '.join(wrong) or self}: each size must be at least 1, and only one may be -1, "
                "which stands for the devices that are left."
            )
        fixed = math.prod(size for size in sizes if size != -1)
        if devices % fixed or (-1 not in sizes and fixed != devices):
            listed = ", ".join(f"{name}={size}" for name, size in zip(AXES, sizes, strict=True))
            raise ValueError(
                f"mesh {listed} needs {'a multiple of ' if -1 in sizes else ''}{fixed} devices, but there are "
                f"{devices}: choose sizes whose product is {devices}, or set one to -1."
            )
        data, split, width = (devices // fixed if size == -1 else size for size in sizes)
        return data, split, width


def make_mesh(spec: MeshSpec, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Returns a mesh with the axes data, fsdp and tensor over `devices` (all by default, of all processes).

    Every axis is `AxisType.Auto`: the compiler places what the rules leave open. `jax.make_mesh` would make them
    Explicit, where convolutions raise.

    Over several slices of TPUs, which a slow network joins, only `data` reaches: once a step it sums gradients there,
    while fsdp and tensor stay on the links of a slice.

    Raises:
      ValueError: if the sizes do not fit the devices or slices, or `tensor` would reach over a process' border, where a
        process could not feed its own part of the batch.
    """
    devices = jax.devices() if devices is None else devices
    sizes = spec.sizes(len(devices))
    types = (AxisType.Auto,) * 3
    if count_slices(devices) > 1:
        mesh = Mesh(over_slices(sizes, devices), AXES, axis_types=types)
    else:
        mesh = jax.make_mesh(sizes, AXES, axis_types=types, devices=devices)
    rows = mesh.devices.reshape(-1, sizes[2])
    if any(len({device.process_index for device in row}) > 1 for row in rows):
        raise ValueError(
            f"mesh tensor={sizes[2]} reaches over processes of {jax.local_device_count()} devices each, so that no "
            "process could feed its own examples: let tensor divide the devices of a process, and use fsdp beyond."
        )
    return mesh


def count_slices(devices: Sequence[Any]) -> int:
    """Returns how many slices of TPUs the devices are of; other devices count as one."""
    return len({getattr(device, "slice_index", 0) for device in devices if device.platform == "tpu"}) or 1


def over_slices(sizes: tuple[int, int, int], devices: Sequence[Any]) -> np.ndarray:
    """Returns devices of several slices as an array of the mesh's shape, each slice a part of `data`.

    Raises:
      ValueError: if `data` does not divide by the slices.
    """
    slices = count_slices(devices)
    if sizes[0] % slices:
        raise ValueError(
            f"mesh data={sizes[0]} does not divide by {slices} slices, between which only data reaches: let fsdp x "
            f"tensor divide the {len(devices) // slices} devices of a slice"
        )
    return mesh_utils.create_hybrid_device_mesh((sizes[0] // slices, *sizes[1:]), (slices, 1, 1), devices)
