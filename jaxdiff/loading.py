"""`jaxdiff.load`: a directory becomes a pipeline that makes pictures."""

from pathlib import Path
from typing import Literal

import jax

from jaxdiff import experiment
from jaxdiff.data.tokenizer import BytePair
from jaxdiff.parallel import MeshSpec
from jaxdiff.pipelines.text_to_image import Pipeline
from jaxdiff.tasks.picture import make_task
from jaxdiff.training import load_params


def load(path: Path | str, spec: MeshSpec | Literal["pmap"] = MeshSpec()) -> Pipeline:
    """The pipeline of a model directory.

    Args:
      path: a run of `jaxdiff train` (its last checkpoint is taken), or one of its checkpoints, RUN/checkpoints/STEP.
      spec: how devices share a batch.

    Raises:
      FileNotFoundError: if `path` is no model, or has no checkpoint yet.
      MismatchError: if the checkpoint is not of the architecture that its config describes.
    """
    path = Path(path)
    run = path.parent.parent if path.parent.name == "checkpoints" else path
    if not run.is_dir():
        raise FileNotFoundError(f"no model directory at {path}: give the workdir of a run of `jaxdiff train`")
    config = experiment.read(run)
    like = jax.eval_shape(make_task(config.model).init, jax.random.key(0))
    vocabulary = run / "vocabulary.json"
    labels = run / "labels.txt"
    return Pipeline(
        config.model,
        load_params(path, like),
        BytePair.from_json(vocabulary.read_text()) if vocabulary.is_file() else None,
        labels.read_text().splitlines() if labels.is_file() else (),
        spec,
    )
