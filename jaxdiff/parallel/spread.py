"""A function over examples, spread over devices: each gets a part of the batch, and all get the rest whole."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxdiff.parallel.mesh import MeshSpec, make_mesh


class Spread:
    """`function(whole, batch)`, compiled for many devices, as a function of host arrays that returns host arrays.

    `whole` is any tree (weights, tables); the leaves of `batch` and of the result have the example as their first axis,
    and an example's result depends on no other. A batch that does not divide by the devices is filled up with copies of
    its last example, whose results are dropped.
    """

    def __init__(
        self,
        function: Callable[[Any, Any], Any],
        spec: MeshSpec | Literal["pmap"] = MeshSpec(),
        devices: Sequence[jax.Device] | None = None,
    ):
        """Compiles nothing yet. `spec` says how `devices` (all by default) share the batch."""
        devices = tuple(jax.devices() if devices is None else devices)
        self._split = spec == "pmap"
        mesh = make_mesh(MeshSpec() if spec == "pmap" else spec, devices)
        self._ways = mesh.shape["data"] * mesh.shape["fsdp"]
        self._whole, each = NamedSharding(mesh, P()), NamedSharding(mesh, P(("data", "fsdp")))
        self._traces = 0

        def traced(whole: Any, batch: Any) -> Any:
            self._traces += 1
            return function(whole, batch)

        self._program: Any = (
            jax.pmap(traced, in_axes=(None, 0), devices=devices)
            if self._split
            else jax.jit(traced, in_shardings=(self._whole, each), out_shardings=each)
        )

    def __call__(self, whole: Any, batch: Any) -> Any:
        """The result for a batch of any size from 1.

        Raises:
          ValueError: if there are no examples.
        """
        count = jax.tree.leaves(batch)[0].shape[0]
        if not count:
            raise ValueError("a batch of no examples was given: expected at least one")
        rows = np.minimum(np.arange(count + -count % self._ways), count - 1)

        def fill(x: Any) -> Any:
            x = x[rows] if len(rows) > count else x
            return x.reshape(self._ways, -1, *x.shape[1:]) if self._split else x

        def join(x: Any) -> np.ndarray:
            x = np.asarray(x)
            return (x.reshape(-1, *x.shape[2:]) if self._split else x)[:count]

        return jax.tree.map(join, self._program(jax.device_put(whole, self._whole), jax.tree.map(fill, batch)))

    def compiled(self) -> int:
        """How many programs have been compiled so far; each was traced once."""
        return self._traces
