"""What a run says of itself: how fast its steps are, what they wait for, and how much of its time was of use."""

import json
import time

import jax
import pytest
from toy_task import MATRIX, Data, program

from jaxdiff.parallel import MeshSpec
from jaxdiff.training import CheckpointConfig, TrainConfig, fit
from jaxdiff.training.checkpoint import Checkpoints
from jaxdiff.training.log import MetricsLog


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    return now


def log_of(clock, tmp_path, seconds, **kwargs):
    """A log of steps that take so long each, a tenth of it waiting."""
    log = MetricsLog(tmp_path, 0, 8, write=False, **kwargs)
    for spent in (0.0, *seconds):
        clock[0] += spent
        log.waited(spent / 10)
        log.add({"loss": 1.0})
    return log


def test_a_line_tells_percentiles_rates_and_what_was_waited_for(clock, tmp_path):
    told = log_of(clock, tmp_path, [i / 100 for i in range(1, 101)], devices=4, share=0.1).flush(101)
    assert told["step_seconds_p50"] == pytest.approx(0.51)
    assert told["step_seconds_p90"] == pytest.approx(0.91)
    assert told["step_seconds_p99"] == pytest.approx(1.0)
    assert told["images_per_second"] == pytest.approx(8 * 100 / 50.5)
    assert told["images_per_second_device"] == pytest.approx(2 * 100 / 50.5)
    assert told["input_wait"] == pytest.approx(0.1)
    assert told["mfu"] == pytest.approx(0.1 * 100 / 50.5), "the seconds at the peak, of those that a step took"


def test_no_share_of_the_peak_is_told_where_no_peak_is_known(clock, tmp_path):
    assert "mfu" not in log_of(clock, tmp_path, [1.0, 1.0]).flush(3)


def test_a_step_of_ten_times_the_median_is_a_stall_of_the_process_that_waited_longest(clock, tmp_path):
    log = log_of(clock, tmp_path, [1.0, 1.0, 1.0, 12.0])
    others = lambda mine: [mine, [12.0, 11.0, 1.0], [12.0, 0.1, 1.0]]
    with pytest.warns(UserWarning, match=r"a step took 12 s, 12 times the median: process 1 waited longest .* 11 s"):
        assert log.stall(others) == {"stall_seconds": 12.0, "stall_process": 1.0}


@pytest.mark.parametrize("seconds", [[], [1.0], [1.0, 30.0], [1.0, 1.0, 9.0]])
def test_what_is_not_far_beyond_the_usual_is_no_stall(clock, tmp_path, seconds):
    log = log_of(clock, tmp_path, seconds)
    asked = []
    assert log.stall(lambda mine: asked.append(mine) or [mine]) == {}
    assert asked, "each process asks, or others would wait for it"


def train(workdir, steps, **kwargs):
    run = program(MeshSpec(), devices=jax.devices()[:1], task=MATRIX)
    config = TrainConfig(steps=steps, batch_size=8, log_every=2)
    fit(run, Data(8), jax.random.key(0), workdir, config, CheckpointConfig(every=4), **kwargs)
    with Checkpoints(workdir) as checkpoints:
        return checkpoints.restore(run.like)[1]["clock"]


def test_the_share_of_useful_time_counts_from_the_first_start(tmp_path):
    first = train(tmp_path, 4)
    time.sleep(0.5)
    second = train(tmp_path, 8)
    assert second["began"] == first["began"]
    assert second["useful"] > first["useful"] > 0
    told = [json.loads(line)["goodput"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert 0 < told[-1] < second["useful"] / (first["useful"] + 0.5), "what lay between the starts is lost"


def test_the_steps_that_are_asked_for_are_traced(tmp_path):
    train(tmp_path, 4, profile=(2, 3))
    (trace,) = (tmp_path / "profile").rglob("*.xplane.pb")
    assert trace.stat().st_size
