"""What the reference's pipelines change in old configs, for every pipeline class that is read."""

import json

import pytest
from support import REFERENCE

from jaxdiff.pretrained import mend

ROWS = json.loads((REFERENCE / "configs.json").read_text())["mended"]


def test_the_fixture_has_changes_and_none():
    assert {name for name, _, changed, _ in ROWS if changed} == {"scheduler", "unet", "vae"}
    assert {name for name, _, changed, _ in ROWS if not changed} == {"scheduler", "unet", "vae"}


@pytest.mark.parametrize(("name", "config", "changed", "pipelines"), ROWS)
def test_configs_are_mended_as_the_reference_does(name, config, changed, pipelines):
    for pipeline in pipelines:
        one = mend.scheduler(pipeline, config) if name == "scheduler" else mend.component(pipeline, name, config)
        assert one == {**config, **changed}, pipeline
