"""The losses of an autoencoder, beside each side's alone and closed forms; its codebook; what it gives others."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import training
from jaxdiff.data.shapes import ShapesSource
from jaxdiff.data.source import DataConfig
from jaxdiff.metrics import speed
from jaxdiff.models.autoencoder_kl import AutoencoderConfig
from jaxdiff.models.autoencoder_vq import VQConfig
from jaxdiff.models.patch_critic import PatchCriticConfig
from jaxdiff.models.unet import UNetConfig
from jaxdiff.objectives import adversarial, autoencoding, codebook
from jaxdiff.pretrained.read import read_component
from jaxdiff.pretrained.rules import autoencoder as rules
from jaxdiff.pretrained.write import write_directory
from jaxdiff.tasks import first_stage
from jaxdiff.tasks.first_stage import Assets, Config
from jaxdiff.tasks.first_stage_loss import LossConfig, to_unit, weights_of
from jaxdiff.training import Known, OptimizerConfig, Variables

SIZE = 16
NET = AutoencoderConfig(channels=(4, 8), layers=1, latent_channels=2, groups=2, mid_attention=False)
VQ = VQConfig(**dataclasses.asdict(NET), codes=8, width=2)
LOSS = LossConfig(
    perceptual="none",
    frechet="none",
    kl=1e-3,
    adversarial_start=5,
    critic=PatchCriticConfig(width=4, layers=1, groups=2),
)
PLAIN = dataclasses.replace(LOSS, adversarial="none")
KL = Config(net=NET, loss=LOSS)
VQ_LOSS = dataclasses.replace(PLAIN, kl=1e-6)
RNG = np.random.default_rng(0)
BATCH = {"image": jnp.asarray(RNG.integers(0, 256, (4, SIZE, SIZE, 3)).astype(np.uint8))}
KEYS = jax.random.key_data(jax.random.split(jax.random.key(1), 4))
"""As bits, which the check for reuse lets pass."""


def keys(rows=slice(None)):
    return jax.random.wrap_key_data(KEYS[rows])


def variables(config):
    """Random ones: a task's own first ones take longer to compile than all else here."""
    task = config.task(Assets(SIZE, np.zeros((0, SIZE, SIZE, 3), np.uint8)))
    shapes = jax.eval_shape(task.init, jax.random.key(0), {}, BATCH)
    params = jax.tree.map(lambda x: jnp.asarray(0.3 * RNG.standard_normal(x.shape), x.dtype), shapes.params)
    extra = dict(config.loss.init_extra(config.net))
    if "codebook" in shapes.extra:
        codes = jnp.asarray(RNG.standard_normal((8, 2)), jnp.float32)
        extra["codebook"] = codebook.start(codes if config.loss.codebook == "ema" else 0 * codes)
    assert jax.tree.structure(extra) == jax.tree.structure(shapes.extra)
    return task, Variables(params, {}, extra)


def critic(part, image):
    return LOSS.critic.build().apply({"params": part}, image)


@pytest.fixture(scope="module")
def sides():
    """(step, balance, rows of the batch) -> loss, gradient and stats of the whole, and gradients of each loss alone."""
    task, start = variables(KL)

    @jax.jit
    def run(params, step, balance, rows):
        batch, x, draw = {"image": BATCH["image"][rows]}, to_unit(BATCH["image"][rows]), lambda: keys(rows)
        known = Known({}, {**start.extra, "balance": balance}, {}, step)
        whole_loss = lambda p: (lambda loss, metrics, stats: (loss, stats))(*task.loss(p, known, batch, draw()))
        (loss, stats), gradient = jax.value_and_grad(whole_loss, has_aux=True)(params)
        made = lambda g: LOSS._make(NET, {"generator": g}, known, batch, draw()).y
        g, d = params["generator"], params["critic"]
        plain = jax.grad(lambda g: PLAIN.loss(NET, {"generator": g}, known, batch, draw())[0])(g)
        fool = jax.grad(lambda g: adversarial.generator_loss(critic(d, made(g)), "hinge"))(g)
        tell = jax.grad(lambda d: adversarial.critic_loss(critic(d, x), critic(d, made(g)), "hinge"))(d)
        pixel = jax.grad(lambda g: jnp.abs(x - made(g)).mean())(g)
        return loss, gradient, stats, {"plain": plain, "fool": fool, "tell": tell, "pixel": pixel}

    return lambda step, balance=0.7, rows=(0, 1, 2, 3): run(start.params, step, balance, jnp.array(rows))


@pytest.mark.parametrize(("step", "on"), [(4, 0), (5, 1)])
def test_each_side_moves_as_under_a_loss_of_its_own(sides, step, on):
    """The generator's is reconstruction + weight x balance x fool; before its start the critic changes nothing."""
    _, gradient, _, alone = sides(step)
    expected = {
        "generator": jax.tree.map(lambda a, b: a + on * 0.5 * 0.7 * b, alone["plain"], alone["fool"]),
        "critic": jax.tree.map(lambda x: on * x, alone["tell"]),
    }
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), gradient, expected)


def test_the_balance_is_that_of_the_gradients_at_the_last_kernel(sides):
    _, _, stats, alone = sides(9)
    at_end = lambda g: jnp.linalg.norm(g["decoder"]["conv_out"]["kernel"].reshape(-1))
    moved = LOSS.absorb(LOSS.init_extra(NET), stats)["balance"]
    np.testing.assert_allclose(moved, at_end(alone["pixel"]) / (at_end(alone["fool"]) + 1e-4), rtol=1e-4)


def test_what_a_batch_gives_is_the_mean_of_what_its_parts_give(sides):
    """Loss, gradient and stats: so devices and accumulation change nothing. Each half comes twice, with its keys."""
    batch, first, second = (sides(9, rows=rows)[:3] for rows in ((0, 1, 2, 3), (0, 1, 0, 1), (2, 3, 2, 3)))
    close = lambda a, b, c: np.testing.assert_allclose(a, (b + c) / 2, rtol=1e-4, atol=1e-6)
    jax.tree.map(close, batch, first, second)


def test_a_step_executes_no_more_than_two_separate_losses_would():
    """Counted in the traced gradients; with the adaptive weight on our side alone."""
    task, start = variables(KL)
    known, x = Known({}, start.extra, {}, jnp.int32(9)), to_unit(BATCH["image"])
    flops = lambda f, p: speed.work(jax.make_jaxpr(jax.grad(f))(p)).flops
    both = flops(lambda p: task.loss(p, known, BATCH, keys())[0], start.params)

    def generator(g):
        made = LOSS._make(NET, {"generator": g}, known, BATCH, keys())
        fool = adversarial.generator_loss(critic(start.params["critic"], made.y), "hinge")
        return jnp.abs(made.x - made.y).mean() + made.prior + fool

    def other(d):
        y = LOSS._make(NET, start.params, known, BATCH, keys()).y
        return adversarial.critic_loss(critic(d, x), critic(d, y), "hinge")

    apart = flops(generator, start.params["generator"]) + flops(other, start.params["critic"])
    assert 0 < both <= apart


def test_plain_denoising_sparse_and_beta_are_settings_of_one_loss():
    _, start = variables(dataclasses.replace(KL, loss=PLAIN))
    g, beta = start.params["generator"], 4.0
    settings = {
        "plain": {"kl": 0.0, "sample": False, "pixel": "l2"},
        "beta": {"kl": 2 * beta, "sample": False, "pixel": "l2"},
        "sparse": {"kl": 0.0, "sample": False, "sparse": 0.3, "rho": 0.1},
        "masking": {"kl": 0.0, "sample": False, "corruption": "masking", "amount": 0.5},
    }

    @jax.jit
    def run(g):
        losses = {}
        for name, fields in settings.items():
            config = dataclasses.replace(PLAIN, **fields)
            extra = {**config.init_extra(NET), **({"active": jnp.array([0.2, 0.6])} if name == "sparse" else {})}
            losses[name] = config.loss(NET, {"generator": g}, Known({}, extra, {}, 0), BATCH, keys())[0]
        x = to_unit(BATCH["image"])
        spoil = jax.vmap(lambda key: jax.random.fold_in(key, 0))(keys())
        apply = lambda *args, **how: NET.build().apply({"params": g}, *args, **how)
        spoilt = autoencoding.corrupt(x, spoil, "masking", 0.5)
        return losses, x, apply(x), apply(x, method="encode"), apply(spoilt)

    losses, x, y, (mean, log_var), undone = jax.device_get(run(g))
    square = ((x - y) ** 2).reshape(4, -1)
    kl = ((mean**2 + np.exp(log_var) - 1 - log_var) / 2).reshape(4, -1).sum(1)
    size = SIZE * SIZE * 3
    divergence = sum(0.1 * np.log(0.1 / a) + 0.9 * np.log(0.9 / (1 - a)) for a in (0.2, 0.6))
    expected = {
        "plain": square.mean(),
        "beta": 2 / size * (square.sum(1) / 2 + beta * kl).mean(),  # 2 / D of the negative bound, up to a constant
        "sparse": np.abs(x - y).mean() + 0.3 * divergence,
        "masking": np.abs(x - undone).mean(),
    }
    for name, value in expected.items():
        assert losses[name] == pytest.approx(value, rel=1e-5), name


@pytest.mark.parametrize("how", ["ema", "gradient"])
def test_the_codebook_is_moved_by_averages_or_by_its_gradient_and_dead_codes_start_again(how):
    config = Config(net=VQ, loss=dataclasses.replace(VQ_LOSS, codebook=how))
    task, start = variables(config)
    known = Known({}, start.extra, {}, 0)

    def loss(p):
        value, metrics, stats = task.loss(p, known, BATCH, keys())
        return value, (metrics, stats)

    @jax.jit
    def run(p):
        generator, x = p["generator"], to_unit(BATCH["image"])
        encoder, weights = generator["encoder"], weights_of(generator, start.extra)
        apply = lambda params, *args, **how: VQ.build().apply({"params": params}, *args, **how)
        out, back = jax.vjp(lambda encoder: apply({**weights, "encoder": encoder}, x, method="encode"), encoder)
        q, _ = apply(weights, out, method="quantize")
        after = lambda q: jnp.abs(x - apply(weights, q, method="decode", quantized=True)).mean()
        straight = jax.grad(after)(q) + jax.grad(lambda z: 0.25 * ((z - q) ** 2).mean())(out)
        return jax.value_and_grad(loss, has_aux=True)(p), back(straight)[0], 2 * (q - out) / q.size, out

    ((_, (metrics, stats)), grads), encoder, pull, z = run(start.params)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), grads["generator"]["encoder"], encoder
    )
    before = weights_of(start.params["generator"], start.extra)["codebook"]
    index = jnp.argmin(((z[..., None, :] - before[None, None, None]) ** 2).sum(-1), -1)
    moved = task.absorb(start.extra, stats)
    after = weights_of(start.params["generator"], moved)["codebook"]
    if how == "gradient":
        expected = jnp.zeros_like(before).at[index].add(pull)
        np.testing.assert_allclose(grads["generator"]["codebook"], expected, rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(after, before)
    else:
        assert "codebook" not in grads["generator"]
        n = (index.reshape(-1, 1) == jnp.arange(8)[None]).astype(jnp.float32)
        count = 0.99 + 0.01 * n.sum(0) / 4
        expected = (0.99 * before + 0.01 * n.T @ z.reshape(-1, 2) / 4) / count[:, None]
        np.testing.assert_allclose(after, expected, rtol=1e-4, atol=1e-6)
    assert (metrics["usage"], metrics["perplexity"]) == (1.0, pytest.approx(8, rel=1e-5)), "before the first choice"
    dead = start.extra["codebook"]._replace(counts=jnp.ones(8).at[3].set(0.0))
    stats = {**stats, "codebook": stats["codebook"]._replace(chosen=stats["codebook"].chosen.at[3].set(0.0))}
    again = weights_of(start.params["generator"], task.absorb({**start.extra, "codebook": dead}, stats))["codebook"]
    offered = stats["codebook"]
    if offered.offers[3] > 0:
        np.testing.assert_allclose(again[3], offered.offered[3] / offered.offers[3], rtol=1e-5, atol=1e-6)
    assert weights_of(start.params["generator"], moved)["codebook"].shape == before.shape


@pytest.mark.parametrize("net", [NET, VQ], ids=["kl", "vq"])
def test_others_read_what_it_gives_them_with_the_scale_of_its_latents(net, tmp_path):
    config = Config(net=net, loss=LOSS if net is NET else VQ_LOSS)
    _, start = variables(config)
    extra = {**start.extra, "latents": jnp.array([0.5, 0.5 * 1.0, 0.5 * 5.0])}  # mean 1, variance 4, half the weight
    bundle = config.bundle(Assets(SIZE, None), start._replace(extra=extra))
    part = bundle.components["vae"]
    assert part.config == dataclasses.replace(net, scale=0.5)
    write_directory(bundle, tmp_path / "model")
    read = read_component(tmp_path / "model" / "vae")
    assert (read.kind, read.config) == (part.kind, part.config)
    jax.tree.map(np.testing.assert_array_equal, read.params, part.params)
    assert first_stage.scale({"latents": jnp.zeros(3)}) == 1


@pytest.mark.parametrize(
    ("net", "fields", "words"),
    [
        (dataclasses.replace(NET, scale=(1.0, 2.0)), {}, "expected one scale"),
        (dataclasses.replace(VQ, quant_conv=False), {}, "always has both"),
        (dataclasses.replace(VQ, shift=0.5), {}, "of a VQModel no shift"),
    ],
)
def test_what_the_reference_has_no_field_for_is_refused(net, fields, words):
    with pytest.raises(ValueError, match=words):
        rules.published(net)


def replaced(**fields):
    return dataclasses.replace(KL, loss=dataclasses.replace(LOSS, **fields))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (replaced(kl=float("nan")), "task.loss.kl is nan"),
        (replaced(corruption="masking"), "give both, or neither"),
        (replaced(corruption="masking", amount=1.5), "at most 1"),
        (replaced(corruption="gaussian", amount=-0.5), "task.loss.amount is -0.5"),
        (replaced(rho=0.0), "task.loss.rho is 0.0"),
        (replaced(codebook_decay=1.0), "below 1"),
        (replaced(commit=0.5), "task.loss.commit is 0.5, which autoencoder_kl has no use for"),
        (dataclasses.replace(KL, net=VQ), "task.loss.kl is 0.001, which autoencoder_vq has no use for"),
        (replaced(adversarial_start=-1), "adversarial_start is -1"),
        (replaced(critic=PatchCriticConfig(layers=3)), "too small for 3 layers"),
        (replaced(critic=PatchCriticConfig(width=3)), "does not divide by groups"),
        (dataclasses.replace(KL, net=dataclasses.replace(NET, channels=(4,) * 6)), "multiples of 32"),
        (dataclasses.replace(KL, net=dataclasses.replace(NET, in_channels=1)), "images have 3"),
        (dataclasses.replace(KL, net=dataclasses.replace(NET, scale=1.0)), "task.net.scale is 1.0: leave it out"),
        (dataclasses.replace(KL, net=dataclasses.replace(VQ, codes=1)), "at least 2 vectors"),
        (dataclasses.replace(KL, net=UNetConfig()), "expected autoencoder_kl or autoencoder_vq"),
        (dataclasses.replace(KL, previews=-1), "task.previews is -1"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        config.check(DataConfig(size=SIZE), OptimizerConfig())


@pytest.mark.parametrize(("name", "size"), [("efficientnet_lite0", 24), ("lpips_alex", 16), ("lpips_vgg", 12)])
def test_images_that_a_classifier_cannot_look_at_are_refused(name, size):
    with pytest.raises(ValueError, match=f"sides of {size}: {name} needs"):
        replaced(perceptual=name, adversarial="none").check(DataConfig(size=size), OptimizerConfig())


def test_images_that_the_window_of_ssim_does_not_fit_in_are_refused():
    with pytest.raises(ValueError, match=r"data\.size is 8: expected at least 11"):
        KL.check(DataConfig(size=8), OptimizerConfig())


def test_a_run_that_ends_before_its_critic_starts_is_refused():
    with pytest.raises(ValueError, match=r"adversarial_start is 5 and train\.steps 5: the critic would never count"):
        KL.check_steps(5)
    with pytest.raises(ValueError, match=r"optimizer\.lr of group critic is 0"):
        dataclasses.replace(KL, critic_optimizer=OptimizerConfig(lr=0.0)).check_steps(6)
    dataclasses.replace(KL, loss=PLAIN).check_steps(1)


def test_weights_that_are_missing_are_named(tmp_path):
    config = dataclasses.replace(LOSS, perceptual="lpips_vgg", weights=str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"no weights at .*vgg16-397923af.pth.*--task.loss.weights"):
        config.load()
    assert LOSS.load() == {}


def test_the_images_it_shows_are_the_first_of_its_data():
    class Source:
        labels = ()

        def captions(self):
            return []

        def __len__(self):
            return 3

        def __getitem__(self, i):
            return {"image": np.full((SIZE, SIZE, 3), i, np.uint8)}

    assets = dataclasses.replace(KL, previews=2).assets(Path("."), DataConfig(size=SIZE), Source())
    assert assets.images[:, 0, 0, 0].tolist() == [0, 1]
    assert KL.assets(Path("."), DataConfig(size=SIZE)).images.shape == (0, SIZE, SIZE, 3)
    assert "reconstructions" in KL.task(assets).previews


@pytest.mark.heavy
def test_a_denoising_autoencoder_undoes_what_a_plain_one_does_not():
    """Of shapes, of which half of the pixels are masked: trained alike, each on 600 batches, on held-out pictures."""
    source = ShapesSource(DataConfig(name="shapes", size=8, split="train"))
    held = ShapesSource(DataConfig(name="shapes", size=8, split="test"))
    images, others = (np.stack([one[i]["image"] for i in range(len(one))]) for one in (source, held))
    net = AutoencoderConfig(channels=(16, 16), layers=1, groups=4, latent_channels=4, mid_attention=False)
    draws = jax.random.split(jax.random.key(1), len(others))
    spoilt = autoencoding.corrupt(to_unit(jnp.asarray(others)), draws, "masking", 0.5)
    errors = {}
    for name, fields in (("plain", {}), ("denoising", {"corruption": "masking", "amount": 0.5})):
        loss = dataclasses.replace(PLAIN, pixel="l2", kl=0.0, sample=False, **fields)
        task = Config(net=net, loss=loss, previews=0).task(Assets(8, np.zeros((0, 8, 8, 3), np.uint8)))
        optimizer = training.make_optimizer(OptimizerConfig(name="adam", lr=3e-3, decay="constant"), 600, ())
        step = jax.jit(training.make_train_step(task, optimizer, training.make_ema(0.0)))
        state = training.make_init_state(task, optimizer)(jax.random.key(0), {}, {"image": images[:1]})
        for n in range(600):
            rows = np.random.default_rng(n).integers(len(images), size=32)
            state, _ = step(state, {"image": images[rows]}, jax.random.split(jax.random.key(n), 32))
        undone = net.build().apply({"params": state.params["generator"]}, spoilt)
        errors[name] = float(((undone - to_unit(jnp.asarray(others))) ** 2).mean())
    print(errors)
    assert errors["denoising"] < errors["plain"] / 2
