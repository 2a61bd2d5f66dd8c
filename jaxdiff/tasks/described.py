"""Examples that a run's previews describe: for models that take more than a prompt."""

import numpy as np

from jaxdiff.data.source import Source

_SEARCHED = 4096
"""Examples that are looked through for the class of a preview."""


def images(source: Source, condition: str, labels: tuple[str, ...], prompts: tuple[str, ...]) -> list[np.ndarray]:
    """Returns a picture for each prompt: the first with that caption or class; the n-th example where there is none."""
    captions, few = source.captions() if condition in ("text", "clip") else [], range(min(len(source), _SEARCHED))
    found = []
    for n, prompt in enumerate(prompts):
        at = captions.index(prompt) if prompt in captions else None
        if condition == "class" and prompt in labels:
            label = labels.index(prompt)
            at = next((i for i in few if source[i]["label"] == label), None)
        found.append(source[n % len(source) if at is None else at]["image"])
    return found
