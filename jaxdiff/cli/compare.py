"""`jaxdiff compare configs/families/*.py --data openmoji --size 32 --minutes 20 --workdir runs/families`.

What is slow to import is imported when it is needed, so that --help and mistakes are answered at once.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from jaxdiff.evaluation.budget import Budget

if TYPE_CHECKING:
    from jaxdiff.experiment import Experiment


@dataclasses.dataclass(frozen=True)
class Args:
    """Trains each config at one budget, samples and measures it, and writes one table, a plot and grids of samples.

    The same command resumes one that was interrupted.

    Attributes:
      configs: config files, such as configs/families/*.py.
      workdir: gets a folder for each run, results.json, results.md and results.png.
      data: what all are trained on, a name as --data.name of `jaxdiff train`; default: each config's own.
      size: side of the pictures; 0: each config's own.
      subset: subset of the data; default: each config's own, and all of it where --data is given.
      small: take the small form of each config.
      budget: budget of each run.
    """

    configs: tyro.conf.Positional[tuple[Path, ...]]
    workdir: Path = Path("runs/families")
    data: str = ""
    size: int = 0
    subset: str = ""
    small: bool = False
    budget: Annotated[Budget, tyro.conf.arg(name="")] = Budget()


def main(argv: list[str]) -> None:
    """Compares, and prints the table."""
    args = tyro.cli(Args, args=argv, prog="jaxdiff compare")
    if not args.configs:
        raise ValueError("no config was given: expected files such as configs/families/*.py")
    from jaxdiff.cli.config import read_config
    from jaxdiff.cli.main import compilation_cache
    from jaxdiff.cli.memory import keep_freed
    from jaxdiff.cli.progress import counting
    from jaxdiff.evaluation.compare import compare

    configs = [_on(args, read_config(path, small=args.small)) for path in args.configs]
    keep_freed()
    compilation_cache()
    print(compare(configs, args.workdir, args.budget, counting, lambda text: print(text, flush=True)))
    print(f"\nwritten to {args.workdir}")


def _on(args: Args, config: Experiment) -> Experiment:
    """Returns the experiment, on the data that are given."""
    data = config.data
    if args.data:
        data = dataclasses.replace(data, name=args.data, subset="all")
    if args.subset:
        data = dataclasses.replace(data, subset=args.subset)
    return dataclasses.replace(config, data=dataclasses.replace(data, size=args.size or data.size))
