"""Damage to a checkpoint is found, whatever it is, and the one before is taken."""

import dataclasses
import shutil
import threading
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from test_checkpoint import assert_equal, make_state, shapes

from jaxdiff.training import CheckpointConfig, DamagedError, MismatchError, TrainState, load_params, manifest
from jaxdiff.training.checkpoint import Checkpoints, load_weights, steps


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A run with the checkpoints 1 and 2."""
    workdir = tmp_path_factory.mktemp("run")
    with Checkpoints(workdir) as checkpoints:
        for step in (1, 2):
            checkpoints.save(make_state(step), {"data": step}, {"loss": 1.0})
    return workdir


@pytest.fixture
def run(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "run")


def restore(workdir, like=None):
    with Checkpoints(workdir) as checkpoints:
        return checkpoints.restore(shapes(make_state(1)) if like is None else like)


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def largest(folder):
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << (at % 8)
    path.write_bytes(data)


def rewrite(change):
    return lambda path: path.write_bytes(change(path.read_bytes()))


DAMAGE = {
    "a flipped byte": (lambda c: largest(c / "ema_params" / "d"), lambda path: flip(path, 100), "changed: ema_params/"),
    "half a file": (lambda c: largest(c / "ema_params"), rewrite(lambda x: x[: len(x) // 2]), "changed: ema_params/"),
    "an empty file": (lambda c: largest(c / "state" / "d"), rewrite(lambda x: b""), "changed: state/d/"),
    "zeros": (lambda c: largest(c / "state" / "ocdbt.process_0"), rewrite(lambda x: bytes(len(x))), "changed: state/"),
    "a longer file": (lambda c: c / "run" / "metadata", rewrite(lambda x: x + b" "), "changed: run/metadata"),
    "no data file": (lambda c: largest(c / "ema_params"), lambda path: path.unlink(), "missing: ema_params/"),
    "no item": (lambda c: c / "state", shutil.rmtree, "missing: state/"),
    "another item": (
        lambda c: c / "ema_params",
        lambda path: shutil.rmtree(path) or shutil.copytree(path.parents[1] / "1" / "ema_params", path),
        "missing: ema_params/",
    ),
    "half a manifest": (lambda c: c / manifest.NAME, rewrite(lambda x: x[: len(x) // 2]), "not in manifest.sha256"),
    "a broken manifest": (lambda c: c / manifest.NAME, rewrite(lambda x: b"\xff" * len(x)), "manifest.sha256"),
    "an unreadable file": (
        lambda c: largest(c / "state"),
        lambda path: path.unlink() or path.mkdir(),
        "missing: state",
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_the_checkpoint_before_is_taken_and_the_damage_named(run, kind):
    place, harm, expected = DAMAGE[kind]
    harm(place(run / "checkpoints" / "2"))
    before = files(run)
    if "ema_params" in expected or "manifest" in expected:
        with pytest.warns(UserWarning, match=expected) as said:
            assert_equal(load_params(run), make_state(1).ema_params)
        assert f"{run / 'checkpoints' / '1'} is taken instead" in str(said[0].message)
        with pytest.raises(DamagedError, match=expected):
            load_params(run / "checkpoints" / "2")
    assert files(run) == before  # who only reads changes nothing
    with pytest.warns(UserWarning, match=expected):
        state, json_part = restore(run)
    assert_equal(state, make_state(1))
    assert json_part == {"data": 1}
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["1", "2.damaged"]
    with Checkpoints(run) as checkpoints:  # the step can be saved anew
        checkpoints.save(make_state(2), {"data": 2}, {})
    assert_equal(restore(run)[0], make_state(2))


def test_a_flipped_bit_anywhere_in_any_file_is_found(run):
    """In the two files that Orbax writes last it is harmless: nothing is read from them."""
    chance = np.random.default_rng(0)
    folder = run / "checkpoints" / "2"
    assert manifest.check(folder)
    for name in files(folder):
        whole = (folder / name).read_bytes()
        for at in chance.integers(len(whole), size=8):
            flip(folder / name, int(at))
            if name in manifest.UNLISTED - {manifest.NAME}:
                assert manifest.check(folder)
            else:
                with pytest.raises(DamagedError, match=r"changed|missing|manifest\.sha256"):
                    manifest.check(folder)
            (folder / name).write_bytes(whole)
    for name in manifest.UNLISTED - {manifest.NAME}:
        (folder / name).write_bytes(b"\0")
    assert_equal(restore(run)[0], make_state(2))


def test_where_none_is_whole_all_are_named_and_nothing_is_moved(run):
    for step in (1, 2):
        flip(largest(run / "checkpoints" / str(step) / "ema_params"), 7)
    before = files(run)
    for read in (restore, load_params):
        with pytest.raises(
            DamagedError, match=r"has no whole checkpoint: .*checkpoints/2 is .*checkpoints/1 is "
        ) as error:
            read(run)
        assert "\n" not in str(error.value)
    assert files(run) == before


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("tree", ["params", "ema_params"])
def test_weights_that_are_not_finite_are_damage(run, tree, value):
    state = make_state(3)
    getattr(state, tree)["out"]["kernel"] = getattr(state, tree)["out"]["kernel"].at[1, 1].set(value)
    with Checkpoints(run) as checkpoints:
        checkpoints.save(state, {}, {})
    expected = f"not finite: {tree}/out/kernel|not finite: out/kernel"
    if tree == "ema_params":
        with pytest.warns(UserWarning, match=expected):
            assert_equal(load_params(run), make_state(2).ema_params)
    with pytest.warns(UserWarning, match=expected):
        assert_equal(restore(run)[0], make_state(2))


def test_another_architecture_is_not_damage(run):
    other = shapes(make_state(1, {"conv": {"kernel": (3, 3)}}))
    with pytest.raises(MismatchError):
        restore(run, other)
    with pytest.raises(MismatchError):
        load_params(run, other.ema_params)
    assert steps(run / "checkpoints") == [1, 2]


def save_as_before(workdir, values):
    """Saves as the first version did: by Orbax' manager, three items, metrics, no manifest."""
    options = ocp.CheckpointManagerOptions(best_fn=lambda metrics: metrics["loss"], best_mode="min")
    with ocp.CheckpointManager(workdir / "checkpoints", options=options) as manager:
        for step, loss in values.items():
            state = make_state(step)
            rest = {name: getattr(state, name) for name in ("step", "params", "opt_state")}
            items = {"ema_params": ocp.args.StandardSave(state.ema_params), "state": ocp.args.StandardSave(rest)}
            args = ocp.args.Composite(**items, run=ocp.args.JsonSave({"data": step}))
            manager.save(step, args=args, metrics={"loss": loss})


def test_checkpoints_made_before_there_was_a_manifest_are_read_and_ranked(tmp_path):
    save_as_before(tmp_path, {1: 0.5, 2: 0.1, 3: 0.3})
    assert_equal(load_params(tmp_path), make_state(3).ema_params)
    with Checkpoints(tmp_path, CheckpointConfig(keep=1, best="loss")) as checkpoints:
        state, json_part = checkpoints.restore(shapes(make_state(3)))
        assert_equal(state, make_state(3))
        assert json_part == {"data": 3}
        checkpoints.save(make_state(4), {}, {"loss": 0.4})
    assert steps(tmp_path / "checkpoints") == [2, 4]


@pytest.mark.parametrize("change", [lambda x: bytes(len(x)), lambda x: x[: len(x) // 2], lambda x: b""])
@pytest.mark.parametrize("item", ["state", "ema_params"])
def test_without_a_manifest_what_cannot_be_read_is_damage_too(tmp_path, item, change):
    save_as_before(tmp_path, {1: 0.5, 2: 0.1})
    for path in (tmp_path / "checkpoints" / "2" / item).rglob("*"):
        if path.is_file():
            rewrite(change)(path)
    with pytest.warns(UserWarning, match=r"checkpoints/2 cannot be read"):
        assert_equal(restore(tmp_path)[0], make_state(1))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Wider(TrainState):
    """A train state with more fields, one of which is not saved."""

    extra: Any
    frozen: Any


def wider(state, extra, frozen):
    return Wider(state.step, state.params, state.opt_state, state.ema_params, extra, frozen)


@pytest.mark.parametrize("extra", [{}, {"codes": jnp.arange(6.0), "nested": {}}], ids=["empty", "codes"])
def test_fields_are_walked_and_frozen_ones_left_out(tmp_path, extra):
    state = wider(make_state(5), extra, {"teacher": jnp.ones(7)})
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state, {}, {})
    like = dataclasses.replace(shapes(state), frozen="as it was")
    restored, _ = restore(tmp_path, like)
    assert restored.frozen == "as it was"
    assert_equal(dataclasses.replace(restored, frozen=state.frozen), state)
    assert "teacher" not in "".join((tmp_path / "checkpoints" / "5" / "state" / "_METADATA").read_text())


def test_weights_and_what_was_moved_beside_them_are_of_one_checkpoint(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        for step in (1, 2):
            checkpoints.save(wider(make_state(step), {"codes": jnp.full(6, step)}, {}), {}, {})
    like, extra = shapes(make_state(1)).ema_params, {"codes": jax.ShapeDtypeStruct((6,), jnp.int32)}
    assert load_weights(tmp_path, like, extra)[1]["codes"][0] == 2
    flip(largest(tmp_path / "checkpoints" / "2" / "state" / "d"), 100)
    with pytest.warns(UserWarning, match="is taken instead"):
        params, moved = load_weights(tmp_path, like, extra)
    assert moved["codes"][0] == 1
    assert_equal(params, make_state(1).ema_params)


def test_a_field_that_came_later_may_be_missing_only_while_it_is_empty(run):
    state = make_state(2)
    restored, _ = restore(run, wider(shapes(state), {}, {}))
    assert_equal(restored, wider(state, {}, {}))
    with pytest.raises(MismatchError, match=r"1 missing from it: extra/codes \(2,\)"):
        restore(run, shapes(wider(state, {"codes": jnp.ones(2)}, {})))


def test_an_average_of_nothing_and_an_optimizer_without_state_are_saved(tmp_path):
    state = dataclasses.replace(make_state(1, optimizer=optax.sgd(0.1)), ema_params={})
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state, {}, {})
    assert_equal(restore(tmp_path, shapes(state))[0], state)


def test_a_save_returns_while_the_files_are_still_being_summed(tmp_path, monkeypatch):
    gate, at_work = threading.Event(), threading.Event()
    write = manifest.write

    def slow(folder):
        at_work.set()
        assert gate.wait(60)
        write(folder)

    monkeypatch.setattr(manifest, "write", slow)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(make_state(1), {}, {})
        assert at_work.wait(60)
        checkpoints.check()
        assert checkpoints.latest is None  # all its files are there, but not the manifest
        gate.set()
    assert manifest.check(tmp_path / "checkpoints" / "1")


def test_the_manifest_is_that_of_sha256sum(run):
    folder = run / "checkpoints" / "2"
    listed = dict(reversed(line.split("  ")) for line in (folder / manifest.NAME).read_text().splitlines())
    assert sorted(listed) == [name for name in files(folder) if name not in manifest.UNLISTED]
    assert (folder / "run" / "metadata").read_text() == '{"data": 2}'
    known = "bb06b9f1f7ad3492f1edf3e4b7bd547df55f1d0a2b17a9ac4cd2a07657037b50"  # by coreutils' sha256sum
    assert listed["run/metadata"] == known
