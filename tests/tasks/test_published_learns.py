"""What tasks on a model of others learn, on toys: a LoRA its four pictures, a ControlNet to follow edges."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pipelines import directory, small
from reference.sd_weights import noise
from tasks import published_cases as cases

from jaxdiff import training
from jaxdiff.data import DataConfig, hints
from jaxdiff.parallel import MeshSpec
from jaxdiff.pretrained.read import Bundle
from jaxdiff.pretrained.rules import flatten, unflatten
from jaxdiff.pretrained.write import write_directory
from jaxdiff.tasks import controlnet, finetune, lora
from jaxdiff.tasks.class_pictures import PriorConfig
from jaxdiff.training import Known, OptimizerConfig, Variables

pytestmark = pytest.mark.heavy
RATE = OptimizerConfig(lr=3e-3, decay="constant", clip=1.0)
PARTS = ("attention", "feed_forward", "projections", "convolutions", "time")


def trained(task, loaded, batches, steps, rate=RATE):
    """The state after so many steps; `batches` says the batch of each."""
    optimizer = training.make_optimizer(rate, steps)
    state = jax.jit(training.make_init_state(task, optimizer))(jax.random.key(0), loaded, batches(0))
    step = jax.jit(training.make_train_step(task, optimizer, training.make_ema(0.0)), donate_argnums=0)
    for n in range(steps):
        batch = batches(n)
        state, metrics = step(state, batch, jax.random.split(jax.random.key(n), len(batch["text_encoder"])))
    assert np.isfinite(float(metrics["loss"]))
    return state


def tokens(assets, caption, count):
    base = assets.base
    one = base.bundle.tokenizers["tokenizer"].encode(caption, base.model.texts["text_encoder"])
    return jnp.asarray(np.tile(one, (count, 1)))


def test_a_lora_overfits_four_pictures_and_a_prior_keeps_their_class(tmp_path):
    """The class is a plane of latents, which the base has learned; the subject is four latents beside it."""
    model, rng = directory.save(tmp_path / "model"), np.random.default_rng(0)
    subject = np.stack([2 * noise(f"subject {i}", (8, 8, 4)) for i in range(4)])
    plane = np.stack([np.kron(2 * noise(f"plane {i}", (2, 2, 4)), np.ones((4, 4, 1), np.float32)) for i in range(2)])

    def moments(x0):
        scaled = x0 / small.part("tiny vae").config.scale
        return jnp.asarray(np.concatenate([scaled, np.full_like(x0, -30.0)], -1), jnp.float32)

    members = lambda count: moments(np.einsum("nk,khwc->nhwc", rng.normal(size=(count, 2)), plane).astype(np.float32))
    whole = finetune.Config(model=model)
    assets = whole.assets(tmp_path, cases.DATA, cases.Given(), new=True)
    of_class = lambda n: {"moments": members(16), "text_encoder": tokens(assets, "a heart", 16)}
    task = whole.task(assets)
    loaded = task.load(cases.one_device)
    loaded["unet"] = trained(task, dict(loaded), of_class, 400).params["unet"]

    def both(count):
        given = {"moments": moments(np.tile(subject, (count // 4, 1, 1, 1))), "class/moments": members(count)}
        told = {"text_encoder": "a toy heart", "class/text_encoder": "a heart"}
        return {**given, **{name: tokens(assets, caption, count) for name, caption in told.items()}}

    held, rises = both(64), {}
    for weight in (0.0, 1.0):
        config = lora.Config(model=model, parts=PARTS, rank=8)
        found = config.assets(tmp_path, cases.DATA, cases.Given())._replace(classes=cases.Given())
        task = dataclasses.replace(config, prior=PriorConfig(prompt="a heart", weight=weight)).task(found)
        measure = jax.jit(lambda params, frozen, task=task: task.loss(
            params, Known(frozen, {}, {}, 0), held, jax.random.split(jax.random.key(9), 64))[1])  # fmt: skip
        before = task.init(jax.random.key(0), dict(loaded), held)
        state = trained(task, dict(loaded), lambda n: both(4), 800)
        first, last = measure(before.params, before.frozen), measure(state.params, before.frozen)
        print(weight, {name: (float(first[name]), float(last[name])) for name in ("loss_own", "loss_class")})
        # so small a network learns the subject more slowly where it has to keep the class too
        assert last["loss_own"] < (0.8 if weight else 0.5) * first["loss_own"]
        rises[weight] = float(last["loss_class"] - first["loss_class"])
    assert rises[0.0] > 0
    assert rises[1.0] < 0.5 * rises[0.0]


SIDE = 8
UNET = {**small._JSON["tiny unet"], "block_out_channels": [16, 16], "sample_size": SIDE}
VAE = {
    **small._JSON["tiny vae"], "block_out_channels": [8], "down_block_types": ["DownEncoderBlock2D"],
    "up_block_types": ["UpDecoderBlock2D"], "scaling_factor": 1.0,
}  # fmt: skip


def transparent():
    """An autoencoder whose first latent is the picture's brightness, so that its pictures are those of the U-Net.

    Residual blocks add zeros. A norm's group holds x and -x, so that silu(x) - silu(-x) = x comes out.
    """
    part = small.tiny(VAE)
    made = {path: np.zeros(x.shape, np.float32) for path, x in flatten(part.params).items()}
    made |= {path: np.ones_like(x) for path, x in made.items() if path.endswith("scale")}
    for side in ("encoder", "decoder"):
        first, last = made[f"{side}/conv_in/kernel"], made[f"{side}/conv_out/kernel"]
        centre = tuple(n // 2 for n in first.shape[:2])
        seen = slice(0, 3) if side == "encoder" else slice(0, 1)
        first[centre][seen, 0], first[centre][seen, 1] = (sign / (seen.stop - seen.start) for sign in (1, -1))
        shown = slice(0, 1) if side == "encoder" else slice(0, 3)
        last[centre][0, shown], last[centre][1, shown] = 1, -1
    for name in ("quant_conv", "post_quant_conv"):
        kernel = made[f"{name}/kernel"]
        kernel[tuple(n // 2 for n in kernel.shape[:2])] = np.eye(kernel.shape[-1])
    made["quant_conv/bias"][4:] = -30  # no noise
    return dataclasses.replace(part, params=unflatten({path: jnp.asarray(x) for path, x in made.items()}))


def boxes(count, rng):
    """Bright boxes on black, uint8 [count h w 3], and their edges."""
    made = np.zeros((count, SIDE, SIDE, 3), np.uint8)
    for image in made:
        (top, left), (height, width) = rng.integers(1, 4, 2), rng.integers(3, 5, 2)
        image[top : top + height, left : left + width] = 255
    return made, np.stack([hints.canny(image) for image in made])


def agreement(pictures, edges):
    """The F1 score of the pictures' edges."""
    ours = np.stack([hints.canny(image) for image in pictures])[..., 0] > 0
    theirs = edges[..., 0] > 0
    return 2 * (ours & theirs).sum() / (ours.sum() + theirs.sum())


def test_a_controlnet_follows_its_hints(tmp_path):
    parts = {"unet": small.tiny(UNET), "vae": transparent(), "text_encoder": small.part("tiny text")}
    bundle = small.bundle()
    index = {**bundle.index, **{name: ["diffusers", part.kind] for name, part in parts.items()}}
    write_directory(Bundle(bundle.kind, index, parts, bundle.tokenizers, bundle.schedulers), tmp_path / "model")
    data, rng = DataConfig(name="none", size=SIDE), np.random.default_rng(0)
    whole = finetune.Config(model=tmp_path / "model")
    assets = whole.assets(tmp_path, data, cases.Given(), new=True)

    def batch(n):
        images, edges = boxes(16, rng)
        return {"image": jnp.asarray(images), "hint": jnp.asarray(edges), "text_encoder": tokens(assets, "a box", 16)}

    task = whole.task(assets)
    loaded = task.load(cases.one_device)
    plain = lambda n: {name: x for name, x in batch(n).items() if name != "hint"}
    loaded["unet"] = trained(task, dict(loaded), plain, 600).params["unet"]
    config = controlnet.Config(model=tmp_path / "model", hint_channels=(8,))
    found = config.assets(tmp_path, data)
    state = trained(config.task(found), dict(loaded), batch, 600)
    _, edges = boxes(32, rng)
    pipe = config.pipeline(found, Variables(state.params, {**state.frozen, "unet": loaded["unet"]}), MeshSpec())
    options = {"steps": 20, "guidance": None, "height": SIDE, "width": SIDE}
    drawn = pipe(["a box"] * 32, key=jax.random.key(5), hints=[edges], **options)
    own, other = agreement(drawn, edges), agreement(drawn, np.roll(edges, 1, 0))
    print(own, other)
    assert own > 0.5
    assert other < 0.6 * own  # boxes overlap, so that another's edges agree by chance too
