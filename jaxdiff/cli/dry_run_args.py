"""The options of a dry run, which `jaxdiff train` and `jaxdiff sample` share."""

import dataclasses

import tyro


@dataclasses.dataclass(frozen=True)
class How:
    """A dry run: a command only says what it would take, and on which chips.

    Attributes:
      dry_run: say what it would take, and do nothing: needs no data, no weights and no accelerator.
      topology: of a dry run, the chips that it is for, such as v5e:16x16 or v5p:4x4x4; by default those here.
      slices: of a dry run, how many such topologies, joined by the data centre's network.
      compile: of a dry run, also compile the program by the chip's own compiler; minutes, on few cores.
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
        given = [name for name in ("topology", "compile") if getattr(how, name)]
        given += ["slices"] if how.slices != 1 else []
        if given:
            raise ValueError(f"--{given[0]} is of a dry run: give --dry-run too")
    elif how.slices != 1 and not how.topology:
        raise ValueError("--slices counts topologies: give --topology too")
    elif how.compile and not how.topology:
        raise ValueError("--compile is for chips that are not here: give --topology, such as v5e:2x2")
