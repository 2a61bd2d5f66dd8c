"""Programs compiled for TPUs that are not here by their own compiler, libtpu: `pip install -e '.[tpu]'` first."""

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxdiff import parallel
from jaxdiff.cli.config import read_config
from jaxdiff.dryrun import compiled, subject
from jaxdiff.experiment import to_json
from jaxdiff.metrics import chips
from jaxdiff.nn.attention import attention
from jaxdiff.parallel import MeshSpec

pytestmark = pytest.mark.heavy

SMALL = ["openmoji32", "--small", "--data.size", "32", "--task.net.channels", "64", "--task.net.patch", "1"]
SMALL += ["--task.net.attention", "self"]
CHIPS = [
    "--dry-run",
    "--topology",
    "v5e:2x2",
    "--compile",
    "--mesh.data",
    "1",
    "--mesh.fsdp",
    "2",
    "--mesh.tensor",
    "2",
]


def say(command, *options):
    """Returns what a command prints, and the CPU seconds that it took."""
    before = os.times()
    environment = {**os.environ, "XLA_FLAGS": "", "JAX_COMPILATION_CACHE_DIR": ""}
    said = subprocess.run(
        [sys.executable, "-m", "jaxdiff", command, *options, *CHIPS],
        check=True,
        text=True,
        capture_output=True,
        env=environment,
    ).stdout
    now = os.times()
    return said, now.children_user + now.children_system - before.children_user - before.children_system


def test_a_step_and_a_sampling_program_compile_for_four_chips_in_five_minutes(tmp_path):
    """1,024 tokens attend in flash attention; the mesh splits the batch, the weights and the heads."""
    train, took = say("train", *SMALL)
    config = read_config(Path("openmoji32"), small=True)
    net = dataclasses.replace(config.task.net, channels=(64,), patch=1, attention=("self",))
    task, data = dataclasses.replace(config.task, net=net), dataclasses.replace(config.data, size=32)
    (tmp_path / "config.json").write_text(to_json(dataclasses.replace(config, task=task, data=data)))
    task.assets(tmp_path, data, subject.Nothing(32, 0), new=True)
    sample, more = say("sample", "--model", str(tmp_path), "--num", "4", "--steps", "2")
    print(f"{took:.0f} and {more:.0f} CPU seconds", train, sample, sep="\n")
    for said in (train, sample):
        assert re.search(r"compiled for v5e:2x2: [\d.]+ MiB on a device \(arguments .* temporaries ", said)
        assert re.search(r"collectives in the program: .*all-reduce", said)
        assert int(re.search(r"kernels of our own in the program, such as flash attention: (\d+)", said)[1]) > 0
    assert took + more < 300


def lowered(topology, spec, shape, kernel=None):
    """Returns attention of tokens among themselves in bfloat16, [b n h d], on a mesh of chips."""
    mesh = parallel.make_mesh(spec, compiled.devices(chips.parse(topology)))
    x = jax.ShapeDtypeStruct(shape, "bfloat16", sharding=NamedSharding(mesh, P(("data", "fsdp"), None, "tensor")))
    with jax.set_mesh(mesh):
        return jax.jit(lambda q, k, v: attention(q, k, v, kernel=kernel)).lower(x, x, x)


@pytest.mark.parametrize(
    ("topology", "spec"),
    [("v5e:2x2", MeshSpec(data=2, tensor=2)), ("v5e:16x16", MeshSpec(data=16, fsdp=16))],
    ids=["4 chips", "256 chips"],
)
@pytest.mark.parametrize(("tokens", "heads", "width"), [(4096, 8, 40), (1024, 8, 80), (4096, 10, 64), (1024, 20, 64)])
def test_attention_of_stable_diffusion_is_the_kernel_on_meshes(topology, spec, tokens, heads, width):
    """SD 1.5's two longest and SDXL's two, one example a group of chips: no scores are held, none is sent."""
    batch = spec.data * spec.fsdp
    made = compiled.compile(lowered(topology, spec, (batch, tokens, heads, width)), 0, lambda *_: None)
    sent, kernels = compiled.contents(made)
    scores = heads // spec.tensor * tokens**2 * 4
    assert kernels == 1
    assert not sent
    assert compiled.memory(made)["temporaries"] < scores / 4


def test_a_program_that_is_too_large_is_refused_with_the_numbers():
    program = lowered("v5e:2x2", MeshSpec(data=4), (256, 4096, 16, 64), "plain")
    with pytest.raises(compiled.TooLargeError, match=r"needs \d\d[\d.]* of 15\.75 GiB: the chip's own"):
        compiled.compile(program, 0, lambda *_: None)
