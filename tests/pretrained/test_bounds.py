"""Files that were made or damaged to do harm: refused in one line before they cost memory, and never read in part."""

import json
import pickle
import tracemalloc
import zipfile

import ml_dtypes
import numpy as np
import pytest

from jaxdiff.pretrained import files, torch_file
from jaxdiff.pretrained.rules import Rule, TensorError, few, from_tensors


def one_line(error, words):
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600


def test_a_file_that_would_unpack_to_more_than_it_is_is_refused_at_once(tmp_path):
    path = tmp_path / "bomb.ckpt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}, 2))
        archive.writestr("archive/data/0", bytes(50 * 2**20))
    assert path.stat().st_size < 10**5
    tracemalloc.start()
    with pytest.raises(torch_file.UnsafeFileError) as error:
        files.read_tensors(path)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
    one_line(error, "would unpack to")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (b"\x80\x02}r\xff\xff\xff\x7f.", "stores value 2147483647 after 2 steps"),  # a memo of 2^31 places
        (b"\x80\x04\x8e\x00\x00\x00\x00\x10\x00\x00\x00.", "or is broken"),  # bytes of 64 GiB
        (b"\x80\x02" + b"(" * 10**5, "or is broken"),
        (b"\x80\x02]q\x00.", "holds a list, expected a dictionary"),
        (b"\x80\x02K\x01.", "holds a int, expected a dictionary"),
        (b"not a pickle at all", "or is broken"),
    ],
)
def test_a_pickle_that_asks_for_much_or_is_none(tmp_path, code, words):
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("archive/data.pkl", code)
    with pytest.raises(torch_file.UnsafeFileError) as error:
        files.read_tensors(tmp_path / "x.pt")
    one_line(error, words)


def tensor(shape, stride, count=4):
    """A pickle of {"w": a tensor of these numbers}, opcode by opcode."""
    number = lambda n: b"J" + int(n).to_bytes(4, "little", signed=True)
    numbers = lambda ns: b"(" + b"".join(map(number, ns)) + b"t"
    storage = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu" + number(count)
    rebuilt = (
        b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"tQK\x00" + numbers(shape) + numbers(stride) + b"\x89}tR"
    )
    return b"\x80\x02}X\x01\x00\x00\x00w" + rebuilt + b"s.", b"\x80\x02" + rebuilt + b"."


@pytest.mark.parametrize(
    ("shape", "stride", "words"),
    [((2**30, 4), (0, 1), "repeats its storage"), ((5,), (1,), "reaches beyond"), ((-1,), (1,), "reaches beyond")],
)
def test_tensors_that_are_more_than_their_storage(tmp_path, shape, stride, words):
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("archive/data.pkl", tensor(shape, stride)[0])
        archive.writestr("archive/data/0", bytes(16))
    with pytest.raises(torch_file.UnsafeFileError) as error:
        files.read_tensors(tmp_path / "x.pt")
    one_line(error, words)


def test_a_bare_tensor_and_a_lost_storage_are_told(tmp_path):
    whole, bare = tensor((2, 2), (2, 1))
    for name, code in (("bare", bare), ("lost", whole)):
        with zipfile.ZipFile(tmp_path / f"{name}.pt", "w") as archive:
            archive.writestr("archive/data.pkl", code)
    with pytest.raises(torch_file.UnsafeFileError) as error:
        files.read_tensors(tmp_path / "bare.pt")
    one_line(error, "holds one tensor (2, 2) without a name")
    with pytest.raises(torch_file.UnsafeFileError) as error:
        np.asarray(files.read_tensors(tmp_path / "lost.pt")["w"])
    one_line(error, "storage 0 cannot be read")


F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
HEADERS = [
    ([1, 2], "its header is a list"),
    ("text", "its header is a str"),
    ({"a": 5}, "a is of dtype None"),
    ({"a": {**F32, "dtype": "F128"}}, "a is of dtype F128, known are F64"),
    ({"a": {**F32, "dtype": ["F32"]}}, "a is of dtype ['F32']"),
    ({"a": {**F32, "shape": "2"}}, "a has shape 2"),
    ({"a": {**F32, "shape": [2.0]}}, "expected whole numbers of at least 0"),
    ({"a": {**F32, "shape": [-2]}}, "expected whole numbers of at least 0"),
    ({"a": {**F32, "shape": [True]}}, "expected whole numbers of at least 0"),
    ({"a": {**F32, "data_offsets": [-8, 0]}}, "expected whole numbers of at least 0"),
    ({"a": {**F32, "data_offsets": [0]}}, "expected whole numbers of at least 0"),
    ({"a": {**F32, "data_offsets": [8, 0]}}, "needs 8 bytes, not -8"),
    ({"a": {**F32, "shape": [2**32, 2**32], "data_offsets": [0, 0]}}, "needs 73786976294838206464 bytes, not 0"),
    ({"a": {**F32, "data_offsets": [8, 16]}}, "a begins at byte 8, and what is before it ends at 0"),
    ({"a": F32, "b": F32}, "b begins at byte 0, and what is before it ends at 8"),
    ({"a": F32}, "but its tensors end at"),
    ({"a": {**F32, "shape": [20], "data_offsets": [0, 80]}}, "is truncated"),
    ({"a" * 10**5: {**F32, "dtype": "F128"}}, "is of dtype F128"),
]


@pytest.mark.parametrize(("header", "words"), HEADERS)
def test_malformed_headers(tmp_path, header, words):
    text = json.dumps(header).encode()
    (tmp_path / "x.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(16))
    with pytest.raises(files.FileError, match=r"x\.safetensors") as error:
        files.read_tensors(tmp_path / "x.safetensors")
    one_line(error, words)


def test_headers_that_are_not_json_or_deep_or_long(tmp_path):
    path = tmp_path / "x.safetensors"
    for text in (b"\xff" * 20, b"[" * 10**5, b"{"):
        path.write_bytes(len(text).to_bytes(8, "little") + text)
        with pytest.raises(files.FileError, match="not a safetensors file"):
            files.read_tensors(path)
    path.write_bytes((2**60).to_bytes(8, "little") + bytes(16))
    with pytest.raises(files.FileError, match="truncated or not a safetensors"):
        files.read_tensors(path)
    text = json.dumps({"__metadata__": {"a": 1}, "a": F32}).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(8))
    with pytest.raises(files.FileError, match="expected strings by name"):
        files.metadata(path)


@pytest.mark.parametrize(
    ("index", "words"),
    [
        ({"weight_map": {"a": "../model.safetensors"}}, "expected the name of a file beside it"),
        ({"weight_map": {"a": "/etc/model.safetensors"}}, "expected the name of a file beside it"),
        ({"weight_map": {"a": "sub/model.safetensors"}}, "expected the name of a file beside it"),
        ({"weight_map": {"a": "..\\model.safetensors"}}, "expected the name of a file beside it"),
        ({"weight_map": {"a": ".."}}, "expected the name of a file beside it"),
        ({"weight_map": {"a": ""}}, "expected the name of a file beside it"),
        ({"weight_map": {"a": 3}}, "has no weight_map"),
        ({"weight_map": [1]}, "has no weight_map"),
        ({}, "has no weight_map"),
        ([], "holds a list, expected an object"),
        ({"weight_map": {f"a{i}": "model-1.safetensors" for i in range(99)}}, "a0, a1, a10"),
    ],
)
def test_malformed_indexes(tmp_path, index, words):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    for place in (tmp_path / "model.safetensors", folder / "model-1.safetensors"):
        files.write_safetensors(place, {"w": np.zeros(2, np.float32)})
    with pytest.raises(files.FileError, match=r"index\.json") as error:
        files.read_weights(folder)
    one_line(error, words)


@pytest.mark.parametrize(
    "dtype",
    [np.float64, np.float32, np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2],
)
@pytest.mark.parametrize("at", [0, 7, 2**20 + 3])
def test_a_number_that_is_not_finite_is_found_in_any_dtype(tmp_path, dtype, at):
    x = np.ones((1025, 1024), dtype)
    shapes = {"m": {"kernel": np.zeros((1024, 1025), np.float32)}}
    rules = (Rule("module", "m", "dense"),)
    files.write_safetensors(tmp_path / "x.safetensors", {"module.weight": x})
    from_tensors(files.read_tensors(tmp_path / "x.safetensors"), shapes, rules)
    x.reshape(-1)[at] = np.nan
    files.write_safetensors(tmp_path / "x.safetensors", {"module.weight": x})
    with pytest.raises(TensorError) as error:
        from_tensors(files.read_tensors(tmp_path / "x.safetensors"), shapes, rules)
    one_line(error, "module.weight is damaged: 1 of its 1049600 numbers are not finite")


def test_infinity_is_found_and_whole_numbers_pass():
    rules = (Rule("module", "m", "same"),)
    shapes = {"m": np.zeros(3)}
    for x, wrong in ((np.float16([1, np.inf, 2]), True), (np.int64([1, 2, 3]), False)):
        if wrong:
            with pytest.raises(TensorError, match="1 of its 3 numbers"):
                from_tensors({"module": x}, shapes, rules)
        else:
            np.testing.assert_array_equal(from_tensors({"module": x}, shapes, rules)["m"], x)


def test_long_lists_are_cut():
    names = [f"down_blocks.{i}.weight" for i in range(10**4)]
    assert few(names) == ", ".join(names[:10]) + " and 9990 more"
    assert few(names[:3]) == ", ".join(names[:3])
    assert len(few(["x" * 10**6] * 5)) < 600
    tensors = {name: np.zeros(2) for name in names}
    with pytest.raises(TensorError) as error:
        from_tensors(tensors, {"m": np.zeros(3)}, (Rule("module", "m", "same"),))
    one_line(error, "10001 tensors do not fit this model: missing: module (3,), unexpected: down_blocks.0.weight (2,)")
