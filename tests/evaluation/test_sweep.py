"""Samplers side by side, by the network calls that they make."""

import numpy as np
import pytest
from PIL import Image

from jaxdiff import sampling
from jaxdiff.diffusion import schedule
from jaxdiff.evaluation import sweep
from jaxdiff.metrics.bootstrap import Estimate


def count(sampler, steps):
    return sampling.make_table(sampler, schedule.cosine(), steps).calls


SAMPLERS = ("ddpm", "ddim", "dpmpp_2m", "unipc", "heun")


def test_no_sampler_makes_more_calls_than_asked_for():
    found = sweep.cells(SAMPLERS, (5, 10), count)
    assert [cell.wanted for cell in found] == [5] * 5 + [10] * 5
    for cell in found:
        assert cell.calls == sampling.make_table(cell.sampler, schedule.cosine(), cell.steps).calls <= cell.wanted
        assert sampling.make_table(cell.sampler, schedule.cosine(), cell.steps + 1).calls > cell.wanted
    # two calls a step but for the last
    assert [(cell.steps, cell.calls) for cell in found if cell.sampler == "heun"] == [(3, 5), (5, 9)]


def test_what_cannot_be_swept_is_named():
    with pytest.raises(ValueError, match="unknown sampler 'dimm'"):
        sweep.cells(["dimm"], [5], count)
    with pytest.raises(ValueError, match="expected 1 or more"):
        sweep.cells(["ddim"], [0], count)


def test_the_table_and_the_plot(tmp_path):
    rows = [
        (
            cell,
            {"d": Estimate(100 / cell.calls, 90 / cell.calls, np.nan if cell.sampler == "ddpm" else 110 / cell.calls)},
        )
        for cell in sweep.cells(("ddpm", "heun"), (5, 10), count)
    ]
    assert sweep.table(rows, "d") == (
        "| d | 5 calls | 10 calls |\n|---|---|---|\n| `ddpm` | 20 | 10 |\n| `heun` | 20 ± 2 | 11.11 ± 1.1 (9) |"
    )
    sweep.plot(rows, "d", tmp_path / "p.png", "title")
    assert Image.open(tmp_path / "p.png").size[0] > 300
