import numpy as np
import pytest
import tensorflow_datasets as tfds

from jaxdiff.data import DataConfig, open_source

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)


class MadeUpShapes(tfds.core.GeneratorBasedBuilder):
    """Pictures as arrays, an identifier that is not a caption, and text, classes or neither."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [  # noqa: RUF012
        tfds.core.BuilderConfig(name=name, description=name) for name in ("captioned", "classes", "bare", "unknown")
    ]

    def _info(self):
        features = {"id": tfds.features.Text(), "picture": tfds.features.Image(shape=(8, 8, 3))}
        if self.builder_config.name == "captioned":
            features["text"] = tfds.features.Text()
        if self.builder_config.name in ("classes", "unknown"):
            features["kind"] = tfds.features.ClassLabel(names=["red_square", "blue_circle"])
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for i, pixels in enumerate(PIXELS):
            kind = -1 if self.builder_config.name == "unknown" else i % 2
            row = {"id": f"id {i}", "picture": pixels, "text": f"shape {i} é", "kind": kind}
            yield i, {key: row[key] for key in self.info.features}


class MadeUpNumbers(tfds.core.GeneratorBasedBuilder):
    """No pictures."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({"x": np.int64}))

    def _split_generators(self, dl_manager):
        return {"train": iter([(0, {"x": 1})])}

    def _generate_examples(self):
        raise NotImplementedError


def opened(tmp_path, name):
    source = open_source(DataConfig(name=name, size=8, dir=str(tmp_path)))
    examples = [source[i] for i in range(len(source))]
    # TFDS writes in an order of its own: find each picture again by its pixels
    order = [next(i for i, p in enumerate(PIXELS) if np.array_equal(p, e["image"])) for e in examples]
    assert sorted(order) == list(range(6))
    assert source.captions() == [e["caption"] for e in examples]
    return source, dict(zip(order, examples, strict=True))


def test_a_text_feature_is_the_caption(tmp_path):
    source, examples = opened(tmp_path, "made_up_shapes/captioned")
    assert source.labels == ()
    assert all(examples[i]["caption"] == f"shape {i} é" and examples[i]["label"] == 0 for i in range(6))


def test_a_class_name_is_the_caption_where_there_is_no_text(tmp_path):
    source, examples = opened(tmp_path, "made_up_shapes/classes")
    assert source.labels == ("red_square", "blue_circle")
    assert [examples[i]["label"] for i in range(6)] == [0, 1] * 3
    assert [examples[i]["caption"] for i in range(6)] == ["red square", "blue circle"] * 3


def test_neither_text_nor_classes_warns(tmp_path, caplog):
    _, examples = opened(tmp_path, "made_up_shapes/bare")
    assert {e["caption"] for e in examples.values()} == {""}
    assert "no captions and no classes" in caplog.text


def test_an_example_without_a_class_is_refused(tmp_path):
    source = open_source(DataConfig(name="made_up_shapes/unknown", size=8, dir=str(tmp_path)))
    with pytest.raises(ValueError, match="has no class"):
        source[0]


def test_a_set_without_pictures_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'made_up_numbers' has no feature of pictures: it has x"):
        open_source(DataConfig(name="made_up_numbers", dir=str(tmp_path)))


def test_a_set_prepared_in_a_format_without_random_access_is_refused(tmp_path):
    open_source(DataConfig(name="made_up_shapes/bare", size=8, dir=str(tmp_path)))
    info = tmp_path / "made_up_shapes" / "bare" / "1.0.0" / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(ValueError, match=r"cannot open 'made_up_shapes/bare' for reading at random"):
        open_source(DataConfig(name="made_up_shapes/bare", size=8, dir=str(tmp_path)))


def test_cifar10_is_prepared_from_its_binary_files(tmp_path, monkeypatch):
    """TFDS's own builder, written for TensorFlow, on files in the published format: a class byte, then [3, 32, 32]."""
    rng = np.random.default_rng(0)
    binaries = tmp_path / "download" / "cifar-10-batches-bin"
    binaries.mkdir(parents=True)
    classes = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    (binaries / "batches.meta.txt").write_text("\n".join(classes))
    planes = {}
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        kinds, planes[name] = rng.integers(0, 10, 4, np.uint8), rng.integers(0, 256, (4, 3, 32, 32), np.uint8)
        planes[name][:, 0, 0, 0] = kinds
        (binaries / f"{name}.bin").write_bytes(np.hstack([kinds[:, None], planes[name].reshape(4, -1)]).tobytes())
    monkeypatch.setattr(tfds.download.DownloadManager, "download_and_extract", lambda self, url: tmp_path / "download")

    config = DataConfig(name="cifar10", dir=str(tmp_path / "tfds"), split="test")
    source = open_source(config)
    expected = {p.tobytes(): classes[p[0, 0, 0]] for p in planes["test_batch"]}
    assert {source[i]["image"].transpose(2, 0, 1).tobytes(): source[i]["caption"] for i in range(4)} == expected
    assert source.labels == tuple(classes)
    assert len(open_source(DataConfig(name="cifar10", dir=str(tmp_path / "tfds")))) == 20
