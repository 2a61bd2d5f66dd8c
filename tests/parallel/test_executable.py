"""A compiled program as a file: it comes back as it was, and only for what it was compiled for."""

import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxdiff.parallel import MeshSpec, executable, make_mesh


def arguments(mesh, rows=4):
    at = NamedSharding(mesh, P(("data", "fsdp")))
    x = jax.ShapeDtypeStruct((rows, 3), jnp.float32, sharding=at)
    return {"x": x}, {"y": x}


def key_of(mesh, rows=4, program="one", kind="cpu"):
    return executable.key(program, arguments(mesh, rows), mesh, kind)


@pytest.fixture(scope="module")
def two():
    return make_mesh(MeshSpec(), jax.devices()[:2])


@pytest.fixture(scope="module")
def saved(two, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "sum.executable"
    given = arguments(two)
    made = executable.lower(lambda a, b: {"sum": a["x"] + b["y"]}, given, {"sum": given[0]["x"].sharding}).compile()
    executable.save(path, made, key_of(two), ["sum"])
    return path


READ = """
import jax, numpy as np
from test_executable import Path, arguments, executable, key_of, make_mesh, MeshSpec
mesh = make_mesh(MeshSpec(), jax.devices()[:2])
call, names = executable.load(Path({path!r}), key_of(mesh), (1, 1), tuple(mesh.devices.flat))
x = jax.device_put(np.arange(12, dtype=np.float32).reshape(4, 3), arguments(mesh)[0]["x"].sharding)
print(names, float(call([x], [x + 1])[0].sum()))
"""


def test_another_process_runs_it(saved):
    code = READ.format(path=str(saved))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parent, check=False
    )
    assert done.stdout.split("\n")[0] == "['sum'] 144.0", done.stderr


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda two: key_of(make_mesh(MeshSpec(fsdp=2), jax.devices()[:2])), "was saved for mesh .*'data': 2.*, here"),
        (lambda two: key_of(two, rows=8), "was saved for shapes .*, here"),
        (lambda two: key_of(two, program="two"), "was saved for program .*, here"),
        (lambda two: key_of(two, kind="TPU v5 lite"), "chip cpu, here TPU v5 lite"),
        (lambda two: key_of(two) | {"jax": "0.1"}, r"was saved for jax [\d.]+, here 0\.1: save it again"),
    ],
)
def test_what_it_was_not_compiled_for_is_refused_in_one_line(saved, two, other, message):
    with pytest.raises(executable.StaleError, match=message) as error:
        executable.load(saved, other(two), (1, 1), tuple(two.devices.flat))
    assert "\n" not in str(error.value)


def test_damage_is_told_and_so_is_what_is_no_executable(saved, two, tmp_path):
    path, load = tmp_path / "x", lambda path: executable.load(path, key_of(two), (1, 1), tuple(two.devices.flat))
    for damaged, message in ((saved.read_bytes()[:-5], "damaged"), (b"GIF89a", "is no executable")):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=message):
            load(path)
    with pytest.raises(FileNotFoundError, match="make it with --dry-run --save-executable"):
        load(tmp_path / "none")
