"""Odd values of every field of every class of scheduler: refused by name, or numbers that a picture can be made of."""

import math
import warnings

import numpy as np
import pytest
from bad_input import VALUES, told

from jaxdiff.pretrained import scheduler
from jaxdiff.pretrained.schedulers.fields import DEFAULTS, RANGES

ODD = (*VALUES, -math.inf, 1e300, 1e-300, -0.5, 1001, 1.5, False)
STEPS = 4
"""PNDM takes no fewer."""


def sampled(config):
    """Makes the table of a walk, all of it finite."""
    process = scheduler.process(config)
    calls = process.calls(STEPS)
    table = process.table(calls.times, STEPS)
    assert all(np.isfinite(x).all() for x in (calls.times, calls.timesteps, table.A, table.b, table.c))


@pytest.mark.parametrize("name", DEFAULTS)
def test_no_value_of_a_field_is_past_every_check(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # arithmetic that fails in silence
        for field in (*DEFAULTS[name], "_use_default_values", "_class_name"):
            for value in ODD:
                config = {"_class_name": name, field: value}
                message = told(lambda config=config: sampled(config), field, name, "steps")
                if field in RANGES and not isinstance(value, int | float | None):
                    assert field in message


@pytest.mark.parametrize("name", [name for name in DEFAULTS if "beta_start" in DEFAULTS[name]])
def test_what_the_mathematics_refuses_names_the_class(name):
    few = {"num_train_timesteps": 3, "trained_betas": [0.1, 1.0, 0.1], "original_inference_steps": 3}
    config = {"_class_name": name, "clip_sample": False, **few}
    assert f"{name}: betas must be" in told(lambda: scheduler.process(config))


ENDS_AT_A_LEAST_LEVEL = ("EulerDiscreteScheduler", "DPMSolverMultistepScheduler", "UniPCMultistepScheduler")


@pytest.mark.parametrize("name", ENDS_AT_A_LEAST_LEVEL)
def test_zero_snr_below_the_least_level_of_a_class_is_refused(name):
    config = {"_class_name": name, "beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}
    assert "rescale_betas_zero_snr" in told(lambda: scheduler.process({**config, "rescale_betas_zero_snr": True}))
