"""Files of tensors: the reference's safetensors, PyTorch's without its pickle, and memory."""

import pickle
import subprocess
import sys
import zipfile

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support import REFERENCE, same_tensors

from jaxdiff.pretrained import files, textual_inversion, torch_file


def test_safetensors_are_those_of_the_reference(tmp_path):
    tensors = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.array(3, np.int64),
        "c": np.zeros((0, 4), np.float16),
        "d": np.array([True, False]),
        "e": np.arange(4).astype(ml_dtypes.bfloat16),
    }
    files.write_safetensors(tmp_path / "ours.safetensors", tensors, {"note": "x"})
    same_tensors(load_file(tmp_path / "ours.safetensors"), tensors)
    assert files.metadata(tmp_path / "ours.safetensors") == {"format": "pt", "note": "x"}
    save_file(tensors, tmp_path / "theirs.safetensors")
    same_tensors(files.read_safetensors(tmp_path / "theirs.safetensors"), tensors)


def test_torch_files_are_read():
    base = np.arange(24, dtype=np.float32).reshape(4, 6)
    expected = {
        "plain": base,
        "transposed": base.T,
        "view": base[1:3, 2:5],
        "half": base.astype(np.float16),
        "bfloat": base.astype(ml_dtypes.bfloat16),
        "long": np.arange(5),
        "scalar": np.array(2.5, np.float32),
        "empty": np.zeros((0, 3), np.float32),
        "parameter": np.ones(2, np.float32),
    }
    same_tensors(torch_file.read(REFERENCE / "sd_tensors.bin"), expected)


class Evil:
    def __reduce__(self):
        return print, ("this code ran",)


def test_what_lies_around_the_tensors_is_left(tmp_path):
    read = torch_file.read(REFERENCE / "sd_nested.ckpt")
    same_tensors(read, {"a.weight": np.ones((2, 3), np.float32), "a.bias": np.zeros(2, np.float32)})
    word, vectors = textual_inversion.read(REFERENCE / "sd_word.pt")
    assert word == "sd_word"
    same_tensors(vectors, {"": np.ones((3, 4), np.float32)})


def test_a_pickle_that_runs_code_is_refused(tmp_path, capsys):
    with zipfile.ZipFile(tmp_path / "evil.bin", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"x": Evil()}, protocol=2))
    with pytest.raises(torch_file.UnsafeFileError, match="print, which could run anything"):
        files.read_tensors(tmp_path / "evil.bin")
    assert "this code ran" not in capsys.readouterr().out
    with zipfile.ZipFile(tmp_path / "cut.bin", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"x": 1}, protocol=2)[:-2])
    with pytest.raises(torch_file.UnsafeFileError, match="or is broken"):
        files.read_tensors(tmp_path / "cut.bin")
    (tmp_path / "old.bin").write_bytes(pickle.dumps({"x": 1}))
    with pytest.raises(torch_file.UnsafeFileError, match="not a file of PyTorch"):
        files.read_tensors(tmp_path / "old.bin")
    with pytest.raises(files.FileError, match="expected a file that ends in"):
        files.read_tensors(tmp_path / "x.gguf")


def test_files_from_before_zip_are_read_and_refused_alike(tmp_path):
    old = (REFERENCE / "metrics_old.pth").read_bytes()
    same_tensors(
        torch_file.read(REFERENCE / "metrics_old.pth"),
        {"a": np.arange(6, dtype=np.float32).reshape(2, 3).T, "b.c": np.arange(4, dtype=np.int64)[2:]},
    )
    magic = old[: old.index(b".") + 1]
    (tmp_path / "evil.pth").write_bytes(magic + pickle.dumps(1001, 2) + pickle.dumps({}, 2) + pickle.dumps(Evil(), 2))
    with pytest.raises(torch_file.UnsafeFileError, match="print, which could run anything"):
        torch_file.read(tmp_path / "evil.pth")
    (tmp_path / "cut.pth").write_bytes(old[:-1])
    with pytest.raises(torch_file.UnsafeFileError, match="numbers that a tensor"):
        [np.asarray(x) for x in torch_file.read(tmp_path / "cut.pth").values()]
    (tmp_path / "cut.pth").write_bytes(old[:300])
    with pytest.raises(torch_file.UnsafeFileError, match="or is broken"):
        torch_file.read(tmp_path / "cut.pth")


# {"w": _rebuild_tensor_v2(storage of 100,000 floats, offset 0, shape (100000,), stride (1,), ...)}, opcode by opcode
CLAIMS_MUCH = (
    b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
    b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuJ\xa0\x86\x01\x00tQK\x00J\xa0\x86\x01\x00\x85K\x01\x85\x89}tRs."
)


def test_a_storage_shorter_than_the_pickle_claims_is_refused_and_no_other_memory_is_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "short.bin", "w") as archive:
        archive.writestr("archive/data.pkl", CLAIMS_MUCH)
        archive.writestr("archive/data/0", bytes(4))
    tensors = torch_file.read(tmp_path / "short.bin")
    with pytest.raises(torch_file.UnsafeFileError, match="holds 1 of the 100000 numbers"):
        np.asarray(tensors["w"])


STREAM = """
import sys
import jax, numpy as np
from jaxdiff.pretrained import files
from jaxdiff.pretrained.read import placed
from jaxdiff.pretrained.rules import Rule, from_tensors
jax.device_put(np.zeros(3)).block_until_ready()
shapes = {f"m_{i}": {"kernel": jax.ShapeDtypeStruct((2048, 1024), np.float32)} for i in range(20)}
# not ru_maxrss, which starts at the size of the process that started this one
memory = lambda field: next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(field))
before = memory("VmRSS:")
params = from_tensors(files.read_tensors(sys.argv[1]), shapes, (Rule("m.{}", "m_{}", "dense"),), placed(shapes))
print((memory("VmHWM:") - before) / (20 * 2048 * 1024 * 4))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_is_below_a_fifth_more_than_the_file(tmp_path):
    tensor = np.ones((1024, 2048), np.float32)
    files.write_safetensors(tmp_path / "big.safetensors", {f"m.{i}.weight": tensor for i in range(20)})
    run = subprocess.run(
        [sys.executable, "-c", STREAM, str(tmp_path / "big.safetensors")], capture_output=True, text=True, check=True
    )
    assert 0.95 < float(run.stdout) < 1.2
