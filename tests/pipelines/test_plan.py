"""The numbers of a call, without a network: which sampler, over which grid, and what the network is told."""

import dataclasses

import numpy as np
import pytest

from jaxdiff import sampling
from jaxdiff.diffusion import schedule
from jaxdiff.pipelines import plan
from jaxdiff.pretrained import scheduler

SL = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
SD1 = {"_class_name": "PNDMScheduler", **SL, "skip_prk_steps": True, "set_alpha_to_one": False, "steps_offset": 1}
SD1 |= {"clip_sample": False}
ZERO = {"_class_name": "DDIMScheduler", **SL, "prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
ZERO |= {"timestep_spacing": "trailing", "clip_sample": False}


def made(config, **options):
    return plan.make(scheduler.process(config), config, **{"steps": 20, "weights": {}, **options})


def assert_same(a, b):
    for field in ("t", "A", "b", "c"):
        np.testing.assert_array_equal(getattr(a.table, field), getattr(b.table, field))
    np.testing.assert_array_equal(a.timesteps, b.timesteps)
    assert (float(a.signal), float(a.noise)) == (float(b.signal), float(b.noise))


def test_ddim_on_stable_diffusion_is_its_configs_ddim_and_a_grid_takes_its_place():
    own = {**SD1, "_class_name": "DDIMScheduler"}
    assert_same(made(SD1, sampler="ddim"), made(own))
    assert_same(made(SD1, sampler={"_class_name": "DDIMScheduler"}), made(own))
    gridded = made(SD1, sampler="ddim", grid="karras")
    np.testing.assert_allclose(gridded.table.t, sampling.grid.karras(schedule.scaled_linear(), 20)[:-1], rtol=1e-6)


def test_defaults_of_the_models_class_are_not_another_ones():
    config = {**SD1, "prediction_type": "epsilon", "_use_default_values": ["set_alpha_to_one"]}
    assert scheduler.sampled(scheduler.process(config), config, "ddim").grid.final == "data"
    with pytest.raises(ValueError, match="another process"):
        made({**SD1, "_use_default_values": ["prediction_type"]}, sampler={"prediction_type": "v_prediction"})


def test_the_network_is_told_whole_steps_at_levels_between():
    """Karras' levels of DPM-Solver, whose timesteps the reference rounds; exponential ones, which it cuts."""
    for rule, cut in (("use_karras_sigmas", np.round), ("use_exponential_sigmas", np.floor)):
        config = {"_class_name": "DPMSolverMultistepScheduler", **SL, rule: True}
        found = made(config)
        plain = schedule.scaled_linear()
        levels = np.exp(-scheduler.process(config).schedule.log_snr(scheduler.process(config).times(20)[:-1]) / 2)
        exact = plain.timestep(plain.time(-2 * np.log(levels)))
        assert np.abs(exact - np.round(exact)).max() > 0.2
        np.testing.assert_array_equal(found.timesteps[1], cut(exact + 1e-6)[::-1])
        at = np.float32(found.table.t) * 1000 - 1
        np.testing.assert_allclose(np.interp(at, *found.timesteps), found.timesteps[1][::-1], atol=0.01)


def test_zero_terminal_snr_has_karras_levels_in_classes_that_end_near_zero():
    """The model's schedule ends at 0, the other class's at 2^-24: levels are kept, and times are the model's."""
    found = made(ZERO, sampler={"_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": True})
    s = scheduler.process(ZERO).schedule
    levels = np.exp(-s.log_snr(np.asarray(found.table.t, np.float64)) / 2)
    ramp = levels ** (1 / 7)
    np.testing.assert_allclose(levels[0], 4096, rtol=0.03)  # 2^12, at a time next to 1 in float32
    np.testing.assert_allclose(np.diff(ramp[1:], 2), 0, atol=1e-3)


@pytest.mark.parametrize("strength", [0.051, 0.15, 0.5, 1.0])
@pytest.mark.parametrize(
    "sampler", [None, "ddim", "dpmpp_2m", "dpmpp_3m", "unipc", "deis", "lms", "plms", "heun", "lcm"]
)
def test_image_to_image_walks_what_is_left(sampler, strength):
    found = made(SD1, sampler=sampler, strength=strength, start="picture")
    left = int(20 * strength)
    calls = {None: left + (left > 1), "plms": left + (left > 1), "heun": 2 * left - 1}.get(sampler, left)
    assert found.table.calls == calls
    assert np.isfinite(found.table.A).all()
    assert 0 < found.signal < 1
    with pytest.raises(ValueError, match=r"strength = 0.04 keeps 0 of 20 steps"):
        made(SD1, sampler=sampler, strength=0.04, start="picture")


def test_few_steps_left_are_steadied_as_those_of_the_whole_grid():
    """The order falls at the end of fewer than 15 steps in all, not of fewer that are left."""
    config = {"_class_name": "DPMSolverMultistepScheduler", **SL, "final_sigmas_type": "sigma_min", "solver_order": 3}
    whole, tail = made(config), made(config, strength=0.5, start="picture")
    np.testing.assert_allclose(tail.table.A[-3:], whole.table.A[-3:], rtol=1e-5, atol=1e-6)


def test_an_inversion_takes_a_picture():
    with pytest.raises(ValueError, match="ddim_inverse makes noise of a picture"):
        made(SD1, sampler="ddim_inverse")
    for config in (SD1, {**ZERO, "rescale_betas_zero_snr": False}):
        up = made(config, sampler="ddim_inverse", start="picture")
        assert np.all(np.diff(up.table.t) > 0)
        assert float(up.noise) == 0


def test_bounds_are_those_of_the_sampler_that_is_asked_for():
    pixels = {"_class_name": "DDPMScheduler", "beta_schedule": "linear"}  # clips, as is its default
    assert made(pixels).table.bounds["limit"][0] == 1
    assert np.any(made(pixels, sampler="ddim").table.raw)
    assert made(pixels, sampler="euler").table.bounds is None
    native = scheduler.native(schedule.vp(), "v", clip=1.5)
    assert plan.make(native, steps=5, weights={}).table.bounds["limit"][0] == 1.5
    assert plan.make(native, steps=5, sampler="unipc", weights={}).table.bounds["limit"][0] == 1.5


def test_steps_that_cannot_be_made_are_named():
    with pytest.raises(ValueError, match="take at most 999 steps"):
        made({**SD1, "_class_name": "DDIMScheduler"}, steps=1000)
    with pytest.raises(ValueError, match="distilled on 50 of 1000 steps, so 1 to 50 work"):
        made(SD1, sampler="lcm", steps=51)
    with pytest.raises(ValueError, match="at least 4 steps, got 3: use plms"):
        made(SD1, sampler="pndm", steps=3)
    model = dataclasses.replace(scheduler.process(SD1), grid="trailing")
    assert plan.make(model, steps=1000, weights={}).table.calls == 1001


@pytest.mark.parametrize("kind", ["DDIMScheduler", "EulerDiscreteScheduler"])
@pytest.mark.parametrize("at", [0.3, 0.8])
def test_two_models_share_a_grid_as_one_walks_it(kind, at):
    config = {**SD1, "_class_name": kind, "timestep_spacing": "leading"}
    whole, base, refiner = made(config), made(config, part=(None, at)), made(config, part=(at, None), start="picture")
    calls = scheduler.process(config).calls(20)
    assert len(base.table.t) == (calls.timesteps >= 1000 * (1 - at)).sum()  # as the reference counts them
    for field in ("t", "c"):
        both = np.concatenate([getattr(base.table, field), getattr(refiner.table, field)])
        np.testing.assert_allclose(both[:-1], getattr(whole.table, field)[:-1], rtol=1e-6)
    # what the first hands on, the second takes back
    n = len(base.table.t) - 1
    handed = base.table.b[n] * refiner.signal
    np.testing.assert_allclose(handed, whole.table.b[n], rtol=1e-5)
    assert refiner.noise == 0
    assert (base.signal, base.noise) == (whole.signal, whole.noise)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"part": (None, 1.5)}, "denoising_end is 1.5: expected a number between 0 and 1"),
        ({"part": (0.8, 0.8)}, "no call of 20 steps lies between denoising_start 0.8 and denoising_end 0.8"),
        ({"part": (None, 0.8), "strength": 0.5}, "strength does not go with denoising_start or denoising_end"),
    ],
)
def test_parts_that_make_no_sense_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        made(SD1, **options)
