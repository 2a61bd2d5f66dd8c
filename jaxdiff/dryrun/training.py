"""A dry run of training: figures, a verdict, and if it is asked for the compiled step."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from jaxdiff.dryrun import compiled, figures, report
from jaxdiff.dryrun.figures import Figures
from jaxdiff.dryrun.subject import Subject, abstract_mesh, describe
from jaxdiff.experiment import Experiment, check
from jaxdiff.metrics.chips import Topology
from jaxdiff.parallel import executable as executables
from jaxdiff.parallel import make_mesh
from jaxdiff.trainer import executable_key
from jaxdiff.training import programs

Tell = Callable[[str], None]


def run(
    config: Experiment,
    topology: Topology | None = None,
    *,
    compile: bool = False,
    save: Path | None = None,
    say: Tell = print,
    tell: Tell = lambda stage: None,
) -> Figures:
    """Says what a run will take, and returns its figures; needs no data, weights or accelerator.

    Args:
      config: config of the run.
      topology: that it is for; None: the devices that are here.
      compile: also compile the step.
      save: a file that the compiled step, and what a run begins with, are written to.
      say: called with the report, a line a call.
      tell: called with what is being done.

    Raises:
      ValueError: if the config does not fit the devices, or the step not their memory.
    """
    if config.strategy == "pmap":
        raise ValueError(
            "--dry-run describes meshes, and strategy is 'pmap': use the mesh strategy, whose default does the same"
        )
    count = topology.devices if topology else jax.device_count()
    check(config, count)
    tell("describes the model")
    real: Sequence[Any] | None = jax.devices() if topology is None else None
    if topology and (compile or save):
        real = compiled.devices(topology)
    device = topology.device if topology else make_mesh(config.mesh, real).abstract_mesh.abstract_device
    subject = describe(config, abstract_mesh(config.mesh, count, device))
    found = figures.of_training(subject, tell)
    for line in report.lines(found, topology):
        say(line)
    if topology:
        verdict = report.verdict(found, topology, lambda: others(config, subject, found, topology), "batch")
        if not (compile or save):
            _conclude(verdict, found, topology)
        say(verdict)
    if compile or save:
        assert real is not None
        _compile(config, make_mesh(config.mesh, real), topology, save, found, say, tell)
    return found


def _conclude(verdict: str, found: Figures, topology: Topology) -> None:
    if found.peak > topology.chip.memory:
        raise compiled.TooLargeError(verdict)


def others(config: Experiment, subject: Subject, found: Figures, topology: Topology) -> list[report.Way]:
    """Returns what else the run may be given, and its figures then: the state split further, blocks recomputed."""
    ways = []
    split = 2 * subject.mesh.shape["fsdp"]
    free = topology.devices // subject.mesh.shape["tensor"]
    while free % split == 0:
        spec = dataclasses.replace(config.mesh, data=-1, fsdp=split)
        mesh = abstract_mesh(spec, topology.devices, topology.device)
        there = describe(dataclasses.replace(config, mesh=spec), mesh)
        more = figures.resplit(found, there)
        if more.peak <= topology.chip.memory:
            ways.append(report.Way(f"--mesh.fsdp {split}", more))
            break
        split *= 2
    task: Any = config.task
    net: Any = getattr(task, "net", None)
    for remat in ("products", "blocks"):
        if getattr(net, "remat", "") == "none":
            changed, option = dataclasses.replace(task, net=dataclasses.replace(net, remat=remat)), "--task.net.remat"
        elif getattr(task, "remat", "") == "none":
            changed, option = dataclasses.replace(task, remat=remat), "--task.remat"
        else:
            break
        again = describe(dataclasses.replace(config, task=changed), subject.mesh)
        ways.append(report.Way(f"{option} {remat}", figures.of_training(again)))
    return ways


def _compile(
    config: Experiment, mesh: Mesh, topology: Topology | None, save: Path | None, found: Figures, say: Tell, tell: Tell
) -> None:
    subject = describe(config, mesh)
    step = _lower_step(subject)
    with executables.uncached():
        executable = compiled.compile(step, _seconds(subject) if topology else 0.0, tell)
    if topology:
        memory, (sent, kernels) = compiled.memory(executable), compiled.contents(executable)
        for line in report.compiled(found, memory, sent, kernels, topology):
            say(line)
    if save:
        start, other = _lower_start(subject), describe(config, mesh, other=True)
        for one, two in zip((step, *start.values()), (_lower_step(other), *_lower_start(other).values()), strict=True):
            if one.as_text() != two.as_text():
                raise ValueError(
                    "--save-executable: this task's step holds numbers that are read from the data, which a dry run "
                    "has not; train without a saved executable"
                )
        with executables.uncached():
            made = {name: compiled.compile(lowered, 0.0, tell) for name, lowered in start.items()}
        _, metrics = jax.eval_shape(subject.step, *subject.arguments(config.train.batch_size))
        notes = {
            "variables": programs.shapes(subject.variables),
            "metrics": sorted(metrics),
            "flops": found.flops - found.repeated,
        }
        key = executable_key(config, _arguments(subject), mesh)
        executables.save(save, {"step": executable, **made}, key, notes)
        say(f"the compiled step: {save}; jaxdiff train ... --executable {save} runs it")


def _lower_step(subject: Subject) -> Any:
    arguments = subject.arguments(subject.config.train.batch_size)
    results = subject.results(arguments)  # outside: nothing runs on a topology's mesh
    with jax.set_mesh(subject.mesh):
        return executables.lower(subject.step, arguments, results)


def _lower_start(subject: Subject) -> dict[str, Any]:
    return programs.lower_start(subject.init_state, _arguments(subject))


def _arguments(subject: Subject) -> programs.Arguments:
    like, batch, keys = subject.arguments(subject.config.train.batch_size)
    return like, subject.loaded, batch, keys


def _seconds(subject: Subject) -> float:
    with jax.set_mesh(subject.mesh):
        traced = jax.jit(subject.step).trace(*subject.arguments(subject.config.train.batch_size))
    return compiled.seconds(traced.jaxpr.jaxpr)
