"""Families beside each other: one table of runs that are made once, and what cannot be compared."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxdiff.cli.config import read_config
from jaxdiff.cli.main import main
from jaxdiff.evaluation import compare, compare_table
from jaxdiff.evaluation.budget import Budget
from jaxdiff.pipelines.direct import DirectPipeline, LikelihoodPipeline

FAMILIES = Path(__file__).parents[2] / "configs" / "families"
RUN = {"parameters": 12345, "steps": 10, "examples_per_second": 5.0, "calls": 1, "pictures_per_second": 3.0}


@pytest.fixture
def data(tmp_path):
    """A folder of noise, with the splits train and test."""
    for split in ("train", "test"):
        (tmp_path / "data" / split).mkdir(parents=True)
        for i in range(8):
            image = np.random.default_rng(i).integers(0, 256, (8, 8, 3)).astype(np.uint8)
            Image.fromarray(image).save(tmp_path / "data" / split / f"{i}.png")
            (tmp_path / "data" / split / f"{i}.txt").write_text("noise")
    return tmp_path / "data"


def words(names, data, out):
    made = ["compare", *(str(FAMILIES / f"{name}.py") for name in names), "--small", "--data", str(data)]
    return [*made, "--workdir", str(out), "--metrics", "--batch-size", "1", "--num", "8", "--steps", "2"]


def grey(weights, numbers, keys, label):
    return jnp.broadcast_to(jax.vmap(lambda key: jax.random.bits(key, (8, 8, 1), "uint8"))(keys), (len(keys), 8, 8, 3))


def test_families_with_and_without_a_likelihood_stand_in_one_table(tmp_path, data, monkeypatch, capsys):
    """Of three kinds and two seeds, whose training is left out: what they are measured by, and that it is done once."""
    fake_run(monkeypatch, 0.0)

    def opened(place, spec):
        name = Path(place).name
        how = {"size": 8, "spec": "pmap", "calls": {"made": 64}.get(name.split("-")[0], 1)}
        if name.startswith("gan"):
            return DirectPipeline({}, grey, **how)
        bits = lambda weights, image, keys, label: jnp.full(len(image), 2.0 + ("-1" in name))
        return LikelihoodPipeline({}, grey, bits, "exact" if name.startswith("made") else "bound", **how)

    monkeypatch.setattr(compare, "load", opened)
    monkeypatch.setattr("jaxdiff.evaluation.run.load", opened)
    command = [*words(("made", "vae", "gan"), data, tmp_path / "out"), "--seeds", "2"]
    main(command)
    lines = capsys.readouterr().out.splitlines()
    ends = {"made": "| 2.5 ± 0.71 (exact) |", "vae": "| 2.5 ± 0.71 (bound) |", "gan": "| none |"}
    for name, end in ends.items():
        assert next(line for line in lines if line.startswith(f"| {name}-small | ")).endswith(end)
        assert Image.open(tmp_path / "out" / f"{name}-small.png").size[0] > 16
    told = json.loads((tmp_path / "out" / "results.json").read_text())["runs"]
    assert [len(runs) for runs in told.values()] == [2, 2, 2]
    assert told["gan-small"][0]["metrics"] == {}
    assert (told["made-small"][1]["calls"], told["made-small"][1]["steps"]) == (64, 2)
    page = (tmp_path / "out" / "results.md").read_text()
    assert all(f"({name}-small.png)" in page for name in ends)
    (tmp_path / "out" / "vae-small-1" / "compare.json").unlink()  # as if it had been killed before
    main(command)
    assert capsys.readouterr().out.count("measured before") == 5
    with pytest.raises(SystemExit):
        main([*command, "--steps", "3"])
    assert "is of another budget" in capsys.readouterr().err


NAMES = sorted(path.stem for path in FAMILIES.glob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("names", [("made",), pytest.param(NAMES, marks=pytest.mark.heavy)], ids=["one", "every"])
def test_families_are_trained_sampled_and_measured(names, tmp_path, data, monkeypatch, capsys):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", jax.config.jax_compilation_cache_dir)
    main([*words(names, data, tmp_path / "out"), "--seeds", "1"])
    out = capsys.readouterr().out
    told = json.loads((tmp_path / "out" / "results.json").read_text())["runs"]
    assert set(told) == {f"{name}-small" for name in names}
    for name in told:
        (run,) = told[name]
        assert f"| {name} | 0.0" in out
        assert (run["steps"], run["calls"] >= 1, run["flops"] > 0) == (2, True, True)
        # after two steps, the bound of a chain of few steps is far from any picture's bits
        most = lambda label: 1e4 if "steps" in label else 30
        assert all(0 < value < most(label) for label, value in run["metrics"].items())
    assert [*told["made-small"][0]["metrics"]] == ["bits/dim (exact, grey, 4 levels)"]
    assert told["made-small"][0]["calls"] == 64


class Killed(BaseException):
    """Nothing that a program catches, as a kill is."""


def fake_run(monkeypatch, seconds, killed_at=None):
    """Steps of so many seconds (0: as it comes), a checkpoint after every second one, stopped as `training.fit` is."""
    clock, stopped = [0.0], []
    if seconds:
        monkeypatch.setattr(compare, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    monkeypatch.setattr(compare, "signal", SimpleNamespace(raise_signal=stopped.append, SIGTERM=15))
    monkeypatch.setattr(compare, "step_flops", lambda config, place: 100.0)

    def run(config, place, report, say):
        (place / "checkpoints").mkdir(parents=True, exist_ok=True)
        step = max((int(one.name) for one in (place / "checkpoints").iterdir()), default=0)
        while step < config.train.steps and not stopped:
            step += 1
            clock[0] += seconds
            report(step, {})
            if step % 2 == 0:
                (place / "checkpoints" / str(step)).mkdir()
            if step == killed_at:
                raise Killed
        return SimpleNamespace(step=step, params={"w": np.zeros(3)})

    monkeypatch.setattr(compare.trainer, "run", run)


def test_a_run_that_was_killed_has_the_time_that_its_checkpoint_left(tmp_path, monkeypatch):
    """Of 60 seconds, 10 a step: the first ends the compiling, and what was lost with the kill is made again."""
    config, place, budget = read_config(FAMILIES / "made.py", small=True), tmp_path / "run", Budget(minutes=1.0)
    config = dataclasses.replace(
        compare._bounded(config, 0, place, budget), checkpoint=dataclasses.replace(config.checkpoint, every=2)
    )
    known = {"at": {}, "budget": {}}
    fake_run(monkeypatch, 10.0, killed_at=5)
    with pytest.raises(Killed):
        compare._train(config, place, budget, known, print)
    known = json.loads((place / "compare.json").read_text())
    assert known["at"] == {"2": 10.0, "4": 30.0, "5": 40.0}
    fake_run(monkeypatch, 10.0)
    known = compare._train(config, place, budget, known, print)
    assert (known["seconds"], known["steps"], known["parameters"]) == (60.0, 8, 3)  # the step that compiles is free
    assert known["examples_per_second"] == pytest.approx(8 * 8 / 60)
    assert known["flops"] == 800
    assert compare._train(config, place, budget, known, print) == known  # and is not made again


def test_another_signal_than_its_own_stops_the_command(tmp_path, monkeypatch):
    config, budget = read_config(FAMILIES / "made.py", small=True), Budget(steps=9)
    monkeypatch.setattr(compare.trainer, "run", lambda *given: SimpleNamespace(step=0, params={}))
    with pytest.raises(KeyboardInterrupt):
        compare._train(compare._bounded(config, 0, tmp_path, budget), tmp_path, budget, {"at": {}}, print)


def test_a_budget_of_work_is_steps_of_it(tmp_path, monkeypatch):
    monkeypatch.setattr(compare, "step_flops", lambda config, place: 250.0)
    config = compare._bounded(read_config(FAMILIES / "made.py"), 2, tmp_path, Budget(flops=1e4))
    assert (config.train.steps, config.seed, config.held_out) == (40, 2, "")


def test_the_work_of_a_step_is_three_times_its_forward_pass(tmp_path):
    """Of a MADE of dense layers: products forwards, and of each two backwards but for the first one's inputs."""
    config = read_config(FAMILIES / "made.py", small=True)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, name="synthetic", subset="all"))
    first, second = 64 * 16, 16 * 64 * 4  # 8x8 pixels, 16 units, 4 levels
    assert compare.step_flops(config, tmp_path) == 2 * 8 * (2 * first + 3 * second)


def test_the_table_has_means_spreads_and_says_where_there_is_none():
    flow = [{**RUN, "metrics": {"KID": value, "bits/dim (exact)": 3.0}} for value in (1.0, 3.0)]
    table = compare_table.markdown({"flow": flow, "gan": [{**RUN, "metrics": {"KID": 0.5}}]}).splitlines()
    assert table[0].endswith("| pictures/s | KID | bits/dim |")
    assert table[2].startswith("| flow | 0.01M | 10 ± 0 | 5 ± 0 | 1 |")
    assert table[2].endswith("| 2 ± 1.4 | 3 ± 0 (exact) |")
    assert table[3].endswith("| 0.5 | none |")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"seeds": 0}, "seeds is 0"),
        ({"num": 0}, "num is 0"),
        ({"minutes": float("nan")}, "minutes is nan"),
        ({"minutes": 0.0}, "minutes is 0.0"),
        ({"steps": -1}, "steps is -1"),
        ({"flops": -1.0}, "flops is -1.0"),
        ({"steps": 5, "flops": 1e9}, "give one of them"),
    ],
)
def test_budgets_that_make_no_sense_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        compare.check([], Budget(**fields))


def test_two_configs_of_one_name_are_refused():
    config = read_config(FAMILIES / "made.py")
    with pytest.raises(ValueError, match="two configs have the name made"):
        compare.check([config, config], Budget())
