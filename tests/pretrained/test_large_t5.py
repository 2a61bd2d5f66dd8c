"""T5-XXL's encoder, layers of the published size: what loading it takes of the host, and of each of eight devices."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from jaxdiff.pretrained.rules import t5, to_tensors

XXL = {
    "architectures": ["T5EncoderModel"],
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_heads": 64,
    "num_layers": 24,
    "vocab_size": 32128,
    "feed_forward_proj": "gated-gelu",
}
LAYERS = 3
"""Of the 24: all are alike."""
LOAD = """
import json, sys, jax, numpy as np
from jaxdiff.parallel import MeshSpec, make_mesh, param_shardings
from jaxdiff.pretrained.read import read_component
memory = lambda field: next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(field))
mesh = make_mesh(MeshSpec(fsdp=8))
jax.device_put(np.zeros(3)).block_until_ready()
before = memory("VmRSS:")
part = read_component(sys.argv[1], shardings=lambda shapes: param_shardings(shapes, mesh))
held = {device.id: 0 for device in jax.devices()}
for leaf in jax.tree.leaves(part.params):
    for shard in leaf.addressable_shards:
        held[shard.device.id] += shard.data.nbytes
print(json.dumps({"rise": memory("VmHWM:") - before, "held": list(held.values())}))
"""


def sparse_shards(folder, layers):
    """A directory with weights of zeros in two shards, which take no room on a disk; returns one.s size and both.s."""
    config = {**XXL, "num_layers": layers}
    net = t5.config(config)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, np.float16), t5.shapes(net, config))
    sizes = {
        name: (list(x.shape), 2 * int(np.prod(x.shape)))
        for name, x in to_tensors(shapes, t5.rules(net, config)).items()
    }
    half, shards = sum(size for _, size in sizes.values()) / 2, ({}, {})
    for name, entry in sizes.items():
        shards[sum(size for _, size in shards[0].values()) + entry[1] > half][name] = entry
    places = {}
    for n, shard in enumerate(shards, 1):
        header, end = {}, 0
        for name, (shape, size) in shard.items():
            header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
            end += size
        text = json.dumps(header).encode()
        file = folder / f"model-{n:05d}-of-00002.safetensors"
        file.write_bytes(len(text).to_bytes(8, "little") + text)
        os.truncate(file, 8 + len(text) + end)
        places |= dict.fromkeys(shard, file.name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    (folder / "config.json").write_text(json.dumps(config))
    return max(file.stat().st_size for file in folder.glob("*.safetensors")), sum(size for _, size in sizes.values())


@pytest.mark.heavy
def test_the_host_needs_less_than_a_shard_and_each_device_less_than_a_sixth(tmp_path):
    shard, whole = sparse_shards(tmp_path, LAYERS)
    env = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    run = subprocess.run(
        [sys.executable, "-c", LOAD, str(tmp_path)], env=env, stdout=subprocess.PIPE, text=True, check=True
    )
    made = json.loads(run.stdout)
    # virtual devices hold their parts in the host's memory too
    host = made["rise"] - sum(made["held"])
    told = {"shard": shard, "host": host, "device": max(made["held"]), "whole": whole}
    print({name: f"{size / 1e9:.3f} GB" for name, size in told.items()})
    assert host < 1.1 * shard
    assert max(made["held"]) < whole / 6
