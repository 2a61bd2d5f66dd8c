"""`jaxdiff benchmark unet train-step --config cifar10 --against torch`."""

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
from typing import Annotated, Any, Literal

import jax
import tyro
from jax.experimental.compilation_cache import compilation_cache

from jaxdiff import experiment
from jaxdiff.benchmarks import host, programs, report, torch_peer
from jaxdiff.benchmarks import subject as subjects
from jaxdiff.benchmarks.measure import measure
from jaxdiff.benchmarks.subject import Subject
from jaxdiff.cli.config import read_config
from jaxdiff.cli.progress import stages
from jaxdiff.metrics import speed

_VIRTUAL = "--xla_force_host_platform_device_count"


@dataclasses.dataclass(frozen=True)
class Args:
    """Measures how fast the programs of a model are, with random weights and made-up inputs.

    Attributes:
      what: unet, train-step, loop (sampling beside bare calls of the network), text-to-image, text-encoder, decoder,
        loader, checkpoint; by default all that the model has.
      config: a config file, the name of one in configs/, or a published model: sd1, sd2, sdxl.
      batch: examples of a call, over all devices (pictures, for text-to-image, whose U-Net sees a guided pair of each);
        by default 16, and 2 for published models.
      rounds: timed calls of each side.
      steps: network calls of loop and text-to-image.
      size: side of the pictures in pixels; by default the model's own.
      dtype: of all networks; by default the config's, float32 for published models.
      devices: numbers of devices to measure on; more than there are become virtual ones, on a CPU.
      against: torch also runs the same networks there, eager and compiled, in turns with ours; torch-eager does not
        compile them, which takes minutes for a train step.
      json: a file for all figures.
      profile: a directory for a trace of one call of each program, as TensorBoard and Perfetto read it.
    """

    what: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    config: str = "quickstart"
    batch: int | None = None
    rounds: int = 10
    steps: int = 20
    size: int | None = None
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    devices: tuple[int, ...] = (1,)
    against: Literal["torch", "torch-eager"] | None = None
    json: Path | None = None
    profile: Path | None = None


def main(argv: list[str]) -> None:
    """Measures, and prints each record's tables at the end."""
    args = tyro.cli(Args, args=argv, prog="jaxdiff benchmark")
    check_numbers(args)
    subject = read_subject(args)
    programs.check(args.what, subject)
    names = args.what or tuple(programs.applicable(subject))
    batch = args.batch or subject.batch
    check_devices(args, batch)
    if args.against:
        torch_peer.check(list(names))
    told, records = speed.machine(), []
    if args.against:
        told["torch"] = importlib.metadata.version("torch")
    print(report.machine(told), flush=True)
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
        args.json.write_text(json.dumps({"machine": told, "command": argv, "records": records}, indent=1))


def read_subject(args: Args) -> Subject:
    """The networks that the command line names."""
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
    args: Args, subject: Subject, name: str, batch: int, devices: int, tell: Callable[..., None]
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

    def peers(case: programs.Case) -> Mapping[str, Any]:
        if not args.against or devices > 1:
            return {}
        tell("making peers")
        return torch_peer.sides(subject, args.against == "torch", case)

    return measure(case, chosen, args.rounds, peers, args.profile / name if args.profile else None, tell)


def _in_child(args: Args, name: str, devices: int) -> list[dict[str, Any]]:
    """The records of a process that has so many virtual devices."""
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
    """Compiling takes as long as it takes: nothing is read from disk."""
    config: Any = jax.config
    before = config.jax_enable_compilation_cache
    config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()  # whether it is used was decided at the first compilation
    try:
        yield
    finally:
        config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()
