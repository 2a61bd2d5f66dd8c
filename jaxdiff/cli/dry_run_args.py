"""The options of a dry run, which `jaxdiff train` and `jaxdiff sample` share."""

import dataclasses

import tyro


@dataclasses.dataclass(frozen=True)
class How:
    """The options of a dry run, which only reports what a command would take, and on which chips.

    Attributes:
      dry_run: report what the command would take, and run nothing; needs no data, weights or accelerator.
      topology: chips that a dry run is for, such as v5e:16x16 or v5p:4x4x4; by default the devices of this machine.
      slices: number of such topologies that a dry run joins by the data centre's network.
      compile: let a dry run compile the program with the chip's own compiler, which takes minutes on a few cores.
    """

    dry_run: bool = False
    topology: str | None = None
    slices: int = 1
    compile: bool = False


def split(options: list[str]) -> tuple[How, list[str]]:
    """Returns the options of a dry run, and all that are left.

    Raises:
      ValueError: see `check`.
    """
    how, rest = tyro.cli(How, args=options, prog="jaxdiff", return_unknown_args=True)
    check(how)
    return how, rest


def check(how: How) -> None:
    """Refuses options that do not go together.

    Raises:
      ValueError: names the option, and what it needs.
    """
    if not how.dry_run:
        wrong = [name for name in ("topology", "compile") if getattr(how, name)]
        wrong += ["slices"] if how.slices != 1 else []
        if wrong:
            raise ValueError(f"--{wrong[0]} is of a dry run: give --dry-run too")
    elif how.slices != 1 and not how.topology:
        raise ValueError("--slices counts topologies: give --topology too")
    elif how.compile and not how.topology:
        raise ValueError("--compile is for chips that are not here: give --topology, such as v5e:2x2")
