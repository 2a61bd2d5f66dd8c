"""A run of two processes: both enter the programs of training, held-out loss and previews, and the first one writes."""

import json
import pathlib

import pytest
from PIL import Image
from together import finish, start

from jaxdiff import experiment


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["autoregressive", pytest.param("picture", marks=pytest.mark.heavy)])
def test_two_processes_train_measure_and_draw_previews(tmp_path, kind):
    (tmp_path / "pictures").mkdir()
    for i in range(8):
        Image.new("RGB", (8, 8), (30 * i, 0, 0)).save(tmp_path / "pictures" / f"{i}.png")
        (tmp_path / "pictures" / f"{i}.txt").write_text("red" if i % 2 else "blue")
    finish(start(pathlib.Path(__file__).with_name("run_of_two.py"), tmp_path, kind))
    assert (tmp_path / "said1.txt").read_text() == "done 2"  # the second process says nothing else
    folder = tmp_path / "run"
    (previews,) = (folder / "samples").iterdir()
    assert sorted(path.name for path in previews.iterdir()) == ["000001.png", "000002.png"]
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    assert all("ema_loss" in line for line in lines)
    assert (experiment.open_run(folder).assets.vocabulary is not None) if kind == "picture" else True
    assert not list(folder.glob(".*.part"))
