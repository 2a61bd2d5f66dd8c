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
    np.testing.assert_allclose(steps, expected, atol=0.51 if found.grid.rule else 2e-2)
    np.testing.assert_allclose(found.calls(10).timesteps, expected, atol=2e-3)  # its betas are in float32
    if case["last"] is not None and found.grid.way != "steps":
        last = np.exp(-found.schedule.log_snr(times[-1:]) / 2)[0]
        np.testing.assert_allclose(last, case["last"], rtol=1e-5, atol=1e-7)
    # the classes of noise levels work on x / alpha
    scale = found.schedule.alpha(times[:1])[0] if found.grid.way == "levels" else 1.0
    np.testing.assert_allclose(found.start(times), scale * case["start"], rtol=1e-5)
    assert sampling.make_table(found.sampler, found.schedule, 10, times, **found.options).t.shape[0] >= 10


def test_meaning_of_fields():
    first = process({**CASES[2]["config"], "_class_name": "DDIMScheduler"})
    assert (first.kind, first.schedule.zero_terminal, first.options) == ("v", True, {"clip": 1.0, "keep_eps": True})
    assert process({**CASES[4]["config"], "_class_name": "DDPMScheduler"}).options["variance"] == "large"
    assert process({**CASES[11]["config"], "_class_name": "DPMSolverMultistepScheduler"}).sampler == "dpmpp_3m"
    assert process({**CASES[0]["config"], "_class_name": "PNDMScheduler"}).sampler == "plms"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"_class_name": "FlowMatchX"}, "scheduler 'FlowMatchX' is not supported: expected one of DDPMScheduler"),
        ({"_class_name": "DDIMScheduler", "prediction_type": "flow"}, "expected one of epsilon"),
        ({"_class_name": "DDIMScheduler", "beta_schedule": "laplace"}, "beta_schedule='laplace'"),
        ({"_class_name": "DDIMScheduler", "stepsoffset": 1}, "stepsoffset is a field of no scheduler"),
        ({"_class_name": "DDIMScheduler", "num_train_timesteps": "1000"}, "num_train_timesteps='1000': expected int"),
        ({"_class_name": "DDIMScheduler", "beta_end": True}, "beta_end=True: expected float"),
        ({"_class_name": "DDIMScheduler", "trained_betas": 0.1}, "trained_betas of type float: expected a list"),
        ({"_class_name": "LMSDiscreteScheduler", "use_karras_sigmas": True, "use_beta_sigmas": True}, "at most one"),
        ({"_class_name": "UniPCMultistepScheduler", "use_dynamic_shifting": True}, "use_dynamic_shifting=True is not"),
        (
            {"_class_name": "EulerDiscreteScheduler", "interpolation_type": "log_linear"},
            "interpolation_type='log_linear'",
        ),
        ({"_class_name": "DPMSolverMultistepScheduler", "solver_order": 4}, "solver_order=4 of dpmsolver"),
    ],
)
def test_what_is_not_supported_is_named(config, message):
    with pytest.raises(ValueError, match=message):
        process(config)
