"""Students that learn from a run: what must fit is checked before anything compiles, and they start as it is."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from jaxdiff import experiment
from jaxdiff.data.config import DataConfig
from jaxdiff.data.tokenizer import BytePair
from jaxdiff.diffusion.process import ProcessConfig
from jaxdiff.models.text import TextConfig
from jaxdiff.models.unet import UNetConfig
from jaxdiff.tasks import picture
from jaxdiff.training import Known, OptimizerConfig

NET = UNetConfig(
    channels=(8,), layers=1, attention=("none",), mid_attention="none", heads=(1,), depth=(1,), groups=4, patch=2
)  # fmt: skip
V = ProcessConfig(prediction="v", weight="truncated_snr")
EDM = ProcessConfig(schedule="edm", prediction="edm", weight="edm", times="log_normal")
PLAIN = picture.Config(process=V, net=NET, condition="none", drop=0.0)
HALVING = dataclasses.replace(V, objective="progressive", intervals=(4, 1), stage=2)
MAPPING = ProcessConfig(objective="consistency_distillation", schedule="edm", prediction="edm", target="average")
DATA, ADAM = DataConfig(size=4), OptimizerConfig()


def run(folder, task, size=4, weights=None):
    """A directory as a run leaves it; the weights are made when they are asked for."""
    config = experiment.Experiment("teacher", task=task, data=DataConfig(size=size))
    (folder / "checkpoints" / "7").mkdir(parents=True)
    (folder / "config.json").write_text(experiment.to_json(config))
    return folder


def student(path, process=HALVING, **changes):
    return dataclasses.replace(PLAIN, process=process, teacher=path, **changes)


def test_a_teacher_of_the_same_shape_and_process_serves(tmp_path):
    student(run(tmp_path / "v", dataclasses.replace(PLAIN, net=dataclasses.replace(NET, dropout=0.1)))).check(
        DATA, ADAM
    )
    student(run(tmp_path / "edm", dataclasses.replace(PLAIN, process=EDM)), MAPPING).check(DATA, ADAM)
    student(tmp_path / "v" / "checkpoints" / "7").check(DATA, ADAM)


@pytest.mark.parametrize(
    ("taught", "size", "words"),
    [
        ({"net": dataclasses.replace(NET, channels=(16,))}, 4, r"task.net.channels is \(16,\) there and \(8,\) here$"),
        ({"process": dataclasses.replace(V, prediction="x0")}, 4, "task.process.prediction is x0 there and v here$"),
        ({"process": dataclasses.replace(V, schedule="vp")}, 4, "task.process.schedule is vp there and cosine here$"),
        ({"process": dataclasses.replace(V, steps=500)}, 4, "task.process.steps is 500 there and 1000 here$"),
        ({}, 8, "data.size is 8 there and 4 here$"),
        (
            {"process": dataclasses.replace(V, variance="learned", times="steps")},
            4,
            "says its variance: expected a run",
        ),
        ({"process": MAPPING}, 4, "says its consistency: expected a run"),
    ],
)
def test_a_teacher_of_another_shape_or_process_is_refused(tmp_path, taught, size, words):
    path = run(tmp_path / "other", dataclasses.replace(PLAIN, **taught), size)
    with pytest.raises(ValueError, match=words) as error:
        student(path).check(DATA, ADAM)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_teacher_is_given_where_one_is_needed_and_nowhere_else(tmp_path):
    for process in (HALVING, MAPPING):
        with pytest.raises(ValueError, match=r"task.teacher is None: give the run to learn from, --task.teacher RUN"):
            student(None, process).check(DATA, ADAM)
    with pytest.raises(ValueError, match="leave the teacher out"):
        student(tmp_path, V).check(DATA, ADAM)


def test_what_is_no_run_is_no_teacher(tmp_path):
    with pytest.raises(FileNotFoundError, match="not a run of `jaxdiff train`"):
        student(tmp_path / "missing").check(DATA, ADAM)
    path = run(tmp_path / "new", PLAIN)
    (path / "checkpoints" / "7").rmdir()
    with pytest.raises(FileNotFoundError, match="has no checkpoint yet: train it first"):
        student(path).check(DATA, ADAM)
    path = run(tmp_path / "old", PLAIN)
    (path / "config.json").write_text('{"name": "old", "process": {}}')
    with pytest.raises(ValueError, match="from before runs had a task: resume that run"):
        student(path).check(DATA, ADAM)
    (path / "config.json").write_text(json.dumps({"task": {"kind": "picture", "nets": {}}}))
    with pytest.raises(ValueError, match="unknown config field nets: did you mean net"):
        student(path).check(DATA, ADAM)


class Source:
    labels = ()

    def captions(self):
        return ["quite other words", "of the student"]

    def __len__(self):
        return 2

    def __getitem__(self, index):
        raise AssertionError("only the words are wanted")


def test_the_vocabulary_is_the_teachers(tmp_path):
    text = TextConfig(vocabulary=300, length=4, width=8, layers=1, heads=2)
    task = dataclasses.replace(
        PLAIN, condition="text", text=text, vocabulary=300, net=dataclasses.replace(NET, pooled=True)
    )
    path, words = run(tmp_path / "teacher", task), BytePair.learn(["red heart", "red hat"], 270)
    words.write(path / "vocabulary.json")
    own = dataclasses.replace(task, process=HALVING, teacher=path)
    assert own.assets(tmp_path, DATA, Source(), new=True).vocabulary == words
    assert BytePair.read(tmp_path / "vocabulary.json") == words
    assert dataclasses.replace(own, teacher=None).assets(tmp_path, DATA).vocabulary == words


def test_a_vocabulary_too_large_or_half_written_is_refused(tmp_path):
    text = TextConfig(vocabulary=262, length=4, width=8, layers=1, heads=2)
    task = dataclasses.replace(
        PLAIN, condition="text", text=text, vocabulary=262, net=dataclasses.replace(NET, pooled=True)
    )
    path = tmp_path / "vocabulary.json"
    BytePair.learn(["red heart", "red hat", "red hare"], 270).write(path)
    with pytest.raises(ValueError, match=r"vocabulary.json has 270 ids and task.text.vocabulary is 262"):
        task.assets(tmp_path, DATA)
    path.write_text(path.read_text()[:30])
    with pytest.raises(ValueError, match=r"vocabulary.json is damaged: .*: put it back, or train in another workdir"):
        task.assets(tmp_path, DATA)


@pytest.mark.parametrize(("process", "of"), [(HALVING, V), (MAPPING, EDM)], ids=["progressive", "consistency"])
def test_a_student_starts_as_its_teacher_is(tmp_path, monkeypatch, process, of):
    rng = np.random.default_rng(0)
    path = run(tmp_path / "teacher", dataclasses.replace(PLAIN, process=of))
    given = []

    def load(at, like):
        given.append((at, jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32) * 0.2, like)))
        return given[-1][1]

    monkeypatch.setattr(picture, "load_params", load)
    own = student(path, process)
    task = own.task(picture.Assets(4))
    batch = {"image": rng.integers(0, 256, (4, 4, 4, 3), dtype=np.uint8)}
    loaded = task.load(lambda shapes: jax.tree.map(lambda _: None, shapes))
    first = task.init(jax.random.key(0), loaded, batch)
    ((at, weights),) = given
    assert at == path
    same = lambda a, b: jax.tree.map(np.testing.assert_array_equal, a, b)
    same(first.params, weights)
    same({**first.frozen, **first.extra}["teacher"], weights)
    known = Known(first.frozen, first.extra, first.params, np.int32(0))
    loss, metrics, _ = jax.jit(task.loss)(first.params, known, batch, jax.random.split(jax.random.key(1), 4))
    assert np.isfinite(loss)
    assert {f"loss_q{n}" for n in range(4)} <= metrics.keys()
    # what is only sampled knows no teacher, and loads none
    alone = own.sampled().task(picture.Assets(4))
    assert alone.load(lambda shapes: shapes) == {}
    only = jax.eval_shape(alone.init, jax.random.key(0), {}, batch)
    assert (only.frozen, only.extra) == ({}, {})
    assert jax.tree.structure(only.params) == jax.tree.structure(weights)
