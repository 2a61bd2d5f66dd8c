"""Every field of every scheduler class against the reference library: read, and meaning the same walk."""

import json
import math

import numpy as np
import pytest
from support import REFERENCE

from jaxdiff import sampling
from jaxdiff.diffusion import precondition, prediction, variance
from jaxdiff.pretrained import scheduler
from jaxdiff.pretrained.schedulers import classes, fields
from jaxdiff.typing import Estimate

FILE = np.load(REFERENCE / "schedulers_fields.npz")
(MODELS, INDEX), VALUES = json.loads(bytes(FILE["index"])), FILE["values"]
THEIRS = json.loads((REFERENCE / "schedulers_fields.json").read_text())
SL = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
START = np.array([[0.8, -0.3, 1.6, 0.05]])


def network(x, told):
    return 0.5 * x + 0.4 * np.tanh(1.3 * x + 0.2) * np.cos(told / 300) + 0.1


def walk(process, steps, seed):
    """The first two numbers at the end of our walk, over the network that hears what it is told."""
    calls = process.calls(steps)
    table = process.table(calls.times, steps)
    table = sampling.with_aux(table, told=process.timesteps(calls, table.t))
    s, kind = process.schedule, process.kind

    def denoise(x, t, aux):
        alpha, sigma = s.alpha(t), s.sigma(t)
        seen = x * precondition.edm(alpha, sigma).scale if kind == "edm" else x
        x0 = prediction.to_x0(network(seen, aux["told"]), x, alpha, sigma, kind)
        if "log_variances" not in aux:
            return x0
        return Estimate(x0, np.exp(variance.learned_log_variance(np.sin(3 * x), *aux["log_variances"]) / 2))

    noise = np.random.default_rng(seed).standard_normal(80)[: table.calls, None, None] * np.ones((1, 1, 4))
    return sampling.replay(table, denoise, START * process.start(calls.times), noise)[0][-1][0, :2]


@pytest.mark.parametrize("name", THEIRS)
def test_a_class_takes_the_references_fields_with_its_defaults_and_reads_them_all(name):
    theirs = {field: math.inf * -1 if value == "-inf" else value for field, value in THEIRS[name].items()}
    assert fields.DEFAULTS[name] == theirs
    # where a field is read with another one's value alone, that value is given
    seen = set()
    for change in (
        {},
        {"final_sigmas_type": "sigma_min"},
        {"use_flow_sigmas": True, "prediction_type": "flow_prediction"},
    ):
        if not change.keys() <= theirs.keys() or ("Inverse" in name and "use_flow_sigmas" in change):
            continue
        found = fields.read({"_class_name": name, **change})
        if name == "DDIMInverseScheduler":
            found["clip_sample"] = False
        classes.CLASSES[name](found)
        seen |= found.seen
    assert seen | set(fields.HARMLESS.get(name, {})) == set(theirs)
    assert seen.isdisjoint(fields.HARMLESS.get(name, {}))


# what the reference walks and we refuse -> a part of the reason that is given
ZERO = {"rescale_betas_zero_snr": True, "prediction_type": "epsilon"}
REFUSED = [
    *(
        (name, ZERO, "divides by alpha")
        for name in THEIRS
        if name.startswith(("DDPM", "DDIM"))  # theirs are infinite numbers, clipped
    ),
    ("DDIMInverseScheduler", {"clip_sample": True}, "at another noise level"),
    ("DDIMInverseScheduler", {"prediction_type": "sample"}, "at another noise level"),
    ("DDIMInverseScheduler", {"prediction_type": "v_prediction"}, "at another noise level"),
    ("DPMSolverMultistepInverseScheduler", {"use_flow_sigmas": True}, "its levels fall"),
    # theirs leaves out calls that are told the same step, and stops early
    ("DPMSolverMultistepInverseScheduler", {"use_karras_sigmas": True}, "two calls at the same"),
    ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver", "solver_order": 3}, "solver_order=3"),
    ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++", "solver_order": 3}, "solver_order=3"),
    ("EDMDPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++", "solver_order": 3}, "solver_order=3"),
    ("DPMSolverMultistepScheduler", {"variance_type": "learned_range"}, "a learned variance"),
    ("DPMSolverMultistepInverseScheduler", {"variance_type": "learned_range"}, "a learned variance"),
    ("DPMSolverSinglestepScheduler", {"variance_type": "learned_range"}, "a learned variance"),
    ("SASolverScheduler", {"variance_type": "learned_range"}, "a learned variance"),
    ("DPMSolverSinglestepScheduler", {"solver_type": "heun", "solver_order": 3}, "solver_order=3"),
    ("EDMEulerScheduler", {"sigma_schedule": "exponential"}, "at least 2"),
    ("EDMDPMSolverMultistepScheduler", {"sigma_schedule": "exponential"}, "at least 2"),
    ("EDMEulerScheduler", {"prediction_type": "v_prediction"}, "v_prediction with 1.0"),
    ("EDMDPMSolverMultistepScheduler", {"prediction_type": "v_prediction"}, "v_prediction with 1.0"),
]


def refused(name, change, error):
    known = [part for who, some, part in REFUSED if who == name and some.items() <= change.items()]
    return any(part in str(error) for part in known)


@pytest.mark.parametrize("name", THEIRS)
def test_every_field_walks_as_the_reference_does(name):
    wrong, compared = {}, set()
    for seed, (who, change, steps) in enumerate(INDEX):
        expected = VALUES[seed]
        if who != name or not np.isfinite(expected).all():
            continue
        base = {field: value for field, value in SL.items() if field in THEIRS[name]}
        base |= {"clip_sample": False} if name == "DDIMInverseScheduler" else {}
        base |= {"steps_offset": 0} if "steps_offset" in THEIRS[name] else {}  # else some are mended as old files
        try:
            got = walk(scheduler.process({"_class_name": name, **base, **change}), steps, seed)
        except ValueError as error:
            if not refused(name, change, error):
                wrong[str(change), steps] = str(error)
            continue
        error = np.max(np.abs(got - expected) / (np.abs(expected) + 0.05))
        compared |= set(change) or {""}
        if not error < 2e-5:  # the file holds float32
            wrong[str(change), steps] = f"{got} for {expected}"
    assert not wrong
    assert len(compared) > len(THEIRS[name]) / 3


@pytest.mark.parametrize("model", MODELS)
def test_a_sampler_by_name_is_the_references_class_made_of_the_models_config(model):
    config, wrong, names = MODELS[model], {}, set()
    own = scheduler.process(config)
    for seed, (who, sampler, steps) in enumerate(INDEX):
        expected = VALUES[seed]
        if who == model and np.isfinite(expected).all():
            names.add(sampler)
            got = walk(scheduler.sampled(own, config, sampler), steps, seed)
            if not np.max(np.abs(got - expected) / (np.abs(expected) + 0.05)) < 2e-5:
                wrong[sampler, steps] = f"{got} for {expected}"
    assert not wrong
    assert len(names) >= 20
    for sampler in (sampling.SAMPLERS.keys() | sampling.INVERSIONS.keys()) - {"flow_euler", "flow_heun"}:
        made = scheduler.sampled(own, config, sampler)
        calls = made.calls(20)
        assert np.isfinite(made.table(calls.times, 20).A).all()
        assert (made.kind, made.sampler) == (own.kind, sampler)


def test_old_files_of_stable_diffusion_are_mended():
    """They know neither steps_offset nor clip_sample; the reference's pipeline begins at 1 and does not clip."""
    for name in ("DDIMScheduler", "DDPMScheduler", "PNDMScheduler"):
        found = scheduler.process({"_class_name": name, **SL})
        assert found.calls(10).timesteps[-1] == 1
        assert found.clip is None
        assert "clip" not in found.options
        said = scheduler.process({"_class_name": name, **SL, "steps_offset": 0, "clip_sample": True})
        assert said.calls(10).timesteps[-1] == 0
