"""Digits of scikit-learn: their splits, levels and sides, by a package that stands in for it; what is refused."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from jaxdiff.data import digits, open_source
from jaxdiff.data.config import DataConfig


@pytest.fixture
def package(monkeypatch):
    """load_digits() as scikit-learn has it: images of 0 to 16 in float64, and targets."""
    rng = np.random.default_rng(0)
    told = SimpleNamespace(images=rng.integers(0, 17, (1797, 8, 8)).astype(float), target=rng.integers(0, 10, 1797))
    module = ModuleType("sklearn")
    module.datasets = SimpleNamespace(load_digits=lambda: told)
    monkeypatch.setitem(sys.modules, "sklearn", module)
    monkeypatch.setattr(digits.importlib.util, "find_spec", lambda name: name)
    return told


def test_every_digit_is_in_one_split_with_its_class_and_its_levels(package):
    parts = {split: open_source(DataConfig(name="digits", size=8, split=split)) for split in ("train", "test", "all")}
    assert [len(one) for one in parts.values()] == [1500, 297, 1797]
    seen = np.stack([parts[split][i]["image"] for split in ("train", "test") for i in range(len(parts[split]))])
    order = np.random.default_rng(0).permutation(1797)
    np.testing.assert_array_equal(np.rint(seen[..., 1] * (16 / 255)), package.images[order])
    assert (seen.min(), seen.max()) == (0, 255)
    assert [parts["test"][i]["label"] for i in range(297)] == package.target[order[1500:]].tolist()
    assert parts["all"].captions()[5] == str(package.target[order[5]])
    large = open_source(DataConfig(name="digits", size=16, split="test"))[3]["image"]
    np.testing.assert_array_equal(large[::2, 1::2], parts["test"][3]["image"])


@pytest.mark.parametrize(
    ("fields", "message"), [({"split": "valid"}, "expected train, test or all"), ({"size": 12}, "a multiple of 8")]
)
def test_other_splits_and_sides_are_refused(fields, message, package):
    with pytest.raises(ValueError, match=message):
        open_source(DataConfig(**{"name": "digits", "size": 8, "split": "train", **fields}))


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(digits.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'jaxdiff\[digits\]'"):
        open_source(DataConfig(name="digits", size=8))
