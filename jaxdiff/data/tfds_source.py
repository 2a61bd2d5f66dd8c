"""Any TFDS data set that has a feature of pictures, read at random from ArrayRecord without TensorFlow."""

import logging
from typing import Any

from jaxdiff.data import picture, prepare
from jaxdiff.data.config import DataConfig, Example

_CAPTIONS = ("caption", "text", "description", "title")
_LABELS = ("label", "group")


def names() -> list[str]:
    """All TFDS names, ours included."""
    import tensorflow_datasets as tfds

    import jaxdiff.data.builders.openmoji  # noqa: F401  registers the builder

    return tfds.list_builders(with_community_datasets=False)


class TfdsSource:
    """Pictures, captions and labels of a TFDS data set.

    The picture is the feature 'image', or the first of pictures. The caption is a text feature called caption, text,
    description or title; without one it is the name of the label's class. The label is a class feature called label or
    group, or the first of classes.

    Raises:
      ValueError: if the data set has no pictures or no such split, cannot be prepared, or if OpenMoji is asked for
        above 128 pixels.
    """

    def __init__(self, config: DataConfig):
        import tensorflow_datasets as tfds

        names()
        builder = prepare.prepared(_with_size(config), config.dir)
        features = builder.info.features
        self._image = _pick(features, tfds.features.Image, ("image",), any_name=True)
        if self._image is None:
            raise ValueError(f"data.name {config.name!r} has no feature of pictures: it has {', '.join(features)}")
        self._caption = _pick(features, tfds.features.Text, _CAPTIONS, any_name=False)
        self._label = _pick(features, tfds.features.ClassLabel, _LABELS, any_name=True)
        self.labels = tuple(features[self._label].names) if self._label else ()
        if not (self._caption or self.labels):
            logging.getLogger(__name__).warning("%s has no captions and no classes: all captions are ''", config.name)
        self._name, self._size = config.name, config.size
        decoders = {self._image: tfds.decode.SkipDecoding()}
        try:
            self._records = builder.as_data_source(split=config.split, decoders=decoders)
        except Exception as error:  # TFDS parses the text, and has errors of its own for what it cannot parse
            splits = ", ".join(builder.info.splits)
            why = " ".join(str(error).split())[:200]
            raise ValueError(f"data.split is {config.split!r}: {config.name} has {splits}, all; {why}") from error

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Example:
        return self.shaped(index, self._size, self._size)

    def shaped(self, index: int, height: int, width: int) -> Example:
        """An example whose picture is scaled and cut to another shape."""
        record = self._records[index]
        image = picture.decode(record[self._image], (height, width), f"{self._name}, example {index}")
        return Example(image=image, caption=self._caption_of(record), label=self._label_of(record))

    def sides(self, index: int) -> tuple[int, int]:
        """Height and width of a picture as it is."""
        look = picture.look(self._records[index][self._image], f"{self._name}, example {index}")
        return look.height, look.width

    def captions(self) -> list[str]:
        """All captions in order, without decoding a picture."""
        return [self._caption_of(record) for record in self._records]

    def _label_of(self, record: dict[str, Any]) -> int:
        label = int(record[self._label]) if self._label else 0
        if label < 0:
            raise ValueError("an example of this split has no class (label -1): choose another data.split")
        return label

    def _caption_of(self, record: dict[str, Any]) -> str:
        if self._caption:
            try:
                return record[self._caption].decode()
            except UnicodeDecodeError as error:
                raise ValueError(f"{self._name}: a caption is not UTF-8: {record[self._caption][:40]!r}") from error
        return self.labels[self._label_of(record)].replace("_", " ") if self.labels else ""


def _pick(features: Any, kind: type, preferred: tuple[str, ...], any_name: bool) -> str | None:
    """The key of a feature of this kind, preferred names first."""
    keys = [key for key, feature in features.items() if isinstance(feature, kind)]
    return next((key for key in preferred if key in keys), keys[0] if keys and any_name else None)


def _with_size(config: DataConfig) -> str:
    """OpenMoji is prepared at several sizes; take the next that is not below the wanted one."""
    from jaxdiff.data.builders.openmoji import SIZES

    name = config.name.removeprefix("tfds:")
    if name != "openmoji":
        return name
    if config.size > SIZES[-1]:
        raise ValueError(f"data.size is {config.size}: openmoji is drawn at up to {SIZES[-1]} pixels")
    return f"openmoji/{min(size for size in SIZES if size >= config.size)}"
