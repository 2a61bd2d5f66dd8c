"""The options of `jaxdiff train` that are not fields of the experiment: how it runs, not what."""

import dataclasses
from pathlib import Path

import tyro

from jaxdiff.cli import dry_run_args
from jaxdiff.cli.main import HELP


@dataclasses.dataclass(frozen=True)
class How(dry_run_args.How):
    """Options of the start of a run.

    Attributes:
      save_executable: file that a dry run writes the compiled step to.
      executable: compiled step that a dry run wrote; it is refused if its version, chip or config differs.
      distributed: start this process as one of several: `auto` (Cloud TPU pods, GKE, SLURM, Open MPI), or the address
        of process 0, the number of processes and this one's index, as 10.0.0.2:8476,4,0.
      profile: trace steps N to M of this start, given as N:M, into WORKDIR/profile, for TensorBoard or Perfetto.
    """

    save_executable: Path | None = None
    executable: Path | None = None
    distributed: str | None = None
    profile: str | None = None


def split(options: list[str]) -> tuple[How, list[str]]:
    """Returns how a run is started, and the options that are left for the experiment.

    Raises:
      ValueError: if options do not go together.
    """
    prog = "jaxdiff train CONFIG.py"
    if any(option in HELP for option in options):
        print(tyro.extras.get_parser(How, prog=prog, add_help=False).format_help())
        return How(), options
    how, rest = tyro.cli(How, args=options, prog=prog, return_unknown_args=True)
    dry_run_args.check(how)
    if how.save_executable and not how.dry_run:
        raise ValueError("--save-executable is of a dry run: give --dry-run too")
    if how.executable and how.dry_run:
        raise ValueError("--executable is for training: a dry run writes one with --save-executable")
    if how.profile:
        steps(how.profile)
    return how, rest


def steps(text: str) -> tuple[int, int]:
    """Returns the first and last step of '100:105'.

    Raises:
      ValueError: if it is none such.
    """
    first, _, last = text.partition(":")
    if not (first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last)):
        raise ValueError(
            f"--profile is {text!r}: expected N:M, the first and the last step that are traced, as 100:105"
        )
    return int(first), int(last)
