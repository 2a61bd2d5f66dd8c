"""The work of `jaxdiff benchmark`: measures the programs that were asked for, and prints the tables."""

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

from jaxdiff import experiment
from jaxdiff.benchmarks import host, programs, report, torch_peer
from jaxdiff.benchmarks import subject as subjects
from jaxdiff.benchmarks.measure import measure
from jaxdiff.benchmarks.subject import BenchModel
from jaxdiff.cli.benchmark import Args
from jaxdiff.cli.config import read_config
from jaxdiff.cli.memory import keep_freed
from jaxdiff.cli.progress import stages
from jaxdiff.metrics import speed

_VIRTUAL = "--xla_force_host_platform_device_count"


def run(args: Args, argv: list[str]) -> None:
    """Measures, and prints each record's tables at the end; `argv` goes into the file of --json."""
    check_numbers(args)
    if not args.what or "train-step" in args.what:
        keep_freed()  # as `jaxdiff train` does
    subject = read_subject(args)
    programs.check(args.what, subject)
    names = args.what or tuple(programs.applicable(subject))
    batch = args.batch or subject.batch
    check_devices(args, batch)
    if args.against:
        torch_peer.check(list(names))
    machine, records = speed.machine(), []
    if args.against:
        machine["torch"] = importlib.metadata.version("torch")
    print(report.machine(machine), flush=True)
    with _no_compilation_cache():
        for name in names:
            for devices in args.devices if name in programs.CASES else (1,):
                with stages(f"{subject.name}: {name}, {devices} device(s)") as tell:
                    if devices > jax.device_count():
                        tell("in a process of its own")
                        records += _in_child(args, name, devices)
                    else:
                        record = _record(args, subject, name, batch, devices, tell)
                        records.append({"config": subject.name, **record})
    print("\n" + report.tables(records))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({"machine": machine, "command": argv, "records": records}, indent=1))


def read_subject(args: Args) -> BenchModel:
    """Returns the networks that the command line names."""
    if args.config in subjects.PUBLISHED:
        return subjects.published(args.config, args.size, args.dtype or "float32")
    config = read_config(Path(args.config))
    if args.size:
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, size=args.size))
    if args.dtype:
        parts = {field.name: getattr(config.task, field.name) for field in dataclasses.fields(config.task)}
        nets = {n: dataclasses.replace(net, dtype=args.dtype) for n, net in parts.items() if hasattr(net, "dtype")}
        config = dataclasses.replace(config, task=dataclasses.replace(config.task, **nets))
    batch_size = args.batch or subjects.of_experiment(config).batch
    train = dataclasses.replace(config.train, batch_size=batch_size * jax.device_count(), accumulate=1)
    config = dataclasses.replace(config, train=train)
    experiment.check(config)
    return subjects.of_experiment(config)


def check_numbers(args: Args) -> None:
    """Refuses numbers that no model can be measured with.

    Raises:
      ValueError: names the option.
    """
    for name in ("rounds", "steps", "batch", "size"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}: expected 1 or more")


def check_devices(args: Args, batch: int) -> None:
    """Refuses numbers of devices that there are not, or that do not divide the batch.

    Raises:
      ValueError: names both.
    """
    for devices in args.devices:
        if devices < 1 or batch % devices:
            raise ValueError(f"batch is {batch}, which does not divide over {devices} devices: choose another --batch")
        if devices > jax.device_count() and (
            jax.default_backend() != "cpu" or _VIRTUAL in os.environ.get("XLA_FLAGS", "")
        ):
            raise ValueError(f"devices is {devices}, and there are {jax.device_count()}: choose fewer")


def _record(
    args: Args, subject: BenchModel, name: str, batch: int, devices: int, tell: Callable[..., None]
) -> dict[str, Any]:
    if name in programs.HOST:
        tell("measuring")
        assert subject.experiment is not None, "programs.check"
        try:
            if name == "loader":
                return host.loader(subject.experiment, batch, args.rounds)
            return host.checkpoint(subject.experiment, args.rounds)
        except (ValueError, OSError) as error:
            return {"name": name, "skipped": str(error)}
    chosen = jax.devices()[:devices]
    tell("making weights")
    case = programs.CASES[name](subject, batch, chosen, args.steps)

    def peers(case: programs.BenchProgram) -> Mapping[str, Any]:
        if not args.against or devices > 1:
            return {}
        tell("making peers")
        return torch_peer.sides(subject, args.against == "torch", case)

    return measure(case, chosen, args.rounds, peers, args.profile / name if args.profile else None, tell)


def _in_child(args: Args, name: str, devices: int) -> list[dict[str, Any]]:
    """Returns the records of a process that has so many virtual devices."""
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "found.json"
        wanted = dataclasses.replace(args, what=(name,), devices=(devices,), against=None, json=found, profile=None)
        command = [wanted.what[0]]
        for field in dataclasses.fields(wanted):
            value = getattr(wanted, field.name)
            if field.name != "what" and value is not None:
                command += [f"--{field.name}", *map(str, value if isinstance(value, tuple) else [value])]
        flags = f"{os.environ.get('XLA_FLAGS', '')} {_VIRTUAL}={devices}"
        program = [sys.executable, "-m", "jaxdiff.cli.main", "benchmark", *command]
        done = subprocess.run(program, env={**os.environ, "XLA_FLAGS": flags}, stdout=subprocess.DEVNULL, check=False)
        if done.returncode:
            raise ValueError(f"measuring {name} on {devices} virtual devices failed; its message is above")
        return json.loads(found.read_text())["records"]


@contextlib.contextmanager
def _no_compilation_cache() -> Iterator[None]:
    """Lets compiling take as long as it takes: nothing is read from disk."""
    config: Any = jax.config
    before = config.jax_enable_compilation_cache
    config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()  # whether it is used was decided at the first compilation
    try:
        yield
    finally:
        config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()
