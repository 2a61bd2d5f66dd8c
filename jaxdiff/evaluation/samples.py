"""Pictures made to be measured: each from its own seed, in a folder of PNGs that grows and can be gone on with.

Picture i is drawn from the key fold_in(seed, i) and shows prompt i of the list, again from its start when it ends. All
devices run the same program on the same number of pictures, so the set depends neither on how many there are nor on
where a run was interrupted: what is in the folder is kept, what is missing is made.
"""

import json
import os
import reprlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxdiff.data import picture
from jaxdiff.pipelines.inputs import root_key
from jaxdiff.pipelines.pipeline import Pipeline
from jaxdiff.pretrained.files import read_json

SETTINGS = "settings.json"


def make(
    pipe: Pipeline | Callable[..., np.ndarray],
    folder: Path,
    prompts: Sequence[str],
    num: int,
    seed: int = 0,
    *,
    batch_size: int = 16,
    report: Callable[[int], None] = lambda done: None,
    origin: Mapping[str, Any],
    **options: Any,
) -> None:
    """Makes the pictures 0 .. num - 1 that are not there yet.

    Args:
      pipe: (prompts, key=keys, **options) -> uint8 [b, h, w, 3], spread over all devices.
      folder: where they go.
      prompts: at least one.
      num: how many pictures there should be.
      seed: seed of all, 0 to 2^64 - 1.
      batch_size: pictures at once on each device.
      report: called with the number of pictures that are there.
      origin: what else the pictures depend on, such as the model's path; kept beside them.
      options: the pipeline's, such as steps, sampler and guidance.

    Raises:
      ValueError: if the folder holds pictures made in another way; lists what differs.
    """
    _claim(folder, {"seed": seed, "prompts": list(prompts), **origin, **options})
    missing = [i for i in range(num) if not _path(folder, i).is_file()]
    report(num - len(missing))
    root = root_key(seed)
    at_once = batch_size * jax.device_count()
    for first in range(0, len(missing), at_once):
        rows = missing[first : first + at_once]
        full = np.array(rows + rows[-1:] * (at_once - len(rows)))  # one shape: one program
        keys = jax.vmap(lambda i: jax.random.fold_in(root, i))(full)
        images = pipe([prompts[i % len(prompts)] for i in full], key=keys, **options)
        for i, image in zip(rows, images, strict=False):
            part = _path(folder, i).with_suffix(".part")
            part.write_bytes(picture.encode(image).getvalue())
            os.replace(part, _path(folder, i))
        report(num - len(missing) + first + len(rows))


def prompts_of(folder: Path, count: int) -> list[str]:
    """Returns the prompts of the first `count` pictures that `make` made; none of other folders."""
    if not (folder / SETTINGS).is_file():
        return []
    prompts = read_json(folder / SETTINGS).get("prompts")
    if not prompts or not isinstance(prompts, list) or not all(isinstance(prompt, str) for prompt in prompts):
        raise ValueError(f"{folder / SETTINGS} has no list of prompts: it is damaged, make the pictures again")
    return [prompts[i % len(prompts)] for i in range(count)]


def name(i: int) -> str:
    """Returns the file of picture i."""
    return f"{i:07d}.png"


def _path(folder: Path, i: int) -> Path:
    return folder / name(i)


def _claim(folder: Path, settings: Mapping[str, Any]) -> None:
    """Writes the settings, or compares them with those that are there."""
    file = folder / SETTINGS
    settings = json.loads(json.dumps(settings))
    if file.is_file():
        there = read_json(file)
        differ = [
            f"{key} {reprlib.repr(there.get(key))}, not {reprlib.repr(settings.get(key))}"
            for key in sorted({*there, *settings})
            if there.get(key) != settings.get(key)
        ]
        if differ:
            raise ValueError(f"{folder} holds pictures made with {'; '.join(differ)}: choose another --workdir")
    elif folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty and has no {SETTINGS}: choose another --workdir")
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(settings, indent=2))
