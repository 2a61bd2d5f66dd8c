"""The sample grids that a run of diffusion writes while it trains."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax

from jaxdiff.pipelines.diffusion import DiffusionPipeline
from jaxdiff.pipelines.pipeline import once
from jaxdiff.training import Preview, Variables
from jaxdiff.typing import Key, Params


@dataclasses.dataclass(frozen=True)
class PreviewConfig:
    """The sample grids that a run writes.

    Attributes:
      prompts: texts or class names, one picture each.
      sampler: one of those that `jaxdiff sample --help` lists; None: the default of the process.
      steps: number of sampling steps.
      guidance: scale of classifier-free guidance; 1 turns it off.
    """

    prompts: tuple[str, ...] = ()
    sampler: str | None = None
    steps: int = 20
    guidance: float = 3.0


def preview(
    wanted: PreviewConfig,
    make: Callable[[Variables], DiffusionPipeline],
    parts: Callable[[Variables], Params],
    inputs: Callable[[], Mapping[str, Any]],
) -> Callable[[Variables, Key], Preview]:
    """Returns what draws a run's previews, by one pipeline whose weights change.

    Args:
      wanted: prompts, sampler, steps and guidance.
      make: weights -> the pipeline, called once.
      parts: weights -> all of the pipeline's, by component: what is frozen too, since a step is given the whole state
        and the arrays of an earlier one are gone.
      inputs: what else each call is given, or is given in another way; called once.
    """
    pipeline_of = once(lambda weights: (make(weights), inputs()))
    options = {"steps": wanted.steps, "sampler": wanted.sampler, "guidance": wanted.guidance}

    def draw(weights: Variables, key: Key) -> Preview:
        pipe, given = pipeline_of(weights)
        params = parts(weights)
        stale = [name for name, part in pipe.params.items() if name not in params and jax.tree.leaves(part)]
        assert not stale, f"arrays of {stale} were given to an earlier step"
        pipe.params |= params
        return Preview(pipe(wanted.prompts, key=key, **{**options, **given}), wanted.prompts)

    return draw
