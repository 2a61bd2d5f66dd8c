"""Tars of webdataset and parquet of the hub: read at random, in one order, and named where they are damaged."""

import io
import json
import logging
import sys
import tarfile
import types

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from jaxdiff.data import DataConfig, batches, open_source
from jaxdiff.data.source import kind_of, open_shaped


def encoded(value, form="PNG", side=4):
    file = io.BytesIO()
    Image.new("RGB", (2 * side, side), (value, 0, 0)).save(file, form)
    return file.getvalue()


def write_tar(path, members):
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            content = content if isinstance(content, bytes) else str(content).encode()
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def examples(first, count):
    """Members of tars: a picture of its number, and its caption in one of the forms."""
    for i in range(first, first + count):
        yield f"{i:04d}.png" if i % 2 else f"{i:04d}.webp", encoded(i, "PNG" if i % 2 else "WEBP")
        if i % 3:
            yield f"{i:04d}.txt", f"number\n{i}"
        yield f"{i:04d}.json", json.dumps({"caption": f"number {i}", "width": 4})
        yield f"{i:04d}.cls", i % 5


def write_parquet(path, first, count, rows=3, names=True):
    image = [{"bytes": encoded(i), "path": None} for i in range(first, first + count)]
    columns = {"image": image, "text": [f"number {i}" for i in range(first, first + count)]}
    table = pa.table({**columns, "label": pa.array([i % 5 for i in range(first, first + count)], pa.int64())})
    feature = {"names": list("abcde"), "_type": "ClassLabel"}
    told = {b"huggingface": json.dumps({"info": {"features": {"label": feature}}}).encode()} if names else None
    pq.write_table(table.replace_schema_metadata(told), path, row_group_size=rows)


def folder(tmp_path, kind):
    """Two files of a split and one of another, with 11 and 3 examples."""
    for name, first, count in (("train-00000", 0, 6), ("train-00001", 6, 5), ("test-00000", 20, 3)):
        if kind == "tar":
            write_tar(tmp_path / f"{name}.tar", examples(first, count))
        else:
            write_parquet(tmp_path / f"{name}.parquet", first, count)
    return str(tmp_path)


def open_(name, **fields):
    return open_source(DataConfig(name=str(name), size=4, workers=0, **fields))


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_each_example_is_read_by_its_number(tmp_path, kind):
    name = folder(tmp_path, kind)
    for source in (open_(name), open_(name)):  # the second time by the index
        assert len(source) == 11
        assert source.labels == (tuple("01234") if kind == "tar" else tuple("abcde"))
        assert source.captions() == [f"number {i}" for i in range(11)]
        for i in (10, 0, 7):
            one = source[i]
            assert one["image"].shape == (4, 4, 3)
            assert abs(int(one["image"][0, 0, 0]) - i) <= 3  # WebP is lossy
            assert (one["caption"], one["label"]) == (f"number {i}", i % 5)
    assert [len(open_(name, split=split)) for split in ("test", "all")] == [3, 14]
    assert len(open_(f"{name}/train-*1.{kind}", split="all")) == 5
    assert open_shaped(DataConfig(name=name)).sides(1) == (4, 8)
    assert kind_of(name) == "shards"


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_the_batches_do_not_depend_on_the_number_of_processes(tmp_path, kind):
    source = open_(folder(tmp_path, kind))
    config = DataConfig(name=str(tmp_path), size=4, workers=0)
    make = lambda index, count: batches(source, config, batch_size=4, seed=1, process_index=index, process_count=count)
    whole, halves = make(0, 1), [make(index, 2) for index in range(2)]
    for _ in range(5):
        expected, parts = next(whole), [next(one) for one in halves]
        for name in ("index", "image", "label"):
            np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), expected[name])


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_a_bucket_is_read_where_it_lies(tmp_path, kind):
    fsspec = pytest.importorskip("fsspec")
    folder(tmp_path, kind)
    memory = fsspec.filesystem("memory")
    for path in tmp_path.glob(f"*.{kind}"):
        memory.pipe(f"/bucket-{kind}/{path.name}", path.read_bytes())
    for name in (f"memory://bucket-{kind}", f"memory://bucket-{kind}/train-*"):
        source = open_(name)
        assert source.captions() == [f"number {i}" for i in range(11)]
        assert source[6]["label"] == 1
        assert np.array_equal(source[7]["image"], open_(tmp_path)[7]["image"])
    with pytest.raises(ValueError, match=r"data.name is 'memory://nothing'.*no .parquet is there|cannot be read"):
        open_("memory://nothing")


@pytest.mark.parametrize("scheme", ["gs", "s3", "nonsense"])
def test_a_bucket_that_cannot_be_had_is_one_line(scheme, monkeypatch):
    with pytest.raises(ValueError, match=f"data.name is '{scheme}://b/x'.*jaxdiff.buckets|cannot be read") as error:
        open_(f"{scheme}://b/x")
    assert "\n" not in str(error.value)
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(ValueError, match=r"is not installed .*: pip install 'jaxdiff\[buckets\]'"):
        open_(f"{scheme}://b/x")


def test_a_bucket_without_credentials_is_one_line(monkeypatch, caplog):
    fsspec = pytest.importorskip("fsspec")

    class Denied:
        def find(self, path):
            logging.getLogger("gcsfs").exception("retries are over")
            raise PermissionError("Anonymous caller\ndoes not have storage.objects.list")

        glob = find

    core = types.SimpleNamespace(url_to_fs=lambda name: (Denied(), name))
    monkeypatch.setattr(fsspec, "core", core)
    for name in ("gs://b/x", "gs://b/*.tar"):
        with pytest.raises(ValueError, match=r"Anonymous caller does not .*are there credentials .gcloud auth"):
            open_(name)
    assert not caplog.records, "gcsfs tells nothing more, with a traceback"


PICTURE = encoded(1)
OUTSIDE = pa.struct({"bytes": pa.binary(), "path": pa.string()})


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("a.txt", "x"), ("b.png", PICTURE), ("b.txt", "y")], "1 of 2 examples have no picture: a"),
        ([("a.png", PICTURE), ("a.txt", "x"), ("b.png", PICTURE)], r"1 of 2 examples have no caption .*x.tar: b.png"),
        ([("a.png", PICTURE), ("a.cls", 1), ("b.png", PICTURE)], r"1 of 2 examples have no class .*x.tar: b.png"),
        ([("a.png", PICTURE), ("b.png", PICTURE), ("a.txt", "x")], "the members of a do not follow each other"),
        ([("a.png", PICTURE), ("a.jpg", PICTURE)], "a has a second picture, a.jpg"),
        ([("a.png", PICTURE), ("a.txt", "x"), ("a.txt", "y")], "a has a second txt"),
        ([("a.png", PICTURE), ("a.cls", "cat")], r"a.cls is b'cat': expected the number of a class"),
        ([("a.png", PICTURE), ("a.cls", -1)], r"a.cls is b'-1': expected the number"),
        ([("a.png", PICTURE), ("a.json", "{")], "a.json is damaged"),
        ([("a.txt", "x")], "1 of 1 examples have no picture"),
        ([], "no picture in data.name"),
    ],
)
def test_a_tar_with_odd_examples_is_refused_by_name(tmp_path, members, message):
    write_tar(tmp_path / "x.tar", members)
    with pytest.raises(ValueError, match=message):
        open_(tmp_path)


def test_damage_of_a_tar_is_found(tmp_path):
    write_tar(tmp_path / "whole.tar", examples(0, 4))
    data = (tmp_path / "whole.tar").read_bytes()
    (tmp_path / "whole.tar").unlink()
    header = data.index(b"0002.webp")
    for name, damaged in {
        "cut": data[: header + 700],
        "cut between members": data[:header],
        "a header is blank": data[:header] + bytes(300) + data[header + 300 :],
        "a bit of a header": data[:header] + bytes([data[header] ^ 1]) + data[header + 1 :],
        "empty": b"",
        "no tar": b"GIF89a" * 200,
    }.items():
        (tmp_path / "x.tar").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"x.tar is no tar, or damaged"):
            assert not open_(tmp_path), name
    (tmp_path / "x.tar").write_bytes(data.replace(encoded(1), encoded(1)[:20] + bytes(len(encoded(1)) - 20)))
    with pytest.raises(OSError, match=r"x.tar: 0001.png is not a picture, or damaged"):
        open_(tmp_path)[1]


def test_an_index_of_another_tar_is_not_used(tmp_path):
    write_tar(tmp_path / "x.tar", examples(0, 3))
    assert len(open_(tmp_path)) == 3
    write_tar(tmp_path / "x.tar", examples(0, 7))
    assert len(open_(tmp_path)) == 7
    (index,) = tmp_path.glob(".x.tar.index.npz")
    for damaged in (b"", index.read_bytes()[:200]):
        index.write_bytes(damaged)
        assert len(open_(tmp_path)) == 7


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": ["x"]}, r"no column of encoded pictures .*: it has text \(string\)"),
        ({"image": pa.array([{"path": "a.png"}], OUTSIDE), "text": ["x"]}, "names a file, a.png: write its bytes"),
        ({"image": [PICTURE], "text": pa.array([None], pa.string())}, "row 0 has no text"),
        ({"image": [PICTURE], "label": pa.array([None], pa.int64())}, "row 0 has no label"),
        ({"image": [PICTURE], "label": [-1]}, "a class is -1"),
        ({"image": [b"GIF"], "text": ["x"]}, "x.parquet, group 0, row 0 is not a picture"),
    ],
)
def test_parquet_with_odd_columns_is_refused_by_name(tmp_path, columns, message):
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    with pytest.raises((ValueError, OSError), match=message):
        open_(tmp_path)[0]


def test_damage_of_parquet_is_found(tmp_path):
    write_parquet(tmp_path / "x.parquet", 0, 4)
    data = (tmp_path / "x.parquet").read_bytes()
    for damaged in (b"", data[:-9], data[:100], b"GIF89a"):
        (tmp_path / "x.parquet").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"x.parquet is no parquet, or damaged"):
            open_(tmp_path)
    (tmp_path / "x.parquet").write_bytes(data[:4] + bytes(60) + data[64:])
    with pytest.raises(OSError, match=r"x.parquet, group 0"):
        open_(tmp_path)[0]
    (tmp_path / "x.parquet").write_bytes(data)
    pq.write_table(pa.table({"image": [PICTURE]}), tmp_path / "y.parquet")
    with pytest.raises(ValueError, match=r"y.parquet has not the columns of .*x.parquet: image, text, label differs"):
        open_(tmp_path)


def test_what_is_there_is_said_where_nothing_serves(tmp_path):
    (tmp_path / "readme.md").write_text("x")
    with pytest.raises(ValueError, match=r"no .tar and no .parquet is there, but 1 with .md"):
        open_(f"{tmp_path}/*")
    (tmp_path / "x.tar.gz").write_bytes(b"")
    with pytest.raises(ValueError, match="a compressed tar cannot be read at random"):
        open_(f"{tmp_path}/*")
    (tmp_path / "x.tar.gz").unlink()
    folder(tmp_path, "tar")
    with pytest.raises(ValueError, match=r"data.split is 'val': .* has train, test, and 'all'"):
        open_(tmp_path, split="val")
    write_parquet(tmp_path / "x.parquet", 0, 1)
    with pytest.raises(ValueError, match="has parquet and tar: give a pattern of one kind"):
        open_(tmp_path)
