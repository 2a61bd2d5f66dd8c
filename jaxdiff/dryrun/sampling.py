"""A dry run of sampling: the figures of the program that draws pictures, of a model whose weights are not read."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxdiff import experiment, loading
from jaxdiff.dryrun import collectives, compiled, estimate, report, shardings
from jaxdiff.dryrun.figures import Figures, named, sizes_of
from jaxdiff.dryrun.subject import abstract_mesh
from jaxdiff.metrics import speed
from jaxdiff.metrics.chips import Topology
from jaxdiff.parallel import MeshSpec, make_mesh, param_shardings
from jaxdiff.pipelines.diffusion import DiffusionPipeline
from jaxdiff.pipelines.program import make_program
from jaxdiff.pretrained.bundle import computing, outline_bundle
from jaxdiff.tasks.saved import blank
from jaxdiff.training import Variables


def outline(path: Path, config: experiment.Experiment | None = None) -> DiffusionPipeline:
    """Returns the pipeline of a model with shapes in place of weights.

    Args:
      path: a run of `jaxdiff train`, which need not have a checkpoint; or a directory of diffusers.
      config: config of the run; None: what its config.json says.

    Raises:
      ValueError, OSError: if there is no such model, or it is no diffusion.
    """
    if config is None and loading.is_published(path):
        if path.is_file():
            raise ValueError(f"--dry-run reads no weights, and {path} is a file of them: give a directory of diffusers")
        bundle = computing(outline_bundle(path), None, None)
        return DiffusionPipeline(bundle, spec="pmap", devices=jax.devices()[:1])
    config = config or experiment.read(path)
    assets = config.task.assets(path, config.data)
    task = config.task.task(assets)
    loaded = task.load(lambda shapes: jax.tree.map(lambda _: None, shapes))
    shapes: Variables = jax.eval_shape(task.init, jax.random.key(0), loaded, blank(task, config.data.size))
    pipe = config.task.pipeline(assets, shapes, "pmap")  # of one device: only what it makes of a call is used
    if not isinstance(pipe, DiffusionPipeline):
        raise ValueError(f"--dry-run of sampling knows diffusion models, and {path} is another kind")
    return pipe


@dataclasses.dataclass(frozen=True)
class Program:
    """A sampling program, described: (shared, batch) -> results, and its arguments for one example."""

    function: Callable[[Any, Any], Any]
    shared: Any
    row: Any
    mesh: Any

    def arguments(self, examples: int) -> tuple[Any, Any]:
        """Returns shapes, with shardings, for a batch of so many examples."""
        at = NamedSharding(self.mesh, P(("data", "fsdp")))
        return self.shared, jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((examples, *x.shape[1:]), x.dtype, sharding=at), self.row
        )


def describe(pipe: DiffusionPipeline, mesh: AbstractMesh | Mesh, options: Any = None, **fields: Any) -> Program:
    """Returns the program of a call with these options over a mesh.

    Raises:
      ValueError: if the options do not fit the model.
    """
    prompt = (pipe.model.labels or ("",))[0] if hasattr(pipe.model, "labels") else ""
    (params, numbers), row = pipe.arguments([prompt], key=jax.random.key(0), options=options, **fields)
    everywhere = NamedSharding(mesh, P())
    shape = lambda x, at: jax.ShapeDtypeStruct(
        np.shape(x),
        jax.dtypes.canonicalize_dtype(x.dtype) if not jax.dtypes.issubdtype(x.dtype, jax.dtypes.extended) else x.dtype,
        sharding=at,
    )
    arguments = (
        jax.tree.map(shape, params, param_shardings(params, mesh)),
        jax.tree.map(lambda x: shape(np.asarray(x), everywhere), numbers),
    )
    return Program(make_program(pipe.model), arguments, row, mesh)


def run(
    pipe: DiffusionPipeline,
    spec: MeshSpec,
    count: int,
    topology: Topology | None = None,
    *,
    compile: bool = False,
    options: Any = None,
    say: Callable[[str], None] = print,
    tell: Callable[[str], None] = lambda stage: None,
) -> Figures:
    """Says what sampling will take, and returns its figures.

    Args:
      pipe: from `outline`.
      spec: the mesh.
      count: pictures made at once, over all devices.
      topology: that it is for; None: the devices that are here.
      compile: also compile the program.
      options: options of the call.
      say: called with the report.
      tell: called with what is being done.

    Raises:
      ValueError: if the program does not fit the memory, or the mesh the devices.
    """
    tell("describes the model")
    devices = topology.devices if topology else jax.device_count()
    device = topology.device if topology else make_mesh(spec).abstract_mesh.abstract_device
    mesh = abstract_mesh(spec, devices, device)
    found = figures_of(describe(pipe, mesh, options), count, tell)
    for line in report.lines(found, topology, "sampling"):
        say(line)
    if topology:
        verdict = report.verdict(found, topology, list, "batch")
        if not compile and found.peak > topology.chip.memory:
            raise compiled.TooLargeError(verdict)
        say(verdict)
    if compile and topology:
        program = describe(pipe, make_mesh(spec, compiled.devices(topology)), options)
        arguments = program.arguments(-(-count // found.ways) * found.ways)
        with jax.set_mesh(program.mesh):
            traced = jax.jit(program.function).trace(*arguments)
            executable = compiled.compile(traced.lower(), compiled.seconds(traced.jaxpr.jaxpr), tell)
        memory, contents = compiled.memory(executable), compiled.contents(executable)
        for line in report.compiled(found, memory, *contents, topology):
            say(line)
    return found


def figures_of(program: Program, count: int, tell: Callable[[str], None]) -> Figures:
    """Returns the figures of a sampling program that makes `count` pictures at once."""
    mesh = program.mesh
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    each = -(-count // ways)  # devices without work of their own repeat others'
    arguments = program.arguments(ways * estimate.EXAMPLES)
    params = program.shared[0]
    tell("counts the work")
    plain = speed.trace(program.function, arguments, mesh, "none")
    tell("estimates the memory")
    kept = estimate.live(speed.trace(program.function, arguments, mesh), sizes_of(mesh, params, each))
    return Figures(
        devices=mesh.size,
        mesh=named(mesh),
        parameters=sum(math.prod(x.shape) for x in jax.tree.leaves(params)),
        state=shardings.all_bytes(params),
        held=shardings.held_bytes(program.arguments(each * ways)),
        batch=each * ways,
        at_once=each,
        live=kept,
        flops=speed.work(plain).flops * each / estimate.EXAMPLES,
        repeated=0.0,
        sent=collectives.gathers(params),
        ways=ways,
        groups=shardings.groups(params),
    )
