"""Features of a set, and what numbers of them are called."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.evaluation import report
from jaxdiff.evaluation.config import COMPARED
from jaxdiff.evaluation.networks import FeatureExtractor, FeatureNetwork, Features, network
from jaxdiff.evaluation.pictures import Pictures
from jaxdiff.metrics import statistics

PIXELS = np.random.default_rng(0).integers(0, 256, (37, 4, 4, 3), np.uint8)
SET = Pictures("set", (4, 4), 37, lambda i: PIXELS[i])
MEANS = FeatureNetwork(
    "mean colour",
    ("3",),
    lambda params, x: {"3": x.astype(jnp.float32).mean((1, 2)) * params["gain"], "logits_unbiased": x[:, 0, 0] * 1.0},
    {"gain": np.float32(2)},
    {},
)


def test_a_set_is_seen_in_order_and_whole():
    counts = []
    seen = FeatureExtractor(MEANS, "3", logits=True, batch_size=2)(SET, report=counts.append)
    expected = 2 * PIXELS.mean((1, 2))
    np.testing.assert_allclose(seen.values, expected, rtol=1e-6)
    np.testing.assert_array_equal(seen.logits, PIXELS[:, 0, 0])
    np.testing.assert_allclose(seen.moments.covariance, np.cov(expected.T), rtol=1e-5)
    assert counts == [16, 32, 37]
    stream = FeatureExtractor(MEANS, "3", batch_size=2)(SET, keep=False)
    assert stream.values is None
    np.testing.assert_array_equal(stream.moments.covariance, seen.moments.covariance)


def test_features_are_kept_while_pictures_and_weights_stay_the_same(tmp_path):
    look = FeatureExtractor(MEANS, "3", logits=True, batch_size=2)
    reads = []
    counted = dataclasses.replace(SET, read=lambda i: reads.append(i) or PIXELS[i], stamp="a")
    for pictures, expected in ((counted, 37), (counted, 37), (dataclasses.replace(counted, stamp="b"), 74)):
        seen = look(pictures, folder=tmp_path / "features")
        assert len(reads) == expected
        np.testing.assert_allclose(seen.values, 2 * PIXELS.mean((1, 2)), rtol=1e-6)
        np.testing.assert_array_equal(seen.logits, PIXELS[:, 0, 0])
        assert seen.moments.count == 37
    other = FeatureExtractor(dataclasses.replace(MEANS, origin={"sha256": "f00"}), "3", logits=True, batch_size=2)
    other(counted, folder=tmp_path / "features")
    assert len(reads) == 3 * 37


@pytest.mark.parametrize("part", [0, 10, 300])
def test_kept_features_that_are_damaged_are_made_anew(tmp_path, part):
    look = FeatureExtractor(MEANS, "3", batch_size=2)
    whole = look(SET, folder=tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:part])
    np.testing.assert_array_equal(look(SET, folder=tmp_path).values, whole.values)
    np.testing.assert_array_equal(look(SET, folder=tmp_path).values, whole.values)


def test_unknown_names_list_what_there_is():
    with pytest.raises(ValueError, match="unknown feature network 'inceptoin': expected one of inception, efficient"):
        network("inceptoin")
    with pytest.raises(ValueError, match="resize is 'bicubic': expected one of tensorflow, pytorch, clean"):
        network("inception", resize="bicubic")
    with pytest.raises(ValueError, match="features of width 3, not 64"):
        FeatureExtractor(MEANS, "64")


def test_only_inceptions_2048_features_make_an_fid():
    assert report.names("InceptionV3, clean resizing", "2048")["frechet"] == "FID (InceptionV3, clean resizing)"
    for label, width in (("InceptionV3, clean resizing", "768"), ("EfficientNet-Lite0", "1280")):
        assert "FID" not in report.names(label, width)["frechet"]
        assert width in report.names(label, width)["frechet"]
        assert "KID" not in report.names(label, width)["kid"]


def test_too_few_pictures_are_refused_with_the_least_number():
    widths = ("16", "64", "1280")
    with pytest.raises(ValueError, match="1280 features needs at least 1281") as error:
        report.check(("frechet",), 2048, 181, "1280", widths, 5, 0)
    assert "--width 64 (least 65)" in str(error.value)
    assert "kid needs 2" in str(error.value)
    report.check(("frechet",), 2048, 181, "64", widths, 5, 0)
    report.check(("frechet",), 1281, 0, "1280", widths, 5, 0)
    with pytest.raises(ValueError, match="5-nearest neighbours need 6, at least 6"):
        report.check(("neighbours",), 5, 100, "16", widths, 5, 0)
    with pytest.raises(ValueError, match=r"need 6 in every half .* at least 11"):
        report.check(("neighbours",), 10, 100, "16", widths, 5, 9)
    with pytest.raises(ValueError, match="at least 2 of each"):
        report.check(("kid",), 1, 100, "16", widths, 5, 0)


@pytest.mark.parametrize("resamples", [0, 3])
def test_the_least_number_that_is_said_suffices(resamples):
    for metrics, count in ((("neighbours",), 11 if resamples else 6), (("kid", "diversity"), 3 if resamples else 2)):
        report.check(metrics, count, count, "3", ("3",), 5, resamples)
        x = np.random.default_rng(0).standard_normal((count, 3)).astype(np.float32)
        of = Features(statistics.moments(x), x)
        report.compare(metrics, of, of, "net", "3", k=5, resamples=resamples)
        with pytest.raises(ValueError, match="at least"):
            report.check(metrics, count - 1, count, "3", ("3",), 5, resamples)


def test_all_numbers_of_a_set_against_itself_and_against_statistics():
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((80, 3)).astype(np.float32), rng.standard_normal((90, 3)).astype(np.float32)
    of = lambda v: Features(statistics.moments(v), v, v)
    metrics = COMPARED
    got = report.compare(metrics, of(x), of(x), "net", "3", k=3, resamples=8)
    assert abs(got["Frechet distance (net, 3)"].value) < 1e-9
    assert got["precision"].value == got["coverage"].value == 1
    for name, estimate in got.items():
        assert estimate.low <= estimate.value <= estimate.high, name
        assert min(estimate.low, 0 if estimate.value >= 0 else estimate.value) == min(0, estimate.value), name
        if name in ("precision", "recall", "coverage"):
            assert 0 <= estimate.low <= estimate.high <= 1, name
    both = report.compare(("frechet",), of(x), of(y), "net", "3", resamples=8)["Frechet distance (net, 3)"]
    alone = report.compare(("frechet",), of(x), Features(statistics.moments(y)), "net", "3", resamples=8)
    np.testing.assert_allclose(alone["Frechet distance (net, 3)"].value, both.value)
    assert " to " in report.markdown(got)
    assert report.as_json({"a": both})["a"]["value"] == both.value
    bare = report.compare(("frechet",), of(x), of(y), "net", "3", resamples=0)
    assert report.as_json(bare)["Frechet distance (net, 3)"]["low"] is None
