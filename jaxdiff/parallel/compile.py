"""One training step, compiled for one device, a mesh or pmap; the step itself knows none of them."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxdiff.parallel.mesh import MeshSpec, make_mesh
from jaxdiff.parallel.rules import Rules, param_shardings, path_string
from jaxdiff.parallel.rules import shardings as shard_by_rules
from jaxdiff.typing import Batch, Key, Params

DEVICES = "devices"
"""The axis name that pmap's `reduce` averages over."""


@dataclasses.dataclass(frozen=True)
class Program:
    """A step compiled for a set of devices.

    Attributes:
      init: (key) -> state, each part made where it will live; what was loaded is consumed where the state keeps it.
      frozen: (key) -> what is frozen in the first state, for a state that is read from a checkpoint.
      put: (batch) -> batch on the devices; this process' examples as host arrays go in.
      keys: (root, step, batch size) -> one key for each example of the whole batch, placed like the batch.
      step: (state, batch, keys) -> (state, metrics); the state given is consumed, the metrics are on every device.
      like: the state's tree with shapes, dtypes and shardings.
      mesh: mesh of the devices.
      jitted: what `step` calls within the mesh's context.
      inputs: () -> what the first state is made of beside the key: what was loaded, and the first batch.
    """

    init: Callable[[Key], Any]
    frozen: Callable[[Key], Any]
    put: Callable[[Batch], Batch]
    keys: Callable[[Key, int, int], Key]
    step: Callable[[Any, Batch, Key], tuple[Any, Any]]
    like: Any
    mesh: Mesh
    jitted: Any
    inputs: Callable[[], tuple[Params, Batch]]

    @property
    def shardings(self) -> Any:
        """Returns the state's tree with the place of each leaf."""
        return jax.tree.map(lambda leaf: leaf.sharding, self.like)


def compile(
    make_step: Callable[..., Callable[..., Any]],
    init_state: Callable[[Key, Params, Batch], Any],
    loaded: Params = MappingProxyType({}),
    batch: Batch = MappingProxyType({}),
    spec: MeshSpec | Literal["pmap"] = MeshSpec(),
    rules: Rules = (),
    devices: Sequence[jax.Device] | None = None,
) -> Program:
    """Compiles a step for many devices. Nothing runs until the program is called, and no device ever holds a full copy.

    Args:
      make_step: called once as `make_step(reduce=f)`; returns (state, batch, keys) -> (state, metrics). `f` takes a
        tree that was averaged over the examples at hand and returns its average over the devices: the identity on a
        mesh, where the program is written for the whole batch, and `pmean` under pmap.
      init_state: (key, loaded, batch) -> state, with the parameters in `state.params`.
      loaded: weights to start from, on their devices.
      batch: this process' part of a first batch, for what `init_state` takes from it.
      spec: the mesh, or "pmap": one whole state on every device, the batch split.
      rules: come before the default rules; see `parallel.rules`. pmap has no use for them.
      devices: all devices by default.

    Raises:
      ValueError: if mesh, rules or devices do not fit together; `put` and `keys` raise for a batch that does not split.
    """
    devices = tuple(jax.devices() if devices is None else devices)
    loaded, batch = dict(loaded), dict(batch)
    if spec == "pmap":
        return _pmap(make_step, init_state, loaded, batch, devices)
    mesh = make_mesh(spec, devices)
    batch_at, everywhere = NamedSharding(mesh, P(("data", "fsdp"))), NamedSharding(mesh, P())
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    processes = len({device.process_index for device in mesh.devices.flat})

    def put(batch: Batch) -> Batch:
        _check_batch(_size(batch), ways // processes, " of this process" if processes > 1 else "")
        return jax.make_array_from_process_local_data(batch_at, batch)

    global_batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct((len(x) * processes, *x.shape[1:]), x.dtype), batch)
    shapes = jax.eval_shape(init_state, jax.random.key(0), loaded, global_batch)
    like = _placed(shapes, shard_by_rules(shapes, mesh, rules))
    state_at = jax.tree.map(lambda leaf: leaf.sharding, like)
    step = jax.jit(
        make_step(reduce=lambda tree: tree),
        in_shardings=(state_at, batch_at, batch_at),
        out_shardings=(state_at, everywhere),
        donate_argnums=0,
    )
    inputs = lambda: (loaded, put(batch) if batch else {})
    init, frozen = _init(init_state, inputs, state_at)
    return Program(init, frozen, put, _keys(batch_at, ways, (-1,)), _within(mesh, step), like, mesh, step, inputs)


def _init(
    init_state: Callable[..., Any], inputs: Callable[[], tuple[Params, Batch]], state_at: Any
) -> tuple[Callable[[Key], Any], Callable[[Key], Any]]:
    """Functions that make the first state, and what is frozen in it; what was loaded is an argument, no constant."""
    init = jax.jit(init_state, out_shardings=state_at, donate_argnums=1)
    frozen_at = getattr(state_at, "frozen", {})
    frozen = jax.jit(lambda *args: init_state(*args).frozen, out_shardings=frozen_at, donate_argnums=1)
    nothing = lambda key: frozen_at
    some = lambda key: frozen(key, *inputs())
    return lambda key: init(key, *inputs()), some if jax.tree.leaves(frozen_at) else nothing


def place(
    spec: MeshSpec | Literal["pmap"], rules: Rules = (), devices: Sequence[jax.Device] | None = None
) -> Callable[[Params], Any]:
    """Returns a function of a tree of shapes: where weights lie that a program for `spec` starts from."""
    if spec != "pmap":
        mesh = make_mesh(spec, devices)
        return lambda shapes: param_shardings(shapes, mesh, rules)
    everywhere = NamedSharding(_pmap_mesh(tuple(jax.devices() if devices is None else devices)), P())
    return lambda shapes: jax.tree.map(lambda _: everywhere, shapes)


def _pmap_mesh(devices: tuple[jax.Device, ...]) -> Mesh:
    return Mesh(np.array(devices), (DEVICES,), axis_types=(AxisType.Auto,))


def _placed(shapes: Any, where: Any) -> Any:
    place = lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at)
    return jax.tree.map(place, shapes, where)


def _pmap(
    make_step: Callable[..., Any],
    init_state: Callable[..., Any],
    loaded: Params,
    batch: Batch,
    devices: tuple[jax.Device, ...],
) -> Program:
    if jax.process_count() > 1:
        raise ValueError(
            f"strategy 'pmap' runs in one process, and there are {jax.process_count()}: use the mesh strategy, whose "
            "default (data=-1) splits the work in the same way."
        )
    count = len(devices)
    mesh = _pmap_mesh(devices)
    everywhere, batch_at = NamedSharding(mesh, P()), NamedSharding(mesh, P(DEVICES))
    step = jax.pmap(
        make_step(reduce=lambda tree: jax.lax.pmean(tree, DEVICES)),
        axis_name=DEVICES,
        in_axes=(None, 0, 0),
        out_axes=None,
        donate_argnums=0,
        devices=devices,
    )

    def put(batch: Batch) -> Batch:
        _check_batch(_size(batch), count)
        split = jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), batch)
        return jax.device_put(split, batch_at)

    shapes = jax.eval_shape(init_state, jax.random.key(0), loaded, batch)
    state_at = jax.tree.map(lambda _: everywhere, shapes)
    inputs = lambda: (loaded, jax.device_put(batch, everywhere))
    init, frozen = _init(init_state, inputs, state_at)
    like = _placed(shapes, state_at)
    return Program(init, frozen, put, _keys(batch_at, count, (count, -1)), step, like, mesh, step, inputs)


def _keys(sharding: NamedSharding, ways: int, shape: tuple[int, ...]) -> Callable[[Key, int, int], Key]:
    @functools.partial(jax.jit, static_argnums=2, out_shardings=sharding)
    def draw(root: Key, step: int | jax.Array, batch: int) -> Key:
        return split_keys(root, step, batch).reshape(shape)

    def keys(root: Key, step: int, batch: int) -> Key:
        check_key(root)
        _check_batch(batch, ways)
        return draw(root, step, batch)

    return keys


def split_keys(root: Key, step: int | jax.Array, batch: int) -> Key:
    """Returns the keys of the examples of one step."""
    return jax.random.split(jax.random.fold_in(root, step), batch)


def check_key(key: Key) -> None:
    """Refuses keys whose draws depend on how the batch is split.

    Raises:
      ValueError: if `key` is not a typed threefry key.
    """
    typed = jax.dtypes.issubdtype(getattr(key, "dtype", None), jax.dtypes.prng_key)
    if not typed or str(jax.random.key_impl(key)) != "threefry2x32":
        described = (
            f"a key of implementation {jax.random.key_impl(key)!s}" if typed else f"{type(key).__name__}, no typed key"
        )
        raise ValueError(
            f"given {described}; noise is drawn for each example and must not depend on the devices, which only "
            "threefry keeps ('rbg' draws differ under vmap): use jax.random.key(seed, impl='threefry2x32')."
        )


def _size(batch: Batch) -> int:
    """Returns the number of examples in `batch`, whose arrays must agree on it."""
    sizes = {path_string(path): np.shape(leaf)[:1] for path, leaf in jax.tree_util.tree_leaves_with_path(batch)}
    if len(set(sizes.values())) != 1 or () in sizes.values():
        raise ValueError(
            f"a batch is arrays whose first axis is the example, all as long; the lengths given are {sizes}."
        )
    return next(iter(sizes.values()))[0]


def _check_batch(size: int, ways: int, whose: str = "") -> None:
    if size % ways:
        raise ValueError(
            f"a batch of {size} does not split over {ways} devices{whose}: choose a batch size that is a multiple of "
            f"{ways} (data x fsdp on a mesh, all devices under pmap)."
        )


def _within(mesh: Mesh, call: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps `call` to run under `mesh`, for the kernels in nn/ that must be mapped over it by hand."""

    @functools.wraps(call)
    def inside(*args: Any) -> Any:
        with jax.set_mesh(mesh):
            return call(*args)

    return inside
