"""What steers a picture beside the prompt, and models that know no prompt."""

import dataclasses

import jax
import numpy as np
import pytest
from pipelines import small
from reference.sd_weights import weights
from safetensors.numpy import save_file

from jaxdiff.pipelines.diffusion import DiffusionPipeline
from jaxdiff.pretrained import ip_adapter

STEPS = 2


def run(pipe, prompts=small.PROMPTS, seed=0, **options):
    return pipe(prompts, key=jax.random.key(seed), **{"steps": STEPS, **options})


@pytest.fixture(scope="module")
def plain():
    return run(small.pipeline(small.TINY))


@pytest.mark.slow
@pytest.mark.parametrize("task", ["adapter", "variation", "ip"])
def test_pictures_agree_with_the_reference(task, tmp_path):
    parts = {**small.SD1, **{"adapter": {"adapter": "adapter"}, "ip": {"image_encoder": "vision_ip"}}.get(task, {})}
    parts = {"unet": "unet", "vae": "vae", "image_encoder": "vision"} if task == "variation" else parts
    bundle, options, seen = small.bundle(parts), {}, small.picture("seen", 40)
    if task == "ip":
        save_file(weights(small.SEEN["ip"]), tmp_path / "ip.safetensors")
        seen = seen[:1]
        options["ip_adapter"] = ip_adapter.read(tmp_path / "ip.safetensors", bundle.components["unet"])
    given = {"hints": small.picture("hint"), "hint_weights": [0.7]}
    given = given if task == "adapter" else {"picture": seen, **({"picture_weight": 0.6} if task == "ip" else {})}
    pipe = DiffusionPipeline(bundle, devices=jax.devices()[:1], **options)
    shared = {"steps": 5, "guidance": small.GUIDANCE, "init_noise": small.first()}
    shared |= {} if task == "variation" else {"negative": small.NEGATIVE}
    made = pipe(small.PROMPTS, key=jax.random.key(0), **shared, **given)
    error = np.abs(made.astype(float) - small.SEEN_PICTURES[task] / 257).max()
    print(f"{task}: {error:.2f} / 255")
    assert error < 0.8  # 0.5 for the rounding to 8 bits


def test_hints_count_as_much_as_they_are_weighed(plain):
    names = {**small.TINY, "controlnet": ["tiny control"] * 2, "adapter": "tiny adapter"}
    pipe = small.pipeline(names)
    hints = [small.picture(name) for name in ("a", "b", "c")]
    np.testing.assert_array_equal(run(pipe, hints=hints, hint_weights=[0.0, 0.0, 0.0]), plain)
    seen = [run(pipe, hints=hints, hint_weights=w) for w in ([1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0])]
    for made in seen:
        assert (made != plain).any()
    # two ControlNets of the same weights: each looks at its own hint
    swapped = run(pipe, hints=[hints[1], hints[0], hints[2]], hint_weights=[0.0, 1.0, 0.0])
    np.testing.assert_array_equal(swapped, seen[0])
    assert (seen[0] != seen[1]).any()
    assert pipe.compiled() == 1


def test_a_picture_counts_as_much_as_it_is_weighed(plain, tmp_path):
    shapes = {"image_proj.proj.weight": (4 * 8, 8), "image_proj.proj.bias": (4 * 8,)}
    shapes |= {"image_proj.norm.weight": (8,), "image_proj.norm.bias": (8,)}
    shapes |= {f"ip_adapter.{n}.to_{name}_ip.weight": (8, 8) for n in (1, 3, 5, 7) for name in ("k", "v")}
    save_file(weights(shapes), tmp_path / "ip.safetensors")
    bundle = small.bundle({**small.TINY, "image_encoder": "tiny vision"})
    adapter = ip_adapter.read(tmp_path / "ip.safetensors", bundle.components["unet"])
    pipe = DiffusionPipeline(bundle, ip_adapter=adapter, devices=jax.devices()[:1])
    pictures = [small.picture(name, 32) for name in ("one", "two")]
    np.testing.assert_array_equal(run(pipe, picture=pictures[0], picture_weight=0.0), plain)
    one, two = (run(pipe, picture=picture) for picture in pictures)
    assert (one != plain).any()
    assert (one != two).any()
    assert pipe.compiled() == 1
    with pytest.raises(ValueError, match="looks at a picture: pass picture"):
        run(pipe)
    with pytest.raises(ValueError, match="needs CLIP's image encoder"):
        DiffusionPipeline(small.bundle(small.TINY), ip_adapter=adapter)


def test_variations_of_a_picture():
    pipe = small.pipeline({"unet": "tiny unet", "vae": "tiny vae", "image_encoder": "tiny vision"})
    picture = small.picture("one", 32)
    made = run(pipe, "", picture=picture)
    assert made.shape == (2, 16, 16, 3)
    assert (made != run(pipe, "", picture=picture[::-1])).any()
    # without guidance the other condition, no picture, counts for nothing
    assert (made != run(pipe, "", picture=picture, guidance=1.0)).any()
    alone = run(pipe, "", picture=picture, guidance=None).astype(int)
    assert np.abs(run(pipe, "", picture=picture, guidance=1.0) - alone).max() <= 1


def test_a_model_of_pixels_without_a_prompt():
    pipe = small.pipeline({"unet": "tiny unet_pixel"})
    pixels, latents = run(pipe, ["", ""], latents=True)
    assert pixels.shape == latents.shape == (2, 8, 8, 3)
    np.testing.assert_array_equal(pixels, np.clip(latents * 127.5 + 127.5, 0, 255).round())


def test_the_safety_checker_blackens(plain):
    bundle = small.bundle({**small.TINY, "safety_checker": "tiny safety"})
    checker = bundle.components["safety_checker"]

    def pipe(limit):
        limits = {name: np.full_like(checker.params[name], limit) for name in ("limits", "special_limits")}
        part = dataclasses.replace(checker, params={**checker.params, **limits})
        parts = {**bundle.components, "safety_checker": part}
        return DiffusionPipeline(dataclasses.replace(bundle, components=parts), safety=True, devices=jax.devices()[:1])

    np.testing.assert_array_equal(run(pipe(2.0)), plain)
    with pytest.warns(UserWarning, match="blackened pictures 0, 1"):
        assert not run(pipe(-2.0)).any()
