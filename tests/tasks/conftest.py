"""A run that keeps a CLIP, for those that stand on one."""

import pytest
from tasks import test_clip_task
from tasks.clip_data import few

from jaxdiff.pretrained.write import write_directory
from jaxdiff.tasks import kept_clip
from jaxdiff.training import Variables


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A new run's folder, which keeps the CLIP of a directory."""
    path = tmp_path_factory.mktemp("kept")
    write_directory(
        test_clip_task.MODEL.bundle(test_clip_task.ASSETS, Variables(test_clip_task.weights())), path / "clip"
    )
    (path / "run").mkdir()
    kept_clip.keep(path / "run", path / "clip", few())
    return path / "run"


@pytest.fixture(scope="module")
def kept(run):
    return kept_clip.read(run)
