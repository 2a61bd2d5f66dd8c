"""A compiled program as a file: it comes back as it was, and only for what it was compiled for."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxdiff.parallel import MeshSpec, executable, make_mesh


def arguments(mesh, rows=8):
    at = NamedSharding(mesh, P(("data", "fsdp")))
    x = jax.ShapeDtypeStruct((rows, 3), jnp.float32, sharding=at)
    return {"x": x}, {"y": x}


def key_of(mesh, rows=8, program="one", kind="cpu"):
    return executable.key(program, arguments(mesh, rows), mesh, kind)


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(MeshSpec())


@pytest.fixture(scope="module")
def saved(mesh, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "sum.executable"
    given = arguments(mesh)
    with executable.uncached():
        made = executable.lower(lambda a, b: {"sum": a["x"] + b["y"]}, given, {"sum": given[0]["x"].sharding}).compile()
    executable.save(path, {"first": made, "sum": made}, key_of(mesh), {"names": ["sum"]})
    return path


READ = """
import jax, numpy as np
from test_executable import Path, arguments, executable, key_of, make_mesh, MeshSpec
mesh = make_mesh(MeshSpec())
saved = executable.read(Path({path!r}))
saved.check(key_of(mesh))
call, names = saved.load("sum", (1, 1)), saved.notes["names"]
x = jax.device_put(np.arange(24, dtype=np.float32).reshape(8, 3), arguments(mesh)[0]["x"].sharding)
print(names, float(call([x], [x + 1])[0].sum()))
"""


def test_another_process_runs_it(saved):
    code = READ.format(path=str(saved))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parent, check=False
    )
    assert done.stdout.split("\n")[0] == "['sum'] 576.0", done.stderr


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda mesh: key_of(make_mesh(MeshSpec(fsdp=2))), "was saved for mesh .*'data': 8.*, here"),
        (lambda mesh: key_of(mesh, rows=16), "was saved for shapes .*, here"),
        (lambda mesh: key_of(mesh, program="two"), "was saved for program .*, here"),
        (lambda mesh: key_of(mesh, kind="TPU v5 lite"), "chip cpu, here TPU v5 lite"),
        (lambda mesh: key_of(mesh) | {"jax": "0.1"}, r"was saved for jax [\d.]+, here 0\.1: save it again"),
        (lambda mesh: key_of(mesh) | {"source": "0"}, r"was saved for source [\da-f]{16}, here 0: save it again"),
    ],
)
def test_what_it_was_not_compiled_for_is_refused_in_one_line(saved, mesh, other, message):
    with pytest.raises(executable.StaleError, match=message) as error:
        executable.read(saved).check(other(mesh))
    assert "\n" not in str(error.value)


def test_another_number_of_devices_is_refused_before_anything_is_loaded(saved):
    read = executable.read(saved)
    less = dataclasses.replace(read, header={**read.header, "mesh": {"data": 2, "fsdp": 1, "tensor": 1}})
    with pytest.raises(executable.StaleError, match="was saved for 2 devices, here 8: save it again"):
        less.begin("sum")


def test_damage_is_told_and_so_is_what_is_no_executable(saved, tmp_path):
    path, load = tmp_path / "x", executable.read
    for damaged, message in ((saved.read_bytes()[:-5], "damaged"), (b"GIF89a", "is no executable")):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=message):
            load(path)
    with pytest.raises(FileNotFoundError, match="make it with --dry-run --save-executable"):
        load(tmp_path / "none")
