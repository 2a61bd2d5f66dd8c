"""Writing latents: which rows lie in which shard, each shard whole or not at all, and the manifest at the end.

Which rows a shard holds follows from the data and the plan alone. So any number of processes may each make some, in any
order; what was killed resumes with the shards that are missing; and the bytes are the same.
"""

import dataclasses
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxdiff import kinds
from jaxdiff.data import buckets
from jaxdiff.data.config import LATENTS
from jaxdiff.data.latents import MANIFEST, Layout, Manifest, Plan, Shard, fingerprint, read_plan, sha256
from jaxdiff.data.text import write_text

Encode = Callable[[Sequence[Any]], Mapping[str, np.ndarray]]
"""Examples -> {field: [examples, ...]}, as `Layout` has the fields."""


class Part(NamedTuple):
    """Names a shard, the number of its shape, and its examples by their number in the data."""

    name: str
    shape: int
    rows: Sequence[int]


def parts(source: Any, plan: Plan) -> list[Part]:
    """Returns all shards of a source, bucket after bucket.

    Raises:
      ValueError: if pictures are smaller than their bucket; names them.
    """
    if len(plan.shapes) == 1:
        of_shape: list[Sequence[int]] = [range(len(source))]
    else:
        chosen = np.array(buckets.chosen(source, plan.shapes))
        of_shape = [np.flatnonzero(chosen == i).tolist() for i in range(len(plan.shapes))]
    cuts = [
        (shape, rows[at : at + plan.shard_rows])
        for shape, rows in enumerate(of_shape)
        for at in range(0, len(rows), plan.shard_rows)
    ]
    return [Part(f"{n:05d}", shape, rows) for n, (shape, rows) in enumerate(cuts)]


def check(folder: Path) -> None:
    """Refuses a directory for latents that holds other things.

    Raises:
      ValueError: names it.
    """
    if (folder / LATENTS).is_file() or not folder.is_dir():
        return
    if any(not path.name.startswith(".") for path in folder.iterdir()):
        raise ValueError(f"{folder} holds other things than latents: give another --out")


def begin(folder: Path, plan: Plan) -> None:
    """Writes the plan, or compares it with that of the directory, so that only what fits is added to it.

    Raises:
      ValueError: if there are latents that were made otherwise, or other things; says what differs.
    """
    check(folder)
    if not (folder / LATENTS).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / LATENTS, kinds.to_json(plan))
    there, here = dataclasses.asdict(read_plan(folder)), dataclasses.asdict(plan)
    if differ := [
        f"{name} {_short(there[name])}, not {_short(here[name])}" for name in here if there[name] != here[name]
    ]:
        raise ValueError(f"{folder} holds latents made otherwise ({'; '.join(differ)}): give another --out")


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) < 60 else f"{text[:57]}..."


def missing(split: Path, wanted: Iterable[Part], examples: int) -> list[Part]:
    """Returns the shards that are not there yet.

    Raises:
      ValueError: if one that is there holds other examples, since the data were changed.
    """
    left = []
    for part in wanted:
        path = split / f"{part.name}.json"
        if not path.is_file() or not path.with_suffix(".array_record").is_file():
            left.append(part)
            continue
        text = _text(path)
        if text["examples"] != examples or text["rows"] != list(part.rows):
            raise ValueError(f"{path} is of other examples than the data have now: they were changed, so make all anew")
    return left


def write(
    split: Path,
    part: Part,
    source: Any,
    plan: Plan,
    encode: Encode,
    batch: int,
    done: Callable[[int], None] = lambda rows: None,
) -> None:
    """Makes a shard; the examples of the next batch are read while one is encoded.

    Raises:
      FloatingPointError: if what the encoder says cannot be held by the plan's dtype.
    """
    from array_record.python.array_record_module import ArrayRecordWriter

    layout, moments = Layout(plan, part.shape), _Moments(plan)
    captions, labels = [], []
    split.mkdir(parents=True, exist_ok=True)
    unfinished = split / f".{part.name}.{os.getpid()}.part"
    writer = ArrayRecordWriter(str(unfinished), "group_size:1,uncompressed")
    try:
        for examples in _read(source, part, plan, batch):
            fields = {name: x.astype(layout.fields[name][0]) for name, x in encode(examples).items()}
            for name, x in fields.items():
                if not np.isfinite(x).all():
                    raise FloatingPointError(f"{name} of shard {part.name} are not finite in {plan.dtype}: try float32")
            moments.add(fields["moments"])
            for i, one in enumerate(examples):
                writer.write(layout.pack({name: x[i] for name, x in fields.items()}, one["caption"], one["label"]))
                captions.append(one["caption"])
                labels.append(one["label"])
            done(len(examples))
        writer.close()
        text = {"examples": len(source), "shape": part.shape, "sha256": sha256(unfinished), **moments.summary()}
        text |= {"rows": list(part.rows), "labels": labels, "captions": captions}
        write_text(split / f"{part.name}.json", json.dumps(text, ensure_ascii=False, indent=0))
        os.replace(unfinished, split / f"{part.name}.array_record")
    finally:
        unfinished.unlink(missing_ok=True)


def finish(split: Path, wanted: Sequence[Part], plan: Plan, examples: int) -> Manifest | None:
    """Writes the manifest if all shards are there, whichever process finds them so; None: some are missing."""
    if missing(split, wanted, examples):
        return None
    texts = [_text(split / f"{part.name}.json") for part in wanted]
    count = sum(text["count"] for text in texts)
    mean, square = (np.sum([text[name] for text in texts], 0) / count for name in ("sum", "squares"))
    manifest = Manifest(
        fingerprint(plan),
        tuple(mean.tolist()),
        tuple(np.sqrt(np.maximum(square - mean**2, 0)).tolist()),
        tuple(
            Shard(part.name, part.shape, len(part.rows), text["sha256"], sha256(split / f"{part.name}.json"))
            for part, text in zip(wanted, texts, strict=True)
        ),
    )
    write_text(split / MANIFEST, kinds.to_json(manifest))
    return manifest


def _read(source: Any, part: Part, plan: Plan, batch: int) -> Iterator[list[Any]]:
    """Returns the examples of a shard in batches, read ahead by one batch."""
    shape = plan.shapes[part.shape]
    read = source.__getitem__ if len(plan.shapes) == 1 else lambda i: source.shaped(i, *shape)
    with ThreadPoolExecutor() as pool:
        ahead: list[Any] = []
        for at in range(0, len(part.rows), batch):
            following = [pool.submit(read, i) for i in part.rows[at : at + batch]]
            if ahead:
                yield [one.result() for one in ahead]
            ahead = following
        yield [one.result() for one in ahead]


def _text(path: Path) -> dict[str, Any]:
    try:
        text = json.loads(path.read_text(encoding="utf-8"))
        text["examples"], text["rows"], text["count"]
    except (ValueError, KeyError, TypeError) as error:
        why = f"{type(error).__name__}: {error}"
        raise ValueError(f"{path} is damaged ({why}): remove it and run the same command again") from error
    return text


class _Moments:
    """Sums over the latents that a shard may give: z has the mean and the variance of its Gaussian, or is there."""

    def __init__(self, plan: Plan):
        self._gaussian = plan.kind == "AutoencoderKL"
        self._sums = np.zeros((2, plan.channels // (2 if self._gaussian else 1)))
        self._count = 0

    def add(self, moments: np.ndarray) -> None:
        x = moments.astype(np.float64).reshape(-1, moments.shape[-1])
        mean, log_var = np.split(x, 2, -1) if self._gaussian else (x, np.full(x.shape, -np.inf))
        self._sums += [mean.sum(0), (mean**2 + np.exp(log_var)).sum(0)]
        self._count += len(x)

    def summary(self) -> dict[str, Any]:
        """Returns the sums as a shard's text file holds them."""
        return {"count": self._count, "sum": self._sums[0].tolist(), "squares": self._sums[1].tolist()}
