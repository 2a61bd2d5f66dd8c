"""preprocessor_config.json: how pictures are prepared for CLIP's image encoder; `image_clip.prepare` knows one way."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxdiff.models.image_clip import MEAN, STD
from jaxdiff.pretrained.files import read_json
from jaxdiff.pretrained.rules.fields import Field, brief, one_of, settle

HARMLESS = {
    "image_processor_type": "the class: all that are CLIP's do the same",
    "feature_extractor_type": "the same, of older files",
    "processor_class": "the same",
    "do_convert_rgb": "pictures have three channels here",
    "use_fast": "both kinds do the same",
    "data_format": "of calls from Python",
    "input_data_format": "of calls from Python",
    "return_tensors": "of calls from Python",
    "device": "of calls from Python",
}


def check(folder: Path, size: int) -> None:
    """Refuses a preparation of pictures that is another than CLIP's, in the size that the encoder takes.

    Args:
      folder: may have preprocessor_config.json; without it, nothing is said and nothing refused.
      size: side of the picture that the encoder takes.

    Raises:
      ValueError: names the fields.
    """
    file = folder / "preprocessor_config.json"
    if not file.is_file():
        return
    config = read_json(file)
    settle(str(file), config, _FIELDS, HARMLESS)
    for field in ("size", "crop_size"):
        if _side(config.get(field, size)) != size:
            raise ValueError(f"{file}: {field}={brief(config[field])}: the image encoder takes {size}x{size}")


def _near(numbers: tuple[float, ...]) -> Field:
    fits = lambda x: isinstance(x, list) and len(x) == len(numbers) and all(map(_close, x, numbers))
    return Field(numbers, f"CLIP's {list(numbers)}", fits)


def _close(x: Any, number: float) -> bool:
    return isinstance(x, int | float) and abs(x - number) < 1e-6


def _side(x: Any) -> Any:
    """Returns the side of a square or of a shorter side, as older and newer files say it; None: of neither."""
    if not isinstance(x, Mapping):
        return x
    sides = {*x.values()} if x.keys() in ({"shortest_edge"}, {"height", "width"}) else set()
    return sides.pop() if len(sides) == 1 else None


_SIZE = Field(224, "a side, {shortest_edge}, or {height, width} that are equal", lambda x: isinstance(_side(x), int))
_FIELDS = {
    "do_resize": one_of(True),
    "do_center_crop": one_of(True),
    "do_normalize": one_of(True),
    "do_rescale": one_of(True),
    "resample": one_of(3),
    "rescale_factor": Field(1 / 255, "1/255", lambda x: _close(x, 1 / 255)),
    "image_mean": _near(MEAN),
    "image_std": _near(STD),
    "size": _SIZE,
    "crop_size": _SIZE,
}
