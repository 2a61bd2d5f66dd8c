import dataclasses
import io
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto.event_pb2 import Event
from toy_task import Data, make_task, program

from jaxdiff.parallel import MeshSpec, compile
from jaxdiff.training import (
    CheckpointConfig,
    NonFiniteLoss,
    OptimizerConfig,
    TrainConfig,
    fit,
    load_params,
    make_eval_step,
    make_evaluate,
    make_init_state,
    make_optimizer,
)
from jaxdiff.training.checkpoint import steps
from jaxdiff.training.log import MetricsLog, truncate

SGD = OptimizerConfig(name="sgd", lr=0.1, decay="constant", clip=0.0)


def slope(params, known, batch, keys):
    """A line's loss: compiles in no time, and its steps can be followed by hand."""
    return jnp.mean(params["w"] * batch["x"]), {}, {}


LINE = make_task(lambda key: {"w": jnp.ones(())}, slope)


class Ones(Data):
    """Ones, but for the values given at their steps."""

    def __init__(self, batch, values=()):
        super().__init__(batch)
        self.values = dict(values)

    def __next__(self):
        self.count += 1
        return {"x": np.full(self.batch, self.values.get(self.count, 1.0), np.float32)}


def go(workdir, steps=10, data=None, task=LINE, every=4, train=None, **kwargs):
    config = TrainConfig(steps=steps, batch_size=8, log_every=2, **(train or {}))
    run = program(optimizer=SGD, task=task)
    return fit(run, data or Ones(8), jax.random.key(0), workdir, config, CheckpointConfig(every), **kwargs)


def approx32(value):
    return pytest.approx(value, rel=1e-6)


def scalars(directory):
    """{name: {step: value}} of TensorBoard's files: length, checksum, event, checksum; pictures are arrays."""
    found = {}
    for path in directory.glob("events*"):
        data = path.read_bytes()
        while data:
            end = 12 + int.from_bytes(data[:8], "little")
            event = Event.FromString(data[12:end])
            for value in event.summary.value:
                picture = value.image.encoded_image_string
                shown = np.asarray(Image.open(io.BytesIO(picture))) if picture else value.simple_value
                found.setdefault(value.tag, {})[event.step] = shown
            data = data[end + 4 :]
    return found


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_every_step_is_reported_in_order_and_lines_hold_means(tmp_path):
    reported = []
    state = go(tmp_path, report=lambda step, metrics: reported.append((step, metrics["loss"])))
    assert [step for step, _ in reported] == list(range(1, 11))
    np.testing.assert_allclose(
        [loss for _, loss in reported], 1 - 0.1 * np.arange(10), atol=1e-6
    )  # w falls by lr a step
    assert [line["step"] for line in lines(tmp_path)] == [2, 4, 6, 8, 10]
    np.testing.assert_allclose([line["loss"] for line in lines(tmp_path)], 0.95 - 0.2 * np.arange(5), atol=1e-6)
    assert all(line["grad_norm"] == pytest.approx(1) for line in lines(tmp_path))
    assert lines(tmp_path)[0]["param_norm"] == pytest.approx(0.85)  # after steps 1 and 2: 0.9 and 0.8
    assert steps(tmp_path / "checkpoints") == [4, 8, 10]
    assert float(state.params["w"]) == pytest.approx(0, abs=1e-6)
    assert scalars(tmp_path / "tensorboard")["loss"] == {
        line["step"]: approx32(line["loss"]) for line in lines(tmp_path)
    }


def test_metrics_of_a_step_are_read_after_the_next_is_dispatched(tmp_path, monkeypatch):
    events = []

    class Watched(Ones):
        def __next__(self):
            events.append(f"feed {self.count + 1}")
            return super().__next__()

    run = program(optimizer=SGD, task=LINE)
    dispatch = run.step
    run = dataclasses.replace(run, step=lambda *args: (events.append("dispatch"), dispatch(*args))[1])
    config = TrainConfig(steps=3, batch_size=8)
    fit(run, Watched(8), jax.random.key(0), tmp_path, config, report=lambda step, _: events.append(f"read {step}"))
    assert events == [
        *("feed 1", "dispatch"),
        *("feed 2", "dispatch", "read 1"),
        *("feed 3", "dispatch", "read 2", "read 3"),
    ]


def test_keys_and_batches_that_will_not_do_are_refused_before_anything_compiles(tmp_path, monkeypatch):
    run = dataclasses.replace(program(optimizer=SGD, task=LINE), init=lambda key: pytest.fail("init was called"))
    with pytest.raises(ValueError, match="threefry"):
        fit(run, Ones(8), jax.random.key(0, impl="rbg"), tmp_path, TrainConfig(steps=1, batch_size=8))
    with pytest.raises(ValueError, match="a batch of 12 does not split over 8 devices"):
        fit(run, Ones(12), jax.random.key(0), tmp_path, TrainConfig(steps=1, batch_size=12))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("at", [5, 8, 9, 10])
def test_a_loss_that_is_not_finite_stops_the_run_and_is_not_saved(tmp_path, value, at):
    with pytest.raises(NonFiniteLoss, match=rf"step {at}: loss = -?(nan|inf)") as error:
        go(tmp_path, data=Ones(8, {at: value}))
    saved = [step for step in (4, 8) if step < at]
    assert f"The last good checkpoint is {tmp_path / 'checkpoints' / str(saved[-1])}" in str(error.value)
    assert steps(tmp_path / "checkpoints") == saved
    assert math.isfinite(load_params(tmp_path)["w"])
    assert lines(tmp_path)[-1]["step"] < at


def test_a_gradient_that_is_not_finite_stops_the_run_though_the_loss_is(tmp_path):
    root = make_task(lambda key: {"w": jnp.zeros(())}, lambda params, *_: (jnp.sqrt(params["w"]), {}, {}))
    with pytest.raises(NonFiniteLoss, match=r"step 1: loss = 0.0, grad_norm = inf.* is \(none yet\)"):
        go(tmp_path, task=root, every=1)
    assert steps(tmp_path / "checkpoints") == []


def test_previews_come_every_so_often_and_at_the_end_with_the_average(tmp_path):
    seen = []
    state = go(
        tmp_path,
        train={"preview_every": 4},
        preview=lambda step, state: seen.append((step, float(state.ema_params["w"]))),
    )
    assert [step for step, _ in seen] == [4, 8, 10]
    assert seen[-1][1] == float(state.ema_params["w"]) != float(state.params["w"])
    go(tmp_path / "none", preview=lambda step, params: pytest.fail("preview_every is 0"))


def test_pictures_of_a_preview_are_shown_in_tensorboard(tmp_path):
    picture = lambda step: np.full((3, 5, 3), (step, 20, 30), np.uint8)
    go(tmp_path, train={"preview_every": 4}, preview=lambda step, _: {"samples/a": picture(step)})
    shown = scalars(tmp_path / "tensorboard")["samples/a"]
    assert list(shown) == [4, 8, 10]
    for step, found in shown.items():
        np.testing.assert_array_equal(found, picture(step))


def test_data_that_ends_is_named(tmp_path):
    class Short(Ones):
        def __next__(self):
            if self.count == 3:
                raise StopIteration
            return super().__next__()

    with pytest.raises(ValueError, match="the data ended after 3 steps"):
        go(tmp_path, data=Short(8))


@pytest.mark.parametrize("spec", [MeshSpec(), "pmap"], ids=str)
def test_the_held_out_loss_joins_the_log_and_ranks_checkpoints(tmp_path, spec):
    """The average is 1 - step / 10; its square is least at step 10."""

    def square(params, known, batch, keys):
        noise = {"noise": jax.random.normal(keys[0])}
        return jnp.mean(jnp.square(params["w"]) * batch["x"]), noise, {"x": batch["x"].mean()}

    summary = lambda stats: {"deviation": (stats["x"] - 2) ** 2 + 5}  # of the mean over all batches
    task = dataclasses.replace(LINE, held_out=square, summary=summary)
    state = make_init_state(task, make_optimizer(SGD, 100))
    held_out = compile(lambda reduce: make_eval_step(task, reduce=reduce), state, spec=spec)
    batches = [{"x": np.full(8, value, np.float32)} for value in (1, 2, 3)]
    evaluate = make_evaluate(held_out, lambda: batches, jax.random.key(1), 8, summary)
    config = CheckpointConfig(every=5, keep=1, best="ema_loss")
    config_train = TrainConfig(steps=20, batch_size=8, log_every=8)
    run = program(spec, optimizer=SGD, task=LINE, decay=0.0)
    fit(run, Ones(8), jax.random.key(0), tmp_path, config_train, config, evaluate=evaluate)
    found = {line["step"]: line for line in lines(tmp_path)}
    assert list(found) == [5, 8, 10, 15, 16, 20]
    for step in (5, 10, 15, 20):
        assert found[step]["ema_loss"] == pytest.approx(2 * (1 - 0.1 * step) ** 2, abs=1e-5)
        assert found[step]["ema_deviation"] == pytest.approx(5)
    assert len({found[step]["ema_noise"] for step in (5, 10, 15)}) == 1
    assert steps(tmp_path / "checkpoints") == [10, 20]


def test_no_held_out_batch_is_an_error():
    run = program(optimizer=SGD, task=LINE)
    evaluate = make_evaluate(run, list, jax.random.key(0), 8)
    with pytest.raises(ValueError, match="smaller than one batch"):
        evaluate(run.init(jax.random.key(1)))


def test_the_clock_skips_what_is_no_training(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    log = MetricsLog(tmp_path, 0, batch_size=4)

    def step(seconds):
        now[0] += seconds
        log.add({"loss": 1.0})

    step(100)  # compiles
    step(2)
    step(2)
    assert log.flush(3)["images_per_second"] == 2
    log.pause()
    step(50)  # a preview was drawn before
    step(1)
    assert log.flush(5)["images_per_second"] == 4
    assert log.flush(6) == {}
    log.close()
    assert [line["step"] for line in lines(tmp_path)] == [3, 5]


def test_truncate_keeps_what_is_before_and_drops_a_broken_end(tmp_path):
    path = tmp_path / "metrics.jsonl"
    truncate(path, 3)
    assert not path.exists()
    path.write_text('{"step": 2}\n{"step": 3}\n{"step": 4}\n{"st')
    truncate(path, 3)
    assert path.read_text() == '{"step": 2}\n{"step": 3}\n'
