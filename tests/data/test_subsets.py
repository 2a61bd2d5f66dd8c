import pytest

from jaxdiff.data import DataConfig, open_source
from jaxdiff.data.subsets import QUICKSTART

COLOURS = ["red", "orange", "yellow", "green", "blue", "purple", "brown", "black", "white", "pink", "grey"]


@pytest.mark.parametrize(("subset", "size"), [("all", 3953), ("plain", 1659), ("quickstart", 181)])
def test_sizes(data_dir, subset, size):
    captions = open_source(DataConfig(subset=subset, split="all", dir=data_dir)).captions()
    assert len(captions) == len(set(captions)) == size
    if subset == "plain":
        assert not [c for c in captions if "skin tone" in c or c.startswith("flag of")]
    if subset == "quickstart":
        assert set(captions) == QUICKSTART


def test_quickstart_names_63_colours():
    assert sum(any(colour in name.split() for colour in COLOURS) for name in QUICKSTART) == 63
