"""Pictures of every task against diffusers' pipelines, from the same noise, on every pixel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pipelines import small
from reference.sd_weights import noise, weights
from safetensors.numpy import save_file

from jaxdiff.pipelines import program
from jaxdiff.pretrained import lora

PLMS = {10: {"steps": 9}, 6: {"steps": 5, "strength": 1.0}}  # one call more than steps
CASES = [key.split("/") for key in small.TASK_PICTURES.files if "/" in key]


def agree(ours, theirs, name):
    # 0.5 for the rounding to 8 bits, and 0.3 for sums in another order over ten calls
    error = np.abs(ours.astype(float) - 255 * theirs).max()
    print(f"{name}: {error:.2f} / 255")
    assert error < 0.8


@pytest.fixture(scope="module")
def plain():
    return small.pipeline()


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in small.PLAIN["schedulers"] if n != "ddim v"])
def test_text_to_image(plain, name):
    steps = small.PLAIN["steps"]
    made = plain(
        small.PROMPTS,
        key=jax.random.key(0),
        steps=steps,
        sampler=small.PLAIN["schedulers"][name],
        guidance=small.GUIDANCE,
        negative=small.NEGATIVE,
        init_noise=small.first(),
    )
    agree(made, small.PLAIN_PICTURES[name], name)


@pytest.mark.slow
def test_v_prediction():
    pipe = small.pipeline(scheduler="ddim v")
    made = pipe(small.PROMPTS, key=jax.random.key(0), steps=10, guidance=4.0, negative="ugly", init_noise=small.first())
    agree(made, small.PLAIN_PICTURES["ddim v"], "ddim v")


@pytest.mark.slow
def test_a_size_that_does_not_halve():
    pipe = small.pipeline({**small.SD1, "unet": "unet_uneven"})
    options = {"steps": 5, "guidance": small.GUIDANCE, "negative": small.NEGATIVE, "init_noise": small.first(9, 11)}
    made = pipe(small.PROMPTS, key=jax.random.key(0), **options)
    assert made.shape == (2, 18, 22, 3)
    agree(made, small.UNEVEN_OUTPUTS["unet_uneven/pictures"] / 65535, "latents of 9x11")


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory):
    """Made once for each task, so that its samplers share a program."""
    made = {}

    def make(task):
        if task not in made:
            entry, options = small.TASKS["tasks"][task], {}
            if task == "lora":
                path = tmp_path_factory.mktemp("lora") / "pytorch_lora_weights.safetensors"
                save_file(weights(small.TASKS["lora"]), path)
                options["loras"] = [lora.read(path, small.bundle().components)]
            if "clip_skip" in entry["options"]:
                options["clip_skip"] = entry["options"]["clip_skip"]
            index = {"max_noise_level": 49}
            made[task] = small.pipeline(entry["parts"], index=index, **options)
            made[task].schedulers["low_res_scheduler"] = {
                "_class_name": "DDPMScheduler",
                "beta_schedule": "squaredcos_cap_v2",
            }
        return made[task]

    return make


@pytest.mark.slow
@pytest.mark.parametrize(("task", "name"), CASES)
def test_pictures_agree(pipelines, monkeypatch, task, name):
    def drawn(keys, which, shape):
        assert which == program.LOW
        return jnp.asarray(noise("low", (len(keys), 3, *shape[:2])).transpose(0, 2, 3, 1) * np.float32(1.7))

    monkeypatch.setattr(program, "unit_noise", drawn)
    entry = small.TASKS["tasks"][task]
    given, found = set(entry["inputs"]), {}
    if given & {"image", "small"}:
        found["image"] = small.picture("image") if "image" in given else small.picture("small", 8)
    if "mask" in given:
        found["mask"] = small.mask()
    if "hint" in given:
        found["hints"] = [small.picture(hint) for hint in sorted(given) if hint.startswith("hint")]
    options = {k: v for k, v in entry["options"].items() if k not in ("clip_skip", "negative")}
    calls = round(options["steps"] * options.get("strength", 1))
    options |= PLMS[calls] if name == "pndm" else {}
    made = pipelines(task)(
        small.PROMPTS,
        key=jax.random.key(0),
        sampler=small.TASKS["schedulers"][name],
        guidance=small.GUIDANCE,
        negative=small.NEGATIVE if "negative" not in entry["options"] else None,
        init_noise=small.first(),
        **found,
        **options,
    )
    agree(made, small.TASK_PICTURES[f"{task}/{name}"] / 65535, name)
    assert pipelines(task).compiled() == 1
