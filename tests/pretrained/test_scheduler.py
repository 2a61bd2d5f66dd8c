"""scheduler_config.json against the calls that the reference library's schedulers make."""

import json

import numpy as np
import pytest
from support import REFERENCE

from jaxdiff import sampling
from jaxdiff.pretrained.scheduler import process

CASES = json.loads((REFERENCE / "sd_calls.json").read_text())


@pytest.mark.parametrize("n", range(len(CASES)), ids=lambda n: f"{CASES[n]['class'][:8]}-{n}")
def test_calls_agree(n):
    case = CASES[n]
    found = process({**case["config"], "_class_name": case["class"]})
    times = found.times(10)
    steps = times[:-1] * found.schedule.steps - 1
    expected = np.array(case["calls"])
    if case["class"] == "PNDMScheduler":  # its second call is a step of its own, at the time of the first
        expected = np.delete(expected, 1)
    # Karras levels lie between trained steps: the reference rounds them to whole ones, or interpolates sigma
    np.testing.assert_allclose(steps, expected, atol=0.51 if found.grid.karras else 2e-2)
    if case["last"] is not None and found.grid.way != "steps":
        last = np.exp(-found.schedule.log_snr(times[-1:]) / 2)[0]
        np.testing.assert_allclose(last, case["last"], rtol=1e-5, atol=1e-7)
    # the classes of noise levels work on x / alpha
    scale = found.schedule.alpha(times[:1])[0] if found.grid.way == "levels" else 1.0
    np.testing.assert_allclose(found.start(times), scale * case["start"], rtol=1e-5)
    assert sampling.make_table(found.sampler, found.schedule, 10, times, **found.options).t.shape[0] >= 10


def test_meaning_of_fields():
    first = process({**CASES[2]["config"], "_class_name": "DDIMScheduler"})
    assert (first.kind, first.schedule.zero_terminal, first.clip) == ("v", True, 1.0)
    assert process({**CASES[4]["config"], "_class_name": "DDPMScheduler"}).options == {"variance": "large"}
    assert process({**CASES[11]["config"], "_class_name": "DPMSolverMultistepScheduler"}).sampler == "dpmpp_3m"
    assert process({**CASES[0]["config"], "_class_name": "PNDMScheduler"}).sampler == "plms"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"_class_name": "FlowMatchX"}, "scheduler 'FlowMatchX' is not supported: expected one of DDPMScheduler"),
        ({"_class_name": "DDIMScheduler", "prediction_type": "flow"}, "expected one of epsilon"),
        ({"_class_name": "DDIMScheduler", "beta_schedule": "laplace"}, "beta_schedule='laplace'"),
        ({"_class_name": "DDIMScheduler", "thresholding": True}, "thresholding=True is not supported"),
    ],
)
def test_what_is_not_supported_is_named(config, message):
    with pytest.raises(ValueError, match=message):
        process(config)
