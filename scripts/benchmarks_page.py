"""Makes the pages of docs/benchmarks: speed of every program, beside PyTorch's, on the machine that it runs on.

    python scripts/benchmarks_page.py [--accelerated | --quick]

Each command of the list runs in a process of its own, one after another, on a machine that does nothing else: 25
minutes on two CPU cores, and 16 GiB of memory. Each machine has a page of its own, docs/benchmarks/MACHINE.md.
--accelerated has the list for a GPU or TPU; --quick runs a toy list with few rounds, to see that the page can be made,
and prints it.
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
PAGE = """# Benchmarks: {name}

`python scripts/benchmarks_page.py{option}` makes it of the commands below; [how to read it](../benchmarks.md).
Measured on:

{machine}

{tables}
## Commands

{commands}
"""


def page(commands: Sequence[str], option: str) -> tuple[str, str]:
    """Runs the commands, one after another; returns the machine's name, and its page."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for i, command in enumerate(commands):
            print(f"[{i + 1}/{len(commands)}] jaxdiff benchmark {command}", flush=True)
            out = pathlib.Path(folder) / f"{i}.json"
            program = [sys.executable, "-m", "jaxdiff.cli.main", "benchmark", *command.split(), "--json", str(out)]
            subprocess.run(program, cwd=ROOT, check=True)
            found.append(json.loads(out.read_text()))
    return written(commands, option, found)


def written(commands: Sequence[str], option: str, found: Sequence[dict]) -> tuple[str, str]:
    """The machine's name, its accelerator's or its processor's, and its page."""
    machine = next(({**f["machine"]} for f in found if "torch" in f["machine"]), found[0]["machine"])
    name = machine["cpu"] if machine["platform"] == "cpu" else machine["device"]
    flags = f"XLA_FLAGS={machine['xla_flags'].strip()} " if machine["xla_flags"].strip() else ""
    return name, PAGE.format(
        name=name,
        option=option,
        machine=report.machine(machine),
        tables=report.tables([record for f in found for record in f["records"]]),
        commands="\n".join(f"    {flags}jaxdiff benchmark {command}" for command in commands),
    )


def main() -> None:
    """Runs the list, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--accelerated", action="store_true", help="the list for a GPU or TPU")
    either.add_argument("--quick", action="store_true", help="a toy list; prints the page")
    args = parser.parse_args()
    if args.quick:
        print(page(QUICK, " --quick")[1])
        return
    name, text = page(ACCELERATED, " --accelerated") if args.accelerated else page(COMMANDS, "")
    file = re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")
    (ROOT / "docs" / "benchmarks" / f"{file}.md").write_text(text)


if __name__ == "__main__":
    main()
