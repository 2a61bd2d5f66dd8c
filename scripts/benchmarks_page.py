"""Makes docs/benchmarks.md: speed of every program, beside PyTorch's, on each machine that was measured.

    python scripts/benchmarks_page.py [--accelerated | --quick | --page]

Each command of the list runs in a process of its own, one after another, on a machine that does nothing else: 25
minutes on two CPU cores, and 16 GiB of memory. What they say is kept in docs/benchmarks/MACHINE.json, and the page is
made of all files there, so that the figures of one machine stand beside those of others. --quick runs a toy list with
few rounds, to see that the page can be made, and prints it; --page measures nothing; --accelerated has the list for a
GPU or TPU.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence

from jaxdiff.benchmarks import report

ROOT = pathlib.Path(__file__).parents[1]
COMMANDS = (
    "unet --config cifar10 --against torch --rounds 10",
    "train-step --config cifar10 --against torch-eager --rounds 8",
    "checkpoint --config cifar10 --rounds 5",
    "unet train-step text-to-image text-encoder loader checkpoint --config quickstart --against torch-eager",
    "loop --config quickstart --batch 28 --rounds 20",
    "unet train-step text-to-image text-encoder loader checkpoint --config openmoji32 --against torch-eager --rounds 5",
    "unet --config sd1 --size 256 --against torch-eager --rounds 5",
    "unet --config sd1 --size 512 --against torch-eager --rounds 5",
    "text-encoder decoder --config sd1 --size 256 --against torch-eager --rounds 3",
    "text-to-image --config sd1 --size 256 --steps 4 --batch 1 --rounds 3 --against torch-eager",
    "train-step --config quickstart --devices 1 2 4 8 --rounds 5",
)
ACCELERATED = (
    "unet --config sd1 --dtype bfloat16 --against torch-eager --rounds 20",
    "text-to-image --config sd1 --dtype bfloat16 --batch 4 --steps 50 --rounds 4",
)
"""The list of --accelerated."""
QUICK = (
    "unet text-encoder --config quickstart --against torch --rounds 2 --batch 2",
    "loop --config quickstart --rounds 2 --batch 2 --steps 3",
    "text-encoder --config quickstart --devices 1 2 --rounds 2 --batch 2",
)
PAGE = """# Benchmarks

Made by `python scripts/benchmarks_page.py`, on each machine below in turn.

{machines}
## How to read it

Weights and inputs are random. A figure is the median over rounds, with its quartiles in brackets. A program's batch is
that of all devices; text-to-image is guided, so that its U-Net sees two for each picture.

- `compile`: tracing and lowering + XLA's compiling, with no cache. `recompiled` counts the programs that a second call
  with other inputs compiled.
- `GFLOP`: matrix products and convolutions of one call, with loops multiplied out, as the architecture asks for them.
  In brackets, what the program executes: on a CPU many 3x3 convolutions are computed in Winograd's form, and one that
  follows a doubling in a quarter of its products. The first is the field's figure (model FLOPs utilisation), which
  counts a convolution's products whichever form computes it; the second tells how well the machine is used.
- `of peak`: the rate of these against that of a large matrix product (2048 x 2048 on a CPU, 8192 x 8192 elsewhere)
  timed in the same rounds. That of the architecture may exceed 100%.
- `bytes` and `memory`: what XLA's analysis of the compiled program says, bodies of loops once. `peak memory`: what the
  whole process held, with what the programs before it in the same command left there.
- Peers have our weights, and were checked to give our output before they were timed (a train step, which draws its
  noise itself, was not). Sides take turns of one call that is not timed and one that is, and each goes first every
  other round. `jaxdiff / peer` is the median of the ratios of each round: below 1, jaxdiff is faster.
- Virtual devices share the machine's cores: their figures show what splitting costs, not a speed-up.
"""
MACHINE = """## {name}

{machine}

{tables}
### Commands

{commands}
"""


def measured(commands: Sequence[str]) -> dict:
    """Runs the commands, one after another, and returns them with what they found."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for i, command in enumerate(commands):
            print(f"[{i + 1}/{len(commands)}] jaxdiff benchmark {command}", flush=True)
            out = pathlib.Path(folder) / f"{i}.json"
            program = [sys.executable, "-m", "jaxdiff.cli.main", "benchmark", *command.split(), "--json", str(out)]
            subprocess.run(program, cwd=ROOT, check=True)
            found.append(json.loads(out.read_text()))
    return {"commands": list(commands), "found": found}


def named(machine: dict) -> str:
    """The name of a machine: its accelerator's, or its processor's."""
    return machine["cpu"] if machine["platform"] == "cpu" else machine["device"]


def section(measurement: dict) -> str:
    """What is said of one machine."""
    found = measurement["found"]
    machine = next(({**f["machine"]} for f in found if "torch" in f["machine"]), found[0]["machine"])
    flags = f"XLA_FLAGS={machine['xla_flags'].strip()} " if machine["xla_flags"].strip() else ""
    tables = report.tables([record for f in found for record in f["records"]])
    return MACHINE.format(
        name=named(machine),
        machine=report.machine(machine),
        tables=re.sub("^##", "###", tables, flags=re.MULTILINE),
        commands="\n".join(f"    {flags}jaxdiff benchmark {command}" for command in measurement["commands"]),
    )


def main() -> None:
    """Runs the list of this machine, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--accelerated", action="store_true", help="the list for a GPU or TPU")
    either.add_argument("--quick", action="store_true", help="a toy list; prints the page")
    either.add_argument("--page", action="store_true", help="the page of what was measured before")
    args = parser.parse_args()
    if args.quick:
        print(PAGE.format(machines=section(measured(QUICK))))
        return
    kept = ROOT / "docs" / "benchmarks"
    if not args.page:
        told = measured(ACCELERATED if args.accelerated else COMMANDS)
        file = re.sub("[^a-z0-9]+", "-", named(told["found"][0]["machine"]).lower()).strip("-")
        kept.mkdir(exist_ok=True)
        (kept / f"{file}.json").write_text(json.dumps(told, indent=1) + "\n")
    sections = [section(json.loads(path.read_text())) for path in sorted(kept.glob("*.json"))]
    (ROOT / "docs" / "benchmarks.md").write_text(PAGE.format(machines="\n".join(sections)))


if __name__ == "__main__":
    main()
