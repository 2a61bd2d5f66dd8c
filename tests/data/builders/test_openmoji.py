import re

import emoji
import numpy as np
import pytest
import tensorflow_datasets as tfds

from jaxdiff.data import DataConfig, open_source
from jaxdiff.data.builders.groups import GROUPS
from jaxdiff.data.builders.openmoji import caption_of, drawing_of

COLOURS = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1)}


@pytest.fixture(scope="module")
def pictures(data_dir):
    source = open_source(DataConfig(split="all", dir=data_dir))
    return {caption: source[i] for i, caption in enumerate(source.captions())}, source.labels


def test_all_named_pictures_are_there(data_dir, pictures):
    sizes = {split: len(open_source(DataConfig(split=split, dir=data_dir))) for split in ("train", "test")}
    assert sum(sizes.values()) == len(pictures[0]) == 3953
    assert 0.08 < sizes["test"] / 3953 < 0.12
    assert {"french fries", "woman scientist medium skin tone", "flag of Canada", "piñata"} <= set(pictures[0])


def test_no_twin_of_a_training_picture_is_held_out(data_dir):
    """Twins by code points: the same sequence once the five tone modifiers are gone."""
    characters = {caption_of(c, data["en"]): c for c, data in emoji.EMOJI_DATA.items()}
    drawings = {
        split: {
            re.sub("[\N{EMOJI MODIFIER FITZPATRICK TYPE-1-2}-\N{EMOJI MODIFIER FITZPATRICK TYPE-6}\ufe0f]", "", c)
            for c in map(characters.get, open_source(DataConfig(split=split, dir=data_dir)).captions())
        }
        for split in ("train", "test")
    }
    # what a bare tone swatch leaves is not a drawing; of two tones, a pair is drawn from two people instead of one sign
    assert drawings["train"] & drawings["test"] <= {""}


@pytest.mark.parametrize(
    ("caption", "twin"),
    [
        ("handshake", "handshake light skin tone medium-dark skin tone"),
        ("kiss", "kiss person person dark skin tone medium skin tone"),
        ("couple with heart", "couple with heart person person medium-light skin tone dark skin tone"),
        ("woman red hair", "woman medium skin tone red hair"),
    ],
)
def test_toned_names_fall_with_the_plain_one(caption, twin):
    assert drawing_of(twin) == drawing_of(caption) == caption


def test_pictures_show_what_their_captions_say(pictures):
    for colour, direction in COLOURS.items():
        for shape in ("circle", "heart", "square") if colour != "blue" else ("heart",):
            image = pictures[0][f"{colour} {shape}"]["image"].astype(float) / 255
            assert (image[0] == 1).all(), "the background is white"
            assert np.argmax(image[14:18, 14:18].mean((0, 1))) == np.argmax(direction), (colour, shape)


def test_groups(pictures):
    examples, labels = pictures
    assert labels == GROUPS
    group = {caption: labels[example["label"]] for caption, example in examples.items()}
    assert group["red heart"] == "smileys-emotion"
    assert group["woman scientist medium skin tone"] == "people-body"
    assert group["french fries"] == "food-drink"
    assert group["koala"] == "animals-nature"
    assert group["rocket"] == "travel-places"
    assert group["soccer ball"] == "activities"
    assert group["hammer"] == "objects"
    assert group["red circle"] == "symbols"
    assert {group[c] for c in group if c.startswith("flag of ")} == {"flags"}
    assert set(group.values()) == set(GROUPS)


def test_tfds_finds_the_builder_by_name(data_dir):
    builder = tfds.builder("openmoji/32", data_dir=data_dir)
    assert builder.info.features["image"].shape == (32, 32, 3)
    assert set(builder.builder_configs) == {"32", "64", "128"}
