"""The runs that a run's pictures come from: a cascade's earlier stages, the prior of a decoder."""

from pathlib import Path

from jaxdiff.tasks import saved
from jaxdiff.training import checkpoint


def chain(path: Path, image: bool = False) -> list[Path]:
    """Returns the runs whose samples a run's are made of, the first one first, and the run itself at the end.

    Args:
      path: the run.
      image: whether a picture is given, which may stand for those of an earlier run.

    Raises:
      FileNotFoundError: if one is missing, or has no checkpoint yet; says which names it.
      ValueError: if a config.json is damaged, or runs follow each other in a circle.
    """
    found, by = [path], path
    while (before := _before(found[0], image)) is not None:
        if before in found:
            raise ValueError(f"{by} follows {before}, which follows it: expected a first stage")
        folder = saved.folder_of(before)
        if not (folder / "config.json").is_file() or not checkpoint.steps(folder / "checkpoints"):
            what = "has no checkpoint yet" if (folder / "config.json").is_file() else "is no run"
            raise FileNotFoundError(
                f"{by} follows {before}, and that {what}: train it, or give the stages, first to last, as --model "
                "FIRST --then NEXT ..."
            )
        found, by = [before, *found], before
    return found


def _before(path: Path, image: bool) -> Path | None:
    """Returns the run that a run follows; None for runs from before there were tasks, too."""
    fields = saved.read_json(saved.folder_of(path) / "config.json")
    if not isinstance(fields, dict) or "task" not in fields:
        return None
    return saved.read_config(path)[0].follows(image)


def named(path: Path) -> str:
    """Returns a run with the checkpoint that is read of it."""
    if path.parent.name == "checkpoints" or not (path / "config.json").is_file():
        return str(path)
    steps = checkpoint.steps(path / "checkpoints")
    return str(path / "checkpoints" / str(steps[-1])) if steps else str(path)
