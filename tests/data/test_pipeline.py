import dataclasses
import itertools
import json
import threading
import time

import numpy as np
import pytest

from jaxdiff.data import BytePair, DataConfig, batches

PLAIN = DataConfig(workers=0)
FLIP = DataConfig(workers=0, flip=True)


def take(stream, count):
    """`count` batches as one dict of arrays [count, B, ...]."""
    parts = list(itertools.islice(stream, count))
    return {key: np.stack([part[key] for part in parts]) for key in parts[0]}


def assert_equal(a, b):
    assert a.keys() == b.keys()
    for key in a:
        assert np.array_equal(a[key], b[key]), key


def test_what_a_batch_holds(numbers):
    encode = lambda text: np.array([int(text.split()[1]), 9], np.int64)
    batch = next(batches(numbers(10), PLAIN, batch_size=4, seed=0, encode=encode))
    assert {key: (value.dtype.name, value.shape) for key, value in batch.items()} == {
        "image": ("uint8", (4, 4, 4, 3)),
        "tokens": ("int32", (4, 2)),
        "label": ("int32", (4,)),
        "index": ("int64", (4,)),
    }
    assert np.array_equal(batch["tokens"][:, 0], batch["index"])
    assert np.array_equal(batch["image"][:, 0, 1, 0], batch["index"])
    assert np.array_equal(batch["label"], batch["index"] % 2)
    assert "tokens" not in next(batches(numbers(10), PLAIN, batch_size=4, seed=0))


@pytest.mark.parametrize(("size", "batch_size"), [(10, 4), (3, 8), (1, 2), (12, 12)])
def test_every_epoch_shows_every_example_once(numbers, size, batch_size):
    """Also where batches cross epochs, and where a batch is larger than the source."""
    count = 6 * size // batch_size + 1
    order = take(batches(numbers(size), PLAIN, batch_size=batch_size, seed=3), count)["index"].ravel()
    epochs = order[: 6 * size].reshape(6, size)
    assert (np.sort(epochs) == np.arange(size)).all()
    if size > 5:
        assert len({tuple(epoch) for epoch in epochs}) == 6, "each epoch has its own order"


def test_the_seed_draws_the_order(numbers):
    orders = [take(batches(numbers(50), PLAIN, batch_size=10, seed=s), 5)["index"].ravel().tolist() for s in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_share_the_same_global_batch(numbers, processes):
    whole = take(batches(numbers(13), FLIP, batch_size=8, seed=5), 7)
    shares = [
        take(batches(numbers(13), FLIP, batch_size=8, seed=5, process_index=p, process_count=processes), 7)
        for p in range(processes)
    ]
    assert_equal(whole, {key: np.concatenate([share[key] for share in shares], axis=1) for key in whole})


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_threads_change_nothing(numbers, workers):
    threaded = dataclasses.replace(FLIP, workers=workers)
    streams = [batches(numbers(13), config, batch_size=8, seed=5) for config in (FLIP, threaded)]
    assert_equal(*(take(stream, 20) for stream in streams))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("processes", [1, 2])
def test_a_restored_place_continues_bit_for_bit(numbers, workers, processes):
    config = dataclasses.replace(FLIP, workers=workers)
    stream = batches(numbers(13), config, batch_size=8, seed=5)
    take(stream, 5)
    state = json.loads(json.dumps(stream.get_state()))
    expected = take(stream, 9)
    shares = []
    for p in range(processes):  # it fits another number of processes too
        share = batches(numbers(13), config, batch_size=8, seed=5, process_index=p, process_count=processes)
        take(share, 2)
        share.set_state(state)
        assert share.get_state() == state
        shares.append(take(share, 9))
    assert_equal(expected, {key: np.concatenate([s[key] for s in shares], axis=1) for key in expected})


@pytest.mark.parametrize(
    ("size", "batch_size", "seed", "message"),
    [
        (14, 8, 5, "examples 13, not 14"),
        (13, 4, 5, "batch_size 8, not 4"),
        (13, 8, 6, "seed 5, not 6"),
    ],
)
def test_a_place_in_another_stream_is_refused(numbers, size, batch_size, seed, message):
    state = batches(numbers(13), PLAIN, batch_size=8, seed=5).get_state()
    with pytest.raises(ValueError, match=message):
        batches(numbers(size), PLAIN, batch_size=batch_size, seed=seed).set_state(state)


def test_flips_are_fair_new_each_time_and_only_where_asked(numbers):
    upright = take(batches(numbers(8), PLAIN, batch_size=8, seed=1), 50)
    assert (upright["image"][..., 0, 0] == 255).all()
    stream = take(batches(numbers(8), FLIP, batch_size=8, seed=1), 50)
    assert np.array_equal(stream["index"], upright["index"])
    mirrored = stream["image"][:, :, 0, -1, 0] == 255
    assert np.array_equal(stream["image"][mirrored], upright["image"][mirrored][:, :, ::-1])
    assert np.array_equal(stream["image"][~mirrored], upright["image"][~mirrored])
    assert abs(mirrored.mean() - 0.5) < 4 * 0.5 / np.sqrt(400)  # four standard deviations
    for i in range(8):
        assert 0 < mirrored[stream["index"] == i].mean() < 1


def test_what_is_loaded_ahead_is_bounded(numbers):
    source = numbers(1000)
    stream = batches(source, dataclasses.replace(PLAIN, workers=2), batch_size=8, seed=0)
    next(stream)
    time.sleep(0.3)
    assert source.reads <= 8 * (1 + 2 * 2 + 2), "one taken, two ahead a thread, one in each thread's hands"
    stream.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_that_is_closed_leaves_no_threads(numbers, workers):
    before = threading.active_count()
    with batches(numbers(100), dataclasses.replace(PLAIN, workers=workers), batch_size=4, seed=0) as stream:
        next(stream)
        assert threading.active_count() > before or not workers
    deadline = time.time() + 10
    while threading.active_count() > before and time.time() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before
    stream.close()  # a second time


def test_an_error_in_a_thread_reaches_the_caller(numbers):
    class Broken(numbers):
        def __getitem__(self, index):
            raise OSError("a.png: truncated")

    with pytest.raises(OSError, match=r"a\.png: truncated"):
        next(batches(Broken(4), dataclasses.replace(PLAIN, workers=2), batch_size=2, seed=0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 6, "process_count": 4}, "batch_size is 6: expected a multiple of the 4 processes"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": 4, "process_index": 2, "process_count": 2}, r"process_index is 2: expected 0 \.\. 1"),
        ({"batch_size": 4, "seed": -1}, "seed is -1"),
    ],
)
def test_bad_arguments_are_refused(numbers, options, message):
    with pytest.raises(ValueError, match=message):
        batches(numbers(8), PLAIN, **({"seed": 0} | options))


def test_with_a_learned_vocabulary(numbers):
    source = numbers(20)
    vocabulary = BytePair.learn(source.captions(), 300)
    batch = next(batches(source, PLAIN, batch_size=4, seed=0, encode=lambda text: vocabulary.encode(text, 8)))
    assert [vocabulary.decode(row) for row in batch["tokens"]] == [f"number {i}" for i in batch["index"]]
