"""The pipeline of Stable Diffusion: what compiles, what changes pictures, and what is refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pipelines import small

from jaxdiff.diffusion.schedule import scaled_linear
from jaxdiff.models.adapter import AdapterConfig
from jaxdiff.models.autoencoder_kl import AutoencoderConfig
from jaxdiff.models.unet import UNetConfig
from jaxdiff.parallel import MeshSpec, rules
from jaxdiff.pipelines import canvas, diffusion, plan, program
from jaxdiff.pipelines.diffusion import DiffusionPipeline
from jaxdiff.pipelines.model import Model
from jaxdiff.pretrained.read import Component

STEPS = 3


@pytest.fixture(scope="module")
def lora():
    """A change of one kernel of the U-Net and one of the text encoder."""
    made = {}
    for name, path in (("unet", "mid/attn_0/block_0/attn2/k/kernel"), ("text_encoder", "block_0/attn/q/kernel")):
        leaf = small.part(small.TINY[name]).params
        for key in path.split("/"):
            leaf = leaf[key]
        rng = np.random.default_rng(0)
        down, up = rng.normal(size=(leaf.shape[0], 2)), rng.normal(size=(2, leaf.shape[1]))
        made[name] = {path: {"down": jnp.float32(down), "up": jnp.float32(up), "scale": jnp.float32(0.5)}}
    return made


@pytest.fixture(scope="module")
def pipe(lora):
    return small.pipeline(small.TINY, loras=[lora], lora_weights=[0.0])


def run(pipe, prompts=small.PROMPTS, seed=0, **options):
    return pipe(prompts, key=jax.random.key(seed), **{"steps": STEPS, **options})


def test_nothing_compiles_again(pipe):
    first = run(pipe)
    assert first.shape == (2, 16, 16, 3)
    assert first.dtype == np.uint8
    others = [
        run(pipe, ["green book", ""]),
        run(pipe, ["(seven:1.4) birds", "(seven:0.2) birds"]),
        run(pipe, seed=1),
        run(pipe, guidance=2.0),
        run(pipe, rescale=0.7),
        run(pipe, negative="heart"),
        run(pipe, negative=["heart", "bird"]),
        run(pipe, eta=1.0),
        run(pipe, sampler="dpmpp_2m", grid="karras"),
        run(pipe, sampler="euler_ancestral"),
        run(pipe, sampler={"_class_name": "UniPCMultistepScheduler"}),
        run(pipe, lora_weights=[0.8]),
    ]
    assert pipe.compiled() == 1
    for other in others:
        assert (other != first).any()
    np.testing.assert_array_equal(run(pipe), first)


def test_a_picture_depends_on_its_own_key_and_prompt(pipe):
    keys = jax.random.split(jax.random.key(3), 2)
    both = pipe(small.PROMPTS, key=keys, steps=STEPS, eta=1.0)
    swapped = pipe(small.PROMPTS[::-1], key=keys[::-1], steps=STEPS, eta=1.0)
    np.testing.assert_array_equal(both, swapped[::-1])


def test_eight_devices_make_the_pictures_of_one(lora):
    one = small.pipeline(small.TINY)
    eight = DiffusionPipeline(small.bundle(small.TINY))
    ours = run(eight, [*small.PROMPTS, "third"])
    assert np.abs(ours.astype(int) - run(one, [*small.PROMPTS, "third"]).astype(int)).max() <= 1


def test_weights_split_over_a_mesh_make_the_pictures_of_one_device(monkeypatch):
    monkeypatch.setattr(rules, "SMALLEST", 1)  # all but vectors are split, as they are in a large model
    mesh = DiffusionPipeline(small.bundle(small.TINY), spec=MeshSpec(data=2, fsdp=2, tensor=2))
    axes = {axis for leaf in jax.tree.leaves(mesh.params) for axis in leaf.sharding.spec}
    assert axes == {None, "fsdp", "tensor"}
    ours = run(mesh, [*small.PROMPTS, "third"])
    assert np.abs(ours.astype(int) - run(small.pipeline(small.TINY), [*small.PROMPTS, "third"])).max() <= 1


def test_given_noise_is_that_of_the_keys(pipe):
    keys = jax.random.split(jax.random.key(0), 2)
    noise = np.asarray(pipe.noise(keys))
    assert noise.shape == (2, 8, 8, 4)
    np.testing.assert_array_equal(run(pipe), run(pipe, seed=7, init_noise=noise))


def test_guidance(pipe):
    """1 ignores what to keep away from, and is what no guidance gives."""
    plain = run(pipe, guidance=1.0, negative="heart").astype(int)
    np.testing.assert_array_equal(plain, run(pipe, guidance=1.0))
    assert np.abs(plain - run(pipe, guidance=None)).max() <= 1


def test_latents_come_with_the_pictures(pipe):
    pixels, latents = run(pipe, latents=True)
    assert latents.shape == (2, 8, 8, 4)
    decoded = program.decode(pipe.model, pipe.params, jnp.asarray(latents))
    assert np.abs(np.clip(np.asarray(decoded) * 127.5 + 127.5, 0, 255) - pixels).max() < 0.51


def test_long_prompts_are_read_in_chunks(pipe):
    long = "seven birds in a green tree " * 20
    assert pipe.cut(long).endswith("tree")
    assert pipe.cut(long, chunks=3) == ""
    other = long + " of gold"
    with pytest.warns(UserWarning, match="does not see 'birds in .* tree'"):
        cut = run(pipe, [long, ""])
    with pytest.warns(UserWarning, match="does not see"):
        np.testing.assert_array_equal(cut, run(pipe, [other, ""]))
    whole = run(pipe, [long, ""], chunks=3)
    assert (whole != run(pipe, [other, ""], chunks=3)).any()
    assert (whole[1] == run(pipe, ["", ""], chunks=3)[1]).all()


def test_emphasis_keeps_the_mean():
    rng = np.random.default_rng(0)
    states, weights = jnp.float32(rng.normal(size=(2, 5, 3)) + 1), jnp.float32(rng.uniform(0.5, 1.5, (2, 5)))
    made = program.emphasised(states, weights)
    np.testing.assert_allclose(made.mean((1, 2)), states.mean((1, 2)), rtol=1e-5)
    ratio = made / (states * weights[..., None])
    np.testing.assert_allclose(ratio, jnp.broadcast_to(ratio[:, :1, :1], ratio.shape), rtol=1e-5)
    np.testing.assert_array_equal(program.emphasised(states, jnp.ones((2, 5))), states)


def test_all_of_a_picture_is_kept_where_nothing_is_new(pipe):
    image = small.picture("image")
    mask = np.zeros((2, 16, 16, 1))
    mask[:, :8] = 1
    _, made = run(pipe, image=image, mask=mask, latents=True)
    known = program.encode(pipe.model, pipe.params, jnp.float32(image) / 127.5 - 1) * pipe.model.nets["vae"].scale
    np.testing.assert_allclose(made[:, 4:], known[:, 4:], atol=1e-5)
    assert np.abs(made[:, :4] - known[:, :4]).min(0).max() > 0.1


def test_the_first_picture_has_the_noise_of_its_time():
    schedule = scaled_linear()
    process = small.bundle(small.TINY).process()
    made = plan.make(process, {}, steps=10, strength=0.6, start="picture", weights={}, guidance=1.0)
    t = np.float64(made.table.t[0])
    assert made.table.calls == 6
    np.testing.assert_allclose([made.signal, made.noise], [schedule.alpha(t), schedule.sigma(t)], rtol=1e-6)
    assert made.signal**2 + made.noise**2 == pytest.approx(1, rel=1e-6)
    # 1 keeps the shape of the picture in the noise, unless it is a hole that is filled
    whole = plan.make(process, {}, steps=10, strength=1.0, start="picture", weights={}, guidance=1.0)
    assert whole.signal > 0
    hole = plan.make(process, {}, steps=10, strength=1.0, start="hole", weights={}, guidance=1.0)
    assert (hole.signal, hole.noise) == (0, 1)


def test_a_canvas_grows_on_any_side():
    image = small.picture("image")
    larger, mask = canvas.outpaint(image, left=3, bottom=5)
    assert larger.shape == (2, 21, 19, 3)
    np.testing.assert_array_equal(larger[:, :16, 3:], image)
    np.testing.assert_array_equal(larger[:, :16, 0], image[:, :, 0])
    assert mask.sum() == 2 * (21 * 19 - 16 * 16)
    assert not mask[:, :16, 3:].any()
    with pytest.raises(ValueError, match="left -1"):
        canvas.outpaint(image, left=-1)


def test_a_picture_that_is_not_finite_is_an_error():
    vae = small.part("tiny vae")
    params = jax.tree.map(lambda x: x, vae.params)
    kernel = params["decoder"]["conv_out"]["kernel"]
    params["decoder"]["conv_out"] = {**params["decoder"]["conv_out"], "kernel": kernel.at[0, 0, 0, 0].set(jnp.nan)}
    bundle = small.bundle(small.TINY)
    bundle = dataclasses.replace(
        bundle, components={**bundle.components, "vae": Component(vae.kind, vae.json, vae.config, params)}
    )
    broken = DiffusionPipeline(bundle, devices=jax.devices()[:1])
    with pytest.raises(
        FloatingPointError, match=r"pictures 0, 1 .* though their latents are: the decoder's weights may be"
    ):
        run(broken)


@pytest.mark.parametrize(
    ("dtypes", "latents", "words"),
    [
        (("float32", "float16"), 1.0, "the decoder overflows in float16; load the model with decode_dtype='float32'"),
        (("float16", "float16"), np.nan, "in float16: use dtype='bfloat16' or 'float32', a lower guidance"),
        (("bfloat16", "float32"), np.nan, "computed in bfloat16: use a lower guidance"),
        (
            ("float32", None),
            np.nan,
            "the values of pictures 1 are not finite, computed in float32: use a lower guidance",
        ),
    ],
)
def test_what_was_computed_in_is_said_where_pictures_are_not_finite(dtypes, latents, words):
    nets = {"unet": UNetConfig(dtype=dtypes[0])}
    nets |= {"vae": AutoencoderConfig(dtype=dtypes[1])} if dtypes[1] else {}
    model = Model(nets, {}, small.bundle(small.TINY).process(), 4)
    out = {"bad": np.array([False, True]), "latents": np.full((2, 1, 1, 4), latents)}
    with pytest.raises(FloatingPointError, match=words):
        diffusion._check_finite(model, out)


def test_sizes_are_rounded_and_said(pipe):
    with pytest.warns(UserWarning, match="17x15 pictures are made as 16x16: sides must be multiples of 2"):
        made = run(pipe, height=17, width=15)
    np.testing.assert_array_equal(made, run(pipe))


def test_what_sides_are_multiples_of(recwarn):
    """The autoencoder's halvings; the U-Net's too where they lose an odd row; and what a T2I-adapter cuts."""
    net, vae, adapter = UNetConfig(channels=(8,) * 4), AutoencoderConfig(), AdapterConfig()

    def unit(**nets):
        return Model(nets, {}, small.bundle(small.TINY).process(), 4).unit

    assert unit(unet=net) == 1
    assert unit(unet=net, vae=vae) == 8
    assert unit(unet=dataclasses.replace(net, patch=2), vae=vae) == 16
    assert unit(unet=dataclasses.replace(net, pad_after=True), vae=vae) == 64
    assert unit(unet=dataclasses.replace(net, adm_resample=True), vae=vae) == 64
    assert unit(unet=net, vae=vae, adapter=adapter) == 64
    assert unit(unet=net, vae=vae, adapter=dataclasses.replace(adapter, factor=16, halved=(2,))) == 32
    assert canvas.fit(72, 88, 8) == (72, 88)
    assert not recwarn.list
    with pytest.warns(UserWarning, match="70x91 pictures are made as 72x88: sides must be multiples of 8"):
        assert canvas.fit(70, 91, 8) == (72, 88)


def test_pictures_of_a_size_that_does_not_halve():
    """Filled, by a ControlNet too, and decoded in tiles."""
    pipe = small.pipeline({**small.TINY, "controlnet": ["tiny control"]}, decode="tiled")
    image, mask = small.picture("image", 22)[:, :18], np.zeros((2, 18, 22, 1))
    mask[:, :9] = 1
    options = {"image": image, "mask": mask, "hints": small.picture("hint", 22)[:, :18], "steps": 2, "latents": True}
    pixels, latents = run(pipe, **options)
    assert pixels.shape == image.shape
    known = program.encode(pipe.model, pipe.params, jnp.float32(image) / 127.5 - 1) * pipe.model.nets["vae"].scale
    np.testing.assert_allclose(latents[:, 5:], known[:, 5:], atol=1e-5)
    decoded = program.decode(dataclasses.replace(pipe.model, decode="whole"), pipe.params, jnp.asarray(latents))
    assert np.abs(np.clip(np.asarray(decoded) * 127.5 + 127.5, 0, 255) - pixels).max() < 0.51


PICTURE = small.picture("image")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sampler": "dimm"}, "unknown sampler 'dimm': expected one of ddim"),
        ({"grid": "karas"}, "unknown grid 'karas': expected one of karras"),
        ({"sampler": {"_class_name": "NoScheduler"}}, "'NoScheduler' is not supported"),
        ({"sampler": {"_class_name": "DDIMScheduler", "prediction_type": "sample"}}, "another process"),
        ({"prompts": []}, "no prompt was given"),
        ({"init_noise": np.zeros((2, 8, 8, 3))}, r"expected \(2, 8, 8, 4\)"),
        ({"steps": 2000}, "1 to 1000 work"),
        ({"sampler": "dpmpp_2m", "eta": 0.5}, "no option 'eta'"),
        ({"mask": np.zeros((2, 16, 16, 1))}, "without the picture"),
        ({"image": PICTURE, "mask": np.zeros((2, 16, 8, 1))}, "mask is 16x8 and image 16x16"),
        ({"image": PICTURE, "mask": np.full((2, 16, 16, 1), 255)}, "expected 1 where new content goes"),
        ({"image": PICTURE, "mask": np.zeros((2, 16, 16))}, r"expected \[pictures, height, width, 1\]"),
        ({"image": PICTURE / 255}, "expected uint8 pictures"),
        ({"image": PICTURE[:, :, :, :1]}, "expected uint8"),
        ({"image": PICTURE, "prompts": ["a"] * 3}, "2 pictures in image and 3 prompts"),
        ({"image": PICTURE, "strength": 0.1}, "strength = 0.1 keeps 0 of 3 steps"),
        ({"image": PICTURE, "strength": 1.5}, "strength = 1.5"),
        ({"strength": 0.5}, "strength is for models that start from a picture"),
        ({"hints": PICTURE}, "load the model with a ControlNet"),
        ({"picture": PICTURE}, "looks at no picture"),
        ({"lora_weights": [1.0, 2.0]}, "lora_weights has 2 numbers: expected 1"),
        ({"negative": ["a", "b", "c"]}, "3 negative prompts for 2 pictures"),
        ({"chunks": 0}, "chunks is 0"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_compiles(pipe, options, words):
    before = pipe.compiled()
    with pytest.raises(ValueError, match=words):
        run(pipe, **options)
    assert pipe.compiled() == before


def test_keys_are_one_for_each_picture(pipe):
    with pytest.raises(ValueError, match="3 keys for 2 pictures"):
        pipe(small.PROMPTS, key=jax.random.split(jax.random.key(0), 3))


@pytest.mark.parametrize(
    ("parts", "options", "words"),
    [
        ({"unet": "tiny unet_inpaint"}, {}, "pass image and mask"),
        ({"unet": "tiny unet_inpaint"}, {"image": PICTURE}, "pass mask"),
        ({"unet": "tiny unet_edit"}, {}, "edits a picture: pass image"),
        ({"unet": "tiny unet_edit"}, {"image": PICTURE, "strength": 0.5}, "strength"),
        ({"unet": "tiny unet_edit"}, {"image": PICTURE, "mask": np.zeros((2, 16, 16, 1))}, "takes no mask"),
        ({"unet": "tiny unet_upscale", "vae": "tiny vae"}, {"image": PICTURE, "noise_level": 400}, "knows 0 to 350"),
        ({"controlnet": ["tiny control"] * 2}, {"hints": PICTURE}, "1 hints were given: expected 2"),
        (
            {"controlnet": ["tiny control"]},
            {"hints": PICTURE, "hint_weights": [1.0, 2.0]},
            "hint_weights has 2 numbers",
        ),
    ],
)
def test_what_a_task_lacks_is_told(parts, options, words):
    pipe = small.pipeline({**small.TINY, **parts})
    with pytest.raises(ValueError, match=words):
        run(pipe, **options)
    assert pipe.compiled() == 0


def test_models_that_cannot_be_are_refused():
    bundle = small.bundle(small.TINY)
    with pytest.raises(ValueError, match="no safety_checker"):
        DiffusionPipeline(bundle, safety=True)
    with pytest.raises(ValueError, match="has text_encoder but no tokenizer"):
        DiffusionPipeline(dataclasses.replace(bundle, tokenizers={}))
    rest = {name: one for name, one in bundle.components.items() if name != "unet"}
    with pytest.raises(ValueError, match="has no unet but vae, text_encoder"):
        DiffusionPipeline(dataclasses.replace(bundle, components=rest))
