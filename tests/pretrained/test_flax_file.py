"""Files of Flax: read as Flax reads them, written as it can read; what is no such file is refused, and never run."""

import pickle

import flax.serialization
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.pretrained import flax_file
from jaxdiff.pretrained.files import FileError

RNG = np.random.default_rng(0)
TREE = {
    "model": {
        "layers": {"XLayers": {"q": {"kernel": RNG.normal(size=(3, 4, 5)).astype(np.float32)}}},
        "conv": {"kernel": RNG.normal(size=(3, 3, 2, 4)).astype(np.float16), "bias": np.zeros(4, np.float32)},
        "embed_tokens": {"embedding": RNG.normal(size=(7, 4)).astype(np.float32)},
        "norm": {"scale": np.asarray(jnp.asarray(RNG.normal(size=4), jnp.bfloat16))},
    },
    "empty": np.zeros((0, 3), np.float32),
}


def flat(tree, above=""):
    return {
        k: v
        for n, x in tree.items()
        for k, v in (flat(x, f"{above}{n}.") if isinstance(x, dict) else {above + n: x}).items()
    }


def equal(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, x in theirs.items():
        y = np.asarray(ours[name])
        assert (y.dtype, y.shape) == (x.dtype, x.shape)
        np.testing.assert_array_equal(y, x)


@pytest.fixture
def path(tmp_path):
    (tmp_path / "a.msgpack").write_bytes(flax.serialization.msgpack_serialize(TREE))
    return tmp_path / "a.msgpack"


def test_tensors_have_the_names_and_layouts_of_pytorch(path):
    layers = TREE["model"]["layers"]["XLayers"]["q"]["kernel"]
    model = TREE["model"]
    expected = {
        **{f"model.layers.XLayer_{i}.q.weight": layers[i].T for i in range(3)},
        "model.conv.weight": model["conv"]["kernel"].transpose(3, 2, 0, 1),
        "model.conv.bias": model["conv"]["bias"],
        "model.embed_tokens.weight": model["embed_tokens"]["embedding"],
        "model.norm.weight": model["norm"]["scale"],
        "empty": TREE["empty"],
    }
    equal(flax_file.read(path), expected)
    assert flax_file.is_stacked(path)


@pytest.mark.parametrize("stacked", [True, False])
def test_flax_reads_what_is_written(path, stacked, tmp_path):
    flax_file.write(tmp_path / "b", flax_file.read(path), stacked=stacked)
    found = flax.serialization.msgpack_restore((tmp_path / "b").read_bytes())
    if not stacked:
        layers = found["model"]["layers"]
        assert sorted(layers) == ["XLayer_0", "XLayer_1", "XLayer_2"]
        layers["XLayers"] = {"q": {"kernel": np.stack([layers.pop(f"XLayer_{i}")["q"]["kernel"] for i in range(3)])}}
    equal(flat(found), flat(TREE))
    assert flax_file.is_stacked(tmp_path / "b") == stacked


def test_arrays_that_flax_splits_are_joined(monkeypatch, tmp_path):
    monkeypatch.setattr(flax.serialization, "MAX_CHUNK_SIZE", 64)
    (tmp_path / "a").write_bytes(flax.serialization.msgpack_serialize({"a": {"bias": np.arange(100.0)}}))
    assert b"__msgpack_chunked_array__" in (tmp_path / "a").read_bytes()
    equal(flax_file.read(tmp_path / "a"), {"a.bias": np.arange(100.0)})


def test_a_file_that_ends_early_is_refused(path):
    whole = path.read_bytes()
    for size in [0, 1, *range(7, len(whole), 41), len(whole) - 1]:
        path.write_bytes(whole[:size])
        with pytest.raises(FileError):
            flax_file.read(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (pickle.dumps({"a": 1}), "not a file of Flax"),
        (b"\x81\xa1a\x05", "a is '5'|a is 5"),  # a number
        (b"\x81\xa1a\xc0", "begins with 0xc0"),  # nothing
        (b"\x81\xa1a\xc7\x02\x05xx", "extension that is not an array"),
        (b"\x81\xa1a\xc7\x0e\x01\x93\x91\x02\xa6object\xc4\x02xx", "extension that is not an array"),
        (b"\x81\xa1a\xc7\x0f\x01\x93\x91\x02\xa7float32\xc4\x02xx", "has 2 bytes"),
        (b"\x82\xa1a\x80\xa1a\x80", "each once"),
        (b"\x81\xa3a.b\x80", "expected texts, each once"),
        (b"\x81\xa1a" * 40 + b"\x80", "nested deeper"),
        (b"\xdf\xff\xff\xff\xff", "truncated"),
        (b"\x80\x80", "nothing after it"),
        (b"\x93\x01\x02\x03", "expected a map"),
    ],
)
def test_what_is_no_file_of_flax_is_refused(data, message, tmp_path):
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(FileError, match=message):
        flax_file.read(tmp_path / "a")
