"""Families beside each other: one table of runs that are made once, and what cannot be compared."""

import json
import pathlib

import jax
import numpy as np
import pytest
from PIL import Image

from jaxdiff.cli.config import read_config
from jaxdiff.cli.main import main
from jaxdiff.evaluation import compare
from jaxdiff.evaluation.budget import Budget

FAMILIES = pathlib.Path(__file__).parents[2] / "configs" / "families"
RUN = {"parameters": 12345, "steps": 10, "examples_per_second": 5.0, "calls": 1, "pictures_per_second": 3.0}


@pytest.mark.slow
def test_families_are_trained_sampled_measured_and_not_made_twice(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", jax.config.jax_compilation_cache_dir)
    for split in ("train", "test"):
        (tmp_path / "data" / split).mkdir(parents=True)
        for i in range(8):
            image = np.random.default_rng(i).integers(0, 256, (8, 8, 3)).astype(np.uint8)
            Image.fromarray(image).save(tmp_path / "data" / split / f"{i}.png")
            (tmp_path / "data" / split / f"{i}.txt").write_text("noise")
    words = ["compare", str(FAMILIES / "made.py"), "--small", "--data", str(tmp_path / "data")]
    words += ["--workdir", str(tmp_path / "out"), "--seeds", "1", "--metrics", "--batch-size", "1", "--num", "8"]
    main([*words, "--steps", "2"])
    first = capsys.readouterr().out
    assert "| made-small | 0.0" in first
    told = json.loads((tmp_path / "out" / "results.json").read_text())["runs"]["made-small"][0]
    assert (told["steps"], told["calls"]) == (2, 64)
    assert [*told["metrics"]] == ["bits/dim (exact, grey, 4 levels)"]
    assert 0 < told["metrics"]["bits/dim (exact, grey, 4 levels)"] < 10
    assert Image.open(tmp_path / "out" / "made-small.png").size[0] > 16
    main([*words, "--steps", "2"])
    assert "measured before" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([*words, "--steps", "3"])
    assert "is of another budget" in capsys.readouterr().err


@pytest.mark.heavy
def test_time_is_a_budget(tmp_path):
    """Of which what is used is kept: a run that was stopped has the rest."""
    config = read_config(FAMILIES / "made.py", small=True)
    known = {"seconds": 0.0, "budget": {}}
    known = compare._train(
        compare.dataclasses.replace(
            config, train=compare.dataclasses.replace(config.train, steps=10**7, preview_every=0)
        ),
        tmp_path / "run",
        Budget(minutes=0.05),
        known,
        print,
    )
    assert 3 <= known["seconds"] < 10
    assert known["trained"]
    assert known["steps"] > 6


def test_the_table_has_means_spreads_and_says_where_there_is_none():
    flow = [{**RUN, "metrics": {"KID": value, "bits/dim (exact)": 3.0}} for value in (1.0, 3.0)]
    table = compare.markdown({"flow": flow, "gan": [{**RUN, "metrics": {"KID": 0.5}}]}).splitlines()
    assert table[0].endswith("| pictures/s | KID | bits/dim |")
    assert table[2].startswith("| flow | 0.01M | 10 ± 0 | 5 ± 0 | 1 |")
    assert table[2].endswith("| 2 ± 1.4 | 3 ± 0 (exact) |")
    assert table[3].endswith("| 0.5 | none |")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"seeds": 0}, "seeds is 0"),
        ({"num": 0}, "num is 0"),
        ({"minutes": float("nan")}, "minutes is nan"),
        ({"minutes": 0.0}, "minutes is 0.0"),
        ({"steps": -1}, "steps is -1"),
    ],
)
def test_budgets_that_make_no_sense_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        compare.check([], Budget(**fields))


def test_two_configs_of_one_name_are_refused():
    config = read_config(FAMILIES / "made.py")
    with pytest.raises(ValueError, match="two configs have the name made"):
        compare.check([config, config], Budget())
