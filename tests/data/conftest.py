"""OpenMoji at 32 pixels, prepared once for all workers, which tries the lock too; and a source of made-up pictures."""

import numpy as np
import pytest

from jaxdiff.data import DataConfig, Example, open_source


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if base.name.startswith("popen-") else base) / "tfds"
    open_source(DataConfig(dir=str(folder)))
    return str(folder)


class Numbers:
    """n pictures, none its own mirror image; picture i holds the value i and is called 'number i'."""

    labels = ("even", "odd")

    def __init__(self, n: int):
        self.reads = 0
        self._n = n

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, index: int) -> Example:
        self.reads += 1
        image = np.full((4, 4, 3), index % 256, np.uint8)
        image[:, 0] = 255
        return Example(image=image, caption=f"number {index}", label=index % 2)

    def captions(self) -> list[str]:
        return [f"number {i}" for i in range(self._n)]


@pytest.fixture
def numbers():
    return Numbers
