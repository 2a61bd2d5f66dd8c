"""Pairs of pictures."""

import numpy as np
import pytest

from jaxdiff.evaluation import pairs, report
from jaxdiff.evaluation.pictures import Pictures
from jaxdiff.metrics import pixels

RNG = np.random.default_rng(0)
X, Y = (RNG.integers(0, 256, (19, 16, 16, 3), np.uint8) for _ in range(2))
NAMES = [f"{i}.png" for i in range(19)]
MADE, REAL = (Pictures(name, (16, 16), 19, lambda i, x=x: x[i], NAMES) for name, x in (("made", X), ("real", Y)))


def test_the_means_over_all_pairs():
    got = pairs.compare(("psnr", "ssim"), MADE, REAL, batch_size=1, resamples=10)
    np.testing.assert_allclose(got["PSNR"].value, pixels.psnr(X, Y).mean())
    np.testing.assert_allclose(got["SSIM"].value, pixels.ssim(X, Y).mean())
    assert got["SSIM"].low < got["SSIM"].value < got["SSIM"].high


def test_pairs_that_are_equal_have_an_infinite_psnr_and_no_interval():
    got = pairs.compare(("psnr", "ssim"), MADE, MADE, batch_size=1, resamples=10)
    assert report.as_json(got)["PSNR"] == {"value": "inf", "low": None, "high": None}
    assert got["SSIM"].high <= 1
    assert "| PSNR | inf |  |" in report.markdown(got)


def test_the_interval_of_ssim_ends_at_one():
    nearly = Pictures("nearly", (16, 16), 19, lambda i: X[i] if i else Y[i], NAMES)  # one pair of 19 is unlike
    got = pairs.compare(("ssim",), nearly, MADE, batch_size=1, resamples=50)["SSIM"]
    assert got.low < got.value < got.high == 1.0


def test_sets_that_are_no_pairs_are_refused():
    with pytest.raises(ValueError, match="19 of 16x16 in made and 18 of 16x16 in real"):
        pairs.check(MADE, Pictures("real", (16, 16), 18, lambda i: Y[i], NAMES[:18]))
    with pytest.raises(ValueError, match=r"in one only: 18\.png, x\.png"):
        pairs.check(MADE, Pictures("real", (16, 16), 19, lambda i: Y[i], [*NAMES[:18], "x.png"]))


def test_missing_weights_of_lpips_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXDIFF_WEIGHTS", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"alexnet-owt-7be5be79\.pth"):
        pairs.compare(("lpips",), MADE, REAL)
