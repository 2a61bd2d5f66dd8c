"""Makes docs/benchmarks.md: speed of every program, beside PyTorch's, on the machine that it runs on.

    python scripts/benchmarks_page.py [--quick]

Each command of the list runs in a process of its own, one after another, on a machine that does nothing else. --quick
runs a toy list with few rounds, to see that the page can be made, and prints it.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

from jaxdiff.benchmarks import report

ROOT = pathlib.Path(__file__).parents[1]
COMMANDS = (
    "unet --config cifar10 --against torch --rounds 15",
    "train-step --config cifar10 --against torch-eager --rounds 15",
    "checkpoint --config cifar10 --rounds 5",
    "unet train-step text-to-image text-encoder loader checkpoint --config quickstart --against torch-eager",
    "loop --config quickstart --rounds 30",
    "unet train-step text-to-image text-encoder loader checkpoint --config openmoji32 --against torch-eager",
    "unet --config sd1 --size 256 --against torch --rounds 5",
    "text-encoder decoder --config sd1 --size 256 --against torch --rounds 5",
    "train-step --config quickstart --devices 1 2 4 8 --rounds 10",
)
QUICK = (
    "unet text-encoder --config quickstart --against torch --rounds 2 --batch 2",
    "loop --config quickstart --rounds 2 --batch 2 --steps 3",
    "text-encoder --config quickstart --devices 1 2 --rounds 2 --batch 2",
)
PAGE = """# Benchmarks

Made by `python scripts/benchmarks_page.py` on this machine:

{machine}

{tables}
How to read it. Weights and inputs are random. A figure is the median over rounds, with its quartiles in brackets.
`compile` is tracing and lowering + XLA's compiling, with no cache. GFLOP are those of matrix products and convolutions
of one call, read from the traced program with loops multiplied out; `of peak` is their rate against that of a large
matrix product (2048 x 2048 on a CPU, 8192 x 8192 elsewhere) timed in the same rounds. `bytes` and `memory` are what
XLA's analysis of the compiled program says (bodies of loops once); `peak memory` is what the whole process held, with
what the programs before it in the same command left there.
`recompiled` counts programs that a second call with other inputs compiled. Peers have our weights and were checked to
give our output before they were timed; sides take turns of one call that is
not timed and one that is, and each goes first every other round. `jaxdiff / peer` is the
median of the ratios of each round: below 1, jaxdiff is faster. Virtual devices share the machine's cores: their
figures show what splitting costs, not a speed-up.

## Commands

{commands}
"""


def main() -> None:
    """Run the list, write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a toy list; prints the page")
    quick = parser.parse_args().quick
    found = []
    commands = QUICK if quick else COMMANDS
    with tempfile.TemporaryDirectory() as folder:
        for i, command in enumerate(commands):
            out = pathlib.Path(folder) / f"{i}.json"
            program = [sys.executable, "-m", "jaxdiff.cli.main", "benchmark", *command.split(), "--json", str(out)]
            subprocess.run(program, cwd=ROOT, check=True)
            found.append(json.loads(out.read_text()))
    machine = next(({**f["machine"]} for f in found if "torch" in f["machine"]), found[0]["machine"])
    page = PAGE.format(
        machine=report.machine(machine),
        tables=report.tables([record for f in found for record in f["records"]]),
        commands="\n".join(f"    jaxdiff benchmark {command}" for command in commands),
    )
    if quick:
        print(page)
    else:
        (ROOT / "docs" / "benchmarks.md").write_text(page)


if __name__ == "__main__":
    main()
