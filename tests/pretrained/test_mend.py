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


@pytest.mark.parametrize("field", ["steps_offset", "clip_sample"])
def test_a_field_that_is_said_to_be_its_default_is_mended_as_if_it_were_absent(field):
    """As the reference reads configs; else the value of the file would pass for the pipeline's, and then be dropped."""
    config = {"_class_name": "DDIMScheduler", "steps_offset": 1, "clip_sample": False, "_use_default_values": [field]}
    mended = mend.scheduler("StableDiffusionPipeline", config)
    assert mended == {**config, "_use_default_values": []}
    assert mend.scheduler("StableDiffusionXLPipeline", config) == config
