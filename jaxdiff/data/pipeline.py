"""From a source to an endless stream of batches that can be resumed, on Grain.

`order` says which examples global batch n holds. Process p of P loads rows p B/P .. (p + 1) B/P - 1 of each global
batch: which examples a batch holds, and which of them are mirrored, depends on neither P nor the number of threads.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from jaxdiff.data.config import DataConfig, Example, Source
from jaxdiff.data.order import TABLE, Order


class Batches(Iterator[dict[str, np.ndarray]]):
    """Batches without end; `get_state` and `set_state` save and restore the place. Built by `batches`.

    As a context (`with batches(...) as stream`) it closes at the end.
    """

    def __init__(self, stream: Any, origin: dict[str, int]):
        self._stream, self._origin = iter(stream), origin

    def __next__(self) -> dict[str, np.ndarray]:
        return next(self._stream)

    def get_state(self) -> dict[str, int]:
        """Returns the place in the stream, as JSON: the number of the next batch, and what the order was drawn from."""
        return {"batch": int(self._stream.get_state()["next_index"]), **self._origin}

    def set_state(self, state: dict[str, int]) -> None:
        """Goes to a place that `get_state` gave, of any number of processes; what follows is then bit for bit the same.

        Raises:
          ValueError: if the state is of other data, another batch size or another seed, so that the order would differ.
        """
        differ = [f"{key} {state.get(key)}, not {here}" for key, here in self._origin.items() if state.get(key) != here]
        if differ:
            raise ValueError(
                f"the saved place is in another stream of batches: it was saved with {'; '.join(differ)}. "
                "Resume with the data, batch size and seed of the run, or start a new one."
            )
        self._stream.set_state({"next_index": state["batch"]})

    def close(self) -> None:
        """Stops the threads that load ahead; a second call does nothing."""
        self._stream.close()

    def __enter__(self) -> "Batches":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def batches(
    source: Source,
    config: DataConfig,
    *,
    batch_size: int,
    seed: int,
    encode: Callable[[str], np.ndarray] | None = None,
    example: Callable[[Example, np.random.Generator], Mapping[str, np.ndarray]] | None = None,
    process_index: int = 0,
    process_count: int = 1,
) -> Batches:
    """Returns shuffled batches of a source, without end; the module docstring gives their order.

    With B_local = batch_size / process_count, a batch is

        image uint8 [B_local, size, size, 3], label int32 [B_local], index int64 [B_local] (the number in the source),
        and tokens int32 [B_local, L] if `encode` is given

    Args:
      source: what `open_source(config)` gave; where it has `groups`, a batch is of one of them.
      config: `flip` mirrors a picture and `articles` changes a caption, each with probability 1/2; `workers` threads
        load 2 batches each ahead.
      batch_size: examples of a batch, of all processes together.
      seed: draws the order and the mirrored ones; not negative.
      encode: caption -> int32 [L].
      example: makes the rows of a batch instead: (example, after `flip` and `articles`; its own random numbers, the
        same for any number of processes) -> an array for each name.
      process_index: which share of each batch to load, 0 .. process_count - 1.
      process_count: how many share a batch.

    Raises:
      ValueError: if batch_size does not divide by process_count, or process_index or seed is out of range.
    """
    if batch_size < 1 or batch_size % process_count:
        raise ValueError(
            f"batch_size is {batch_size}: expected a multiple of the {process_count} processes, at least one each"
        )
    if not 0 <= process_index < process_count:
        raise ValueError(f"process_index is {process_index}: expected 0 .. {process_count - 1}")
    if seed < 0:
        raise ValueError(f"seed is {seed}: expected 0 or more")
    import grain

    local = batch_size // process_count
    mine = slice(process_index * local, (process_index + 1) * local)

    def chance(number: int, what: int) -> np.ndarray:
        return np.random.default_rng((seed, number, what)).random(batch_size)[mine] < 0.5

    def made(number: int, examples: list[Example]) -> dict[str, np.ndarray]:
        assert example
        if config.articles:
            for one, wanted in zip(examples, chance(number, 2), strict=True):
                one["caption"] = _article(one["caption"]) if wanted else one["caption"]
        if config.flip and "image" in examples[0]:  # latents cannot be mirrored: they are stored so too
            for one, wanted in zip(examples, chance(number, 1), strict=True):
                one["image"] = one["image"][:, ::-1] if wanted else one["image"]
        bits = np.random.Philox(key=(seed << 64) + 3)  # a stream for each row, by the counter
        state, rng, rows = bits.state, np.random.Generator(bits), []
        for i, one in enumerate(examples, number * batch_size + mine.start):
            state["state"]["counter"][:] = (0, 0, 0, i)
            bits.state = state
            rows.append(example(one, rng))
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    groups = tuple(getattr(source, "groups", (len(source),)))
    order = Order(groups, batch_size, seed)

    def load(number: int) -> dict[str, np.ndarray]:
        index = order(number, mine)
        examples = [source[i] for i in index.tolist()]
        if example:
            return made(number, [Example(**one) for one in examples])
        batch = {
            "image": np.stack([example["image"] for example in examples]),
            "label": np.array([example["label"] for example in examples], np.int32),
            "index": index,
        }
        if encode:
            captions = [example["caption"] for example in examples]
            if config.articles:
                captions = [_article(c) if one else c for c, one in zip(captions, chance(number, 2), strict=True)]
            batch["tokens"] = np.stack([encode(caption) for caption in captions]).astype(np.int32)
        if config.flip:
            mirrored = chance(number, 1)
            batch["image"][mirrored] = batch["image"][mirrored, :, ::-1]
        return batch

    ahead = grain.ReadOptions(num_threads=config.workers, prefetch_buffer_size=2 * config.workers)
    origin = {"examples": len(source), "batch_size": batch_size, "seed": seed}
    origin |= {f"group_{i}": size for i, size in enumerate(groups)} if len(groups) > 1 else {}
    origin |= {"computed order": 1} if max(groups) > TABLE else {}
    return Batches(grain.MapDataset.range(sys.maxsize).map(load).to_iter_dataset(ahead), origin)


def _article(caption: str) -> str:
    if caption.startswith(("a ", "an ", "the ")):
        return caption
    return f"{'an' if caption[:1].lower() in 'aeiou' else 'a'} {caption}"
