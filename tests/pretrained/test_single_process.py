"""What a single file says of its process: read as AUTOMATIC1111's and ComfyUI's code reads it, and written back."""

import numpy as np
import pytest

from jaxdiff.pretrained import scheduler, single_process

EMPTY = np.zeros(0, np.float32)
SD = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
MEAN, STD = np.arange(4.0).reshape(1, 4, 1, 1), np.full((1, 4, 1, 1), 2.0)
COSXL = {"edm_vpred.sigma_max": np.float32([120.0]), "edm_vpred.sigma_min": np.float32(0.002)}


@pytest.mark.parametrize(
    ("tensors", "note", "given", "kind", "zero"),
    [
        ({}, {}, None, "epsilon", False),
        ({"v_pred": EMPTY}, {}, None, "v_prediction", False),
        ({"v_pred": EMPTY, "ztsnr": EMPTY}, {}, None, "v_prediction", True),
        # ComfyUI looks for ztsnr only beside v_pred
        ({"ztsnr": EMPTY}, {}, None, "epsilon", False),
        ({"ztsnr": EMPTY}, {}, "v_prediction", "v_prediction", True),
        ({"v_pred": EMPTY}, {}, "epsilon", "epsilon", False),
        ({}, {"modelspec.prediction_type": "v"}, None, "v_prediction", False),
        ({}, {"modelspec.predict_key": "v"}, None, "v_prediction", False),
        ({}, {"modelspec.prediction_type": "v", "modelspec.use_ztsnr": "True"}, None, "v_prediction", True),
        ({}, {"modelspec.prediction_type": "epsilon"}, None, "epsilon", False),
    ],
)
def test_the_prediction_and_zero_snr_are_read(tensors, note, given, kind, zero):
    config = single_process.read("sdxl", tensors, note, given)
    assert config["prediction_type"] == kind
    assert config.get("rescale_betas_zero_snr", False) == zero
    # at zero SNR the reference's Euler keeps alpha^2 = 2^-24
    assert (scheduler.process(config).schedule.alpha(np.ones(1))[0] < 2.0**-11) == zero


def test_metadata_tell_the_two_models_of_stable_diffusion_2_apart():
    for text, kind in (("stable-diffusion-v2-512", "epsilon"), ("stable-diffusion-v2-768-v", "v_prediction")):
        assert single_process.read("sd2", {}, {"modelspec.architecture": text}, None)["prediction_type"] == kind
    with pytest.raises(ValueError, match=r"say modelspec.prediction_type='u': expected one of epsilon"):
        single_process.read("sd2", {}, {"modelspec.prediction_type": "u"}, None)


def test_edm_models_are_read():
    playground = single_process.read("sdxl", {"edm_mean": MEAN, "edm_std": STD}, {}, None)
    assert playground["_class_name"] == "EDMDPMSolverMultistepScheduler"
    assert [playground[k] for k in ("sigma_min", "sigma_max", "sigma_data")] == [0.002, 80.0, 0.5]
    means = single_process.latents({"edm_mean": MEAN, "edm_std": STD})
    assert means == {"latents_mean": [0.0, 1.0, 2.0, 3.0], "latents_std": [2.0] * 4}
    cosxl = single_process.read("sdxl", COSXL, {}, None)
    assert cosxl["_class_name"] == "EDMEulerScheduler"
    np.testing.assert_allclose([cosxl[k] for k in ("sigma_max", "sigma_min", "sigma_data")], [120, 0.002, 1])
    for wrong in (np.float32([1, 2]), np.float32([np.nan])):
        with pytest.raises(ValueError, match=r"edm_vpred.sigma_max has shape .* expected one finite number"):
            single_process.read("sdxl", {"edm_vpred.sigma_max": wrong}, {}, None)


EULER = {"_class_name": "EulerDiscreteScheduler", **SD}
V = {**EULER, "prediction_type": "v_prediction"}
EDM = {"_class_name": "EDMEulerScheduler", "sigma_min": 0.002, "sigma_max": 120.0, "sigma_data": 1.0}


@pytest.mark.parametrize("name", ["sd1", "sd2", "sdxl", "sdxl_refiner"])
@pytest.mark.parametrize("config", [EULER, V, {**V, "rescale_betas_zero_snr": True}])
def test_what_is_written_is_read_again(name, config):
    back = single_process.read(name, *single_process.write(name, config, {}), None)
    ours, theirs = scheduler.process(back), scheduler.process(config)
    assert ours.kind == theirs.kind
    # a class that ends at zero SNR itself has one finite level less than Euler
    np.testing.assert_array_equal(ours.schedule.knots[:999], theirs.schedule.knots[:999])


def test_the_markers_are_those_that_other_tools_look_for():
    names = lambda config, vae={}: set(single_process.write("sdxl", config, vae)[0])
    assert names(EULER) == set()
    assert names(V) == {"v_pred"}
    assert names({**V, "rescale_betas_zero_snr": True}) == {"v_pred", "ztsnr"}
    assert names({**EDM, "prediction_type": "v_prediction"}) == {"edm_vpred.sigma_max", "edm_vpred.sigma_min"}
    playground = {"_class_name": "EDMDPMSolverMultistepScheduler", "prediction_type": "epsilon"}
    means = {"latents_mean": [0.0] * 4, "latents_std": [1.0] * 4}
    assert names(playground, means) == {"edm_mean", "edm_std"}


@pytest.mark.parametrize(
    ("config", "vae", "words"),
    [
        ({**EULER, "prediction_type": "sample"}, {}, "prediction_type='sample'"),
        ({**EULER, "beta_schedule": "linear"}, {}, "beta_schedule='linear'"),
        ({"_class_name": "DDIMScheduler"}, {}, "beta_schedule='linear', beta_start=0.0001, beta_end=0.02"),
        ({**EULER, "beta_end": 0.02}, {}, "beta_end=0.02"),
        ({**EULER, "num_train_timesteps": 100}, {}, "num_train_timesteps=100"),
        ({**EULER, "trained_betas": [0.1]}, {}, "trained_betas="),
        ({**EULER, "rescale_betas_zero_snr": True}, {}, "rescale_betas_zero_snr=True"),
        ({**EDM, "prediction_type": "v_prediction", "sigma_data": 0.5}, {}, "sigma_data=0.5"),
        ({**EDM, "prediction_type": "epsilon"}, {}, "latents_mean and latents_std, and this vae has none"),
        (EULER, {"latents_mean": [0.0] * 4}, "latents_mean and latents_std without EDM"),
    ],
)
def test_a_process_that_one_file_cannot_say_is_refused_by_name(config, vae, words):
    with pytest.raises(ValueError, match=r"one file cannot say|one file says") as error:
        single_process.write("sdxl", config, vae)
    assert words in str(error.value)


def test_what_else_a_scheduler_says_is_named():
    config = {**EULER, "_diffusers_version": "1", "steps_offset": 1, "timestep_spacing": "trailing"}
    back = single_process.read("sdxl", {}, {}, None)
    assert single_process.unsaid(config, back) == ["timestep_spacing='trailing'"]
    assert single_process.unsaid({**config, "_class_name": "PNDMScheduler", "use_karras_sigmas": False}, back) == [
        "_class_name='PNDMScheduler'",
        "timestep_spacing='trailing'",
    ]
