"""Latent diffusion with a network of a few matrices, which compiles at once: what is trained on, what the network is
told, what a run keeps, and what is refused. The autoencoder and CLIP are tiny ones of the right classes.
"""

import dataclasses
import pathlib
import shutil

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from pipelines import directory, small

from jaxdiff.data import DataConfig, open_source
from jaxdiff.dryrun import subject
from jaxdiff.experiment import Experiment
from jaxdiff.models.autoencoder_kl import AutoencoderKL
from jaxdiff.models.config import NetConfig
from jaxdiff.models.text_clip import ClipText
from jaxdiff.models.unet import UNetConfig
from jaxdiff.parallel import MeshSpec, make_mesh
from jaxdiff.pipelines import canvas, encode, first_stage, inputs
from jaxdiff.pipelines.model import make_model
from jaxdiff.pipelines.options import of_model
from jaxdiff.pretrained import clip_tokenizer, latent_model
from jaxdiff.pretrained.read import read_component, read_directory
from jaxdiff.pretrained.write import write_component, write_directory
from jaxdiff.tasks import frozen_text, latent, picture
from jaxdiff.tasks import teacher as teachers
from jaxdiff.training import Known, OptimizerConfig, Variables

COUNT, SIZE = 6, 16
KEYS = jax.random.split(jax.random.key(3), COUNT)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Linear(NetConfig):
    """A network that depends on everything it is told."""

    out_channels: int = 4
    pooled: bool = False
    labels: int = 0

    def build(self):
        return LinearNet(self)

    def check(self, *sides):
        assert all(side % 2 == 0 for side in sides)


class LinearNet(nn.Module):
    config: Linear

    @nn.compact
    def __call__(self, x, t, cond, keys=None):
        out = self.config.out_channels
        y = nn.Dense(out, name="x")(x)
        if cond.image is not None:
            y = y + nn.Dense(out, name="image")(cond.image)
        if cond.context is not None:
            y = y + nn.Dense(out, name="context")(cond.context.mean(1))[:, None, None]
        return y


CONFIG = latent.Config(
    process=picture.ProcessConfig(prediction="v", clip=None), net=Linear(), condition="clip", drop=0.0,
    picture="blurred",
)  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model of others, pictures, and their latents: in float32, so that nothing but the way differs."""
    top = tmp_path_factory.mktemp("place")
    directory.save(top / "model")
    write_component(small.tiny({**small._VAE, "latent_channels": 3}), top / "three")
    rng = np.random.default_rng(0)
    for i in range(COUNT):
        (top / "pictures" / "train").mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(top / "pictures" / "train" / f"{i}.png")
        (top / "pictures" / "train" / f"{i}.txt").write_text(f"number {i}")
    text = encode.Text(read_component(top / "model" / "text_encoder"), clip_tokenizer.read(top / "model" / "tokenizer"))
    vae = read_component(top / "model" / "vae")
    config = encode.EncodeConfig(dtype="float32", batch=8, shard_rows=4)
    made = encode.encode(pixels_of(top), ["train"], vae, top / "latents", text=text, config=config)
    assert made["train"] is not None
    return top


def pixels_of(top):
    return DataConfig(name=str(top / "pictures"), size=SIZE, workers=0)


def latents_of(top):
    return dataclasses.replace(pixels_of(top), name=str(top / "latents"))


def opened(config, data, folder, new=True):
    config.check(data, OptimizerConfig())
    source = open_source(data)
    return source, config.assets(folder, data, source, new=new)


def one_device(shapes):
    return jax.tree.map(lambda _: jax.sharding.SingleDeviceSharding(jax.devices()[0]), shapes)


def batch_of(task, source):
    rows = [task.example(dict(source[i]), np.random.default_rng(0)) for i in range(COUNT)]
    return {name: jnp.asarray(np.stack([row[name] for row in rows])) for name in rows[0]}


def waves(params):
    """Nowhere the same."""
    return jax.tree.map(lambda x: jnp.cos(jnp.arange(x.size, dtype=x.dtype).reshape(x.shape)), params)


def test_latents_are_what_the_networks_say(place):
    data, source = open_source(pixels_of(place)), open_source(latents_of(place))
    vae, text = (read_component(place / "model" / name) for name in ("vae", "text_encoder"))
    image = np.stack([data[i]["image"] for i in range(COUNT)])
    mean, log_var = AutoencoderKL(vae.config).apply(
        {"params": vae.params}, jnp.asarray(image / 127.5 - 1.0, jnp.float32), method="encode"
    )
    row = np.stack([source[i]["moments"][0] for i in range(COUNT)])
    np.testing.assert_allclose(row, np.concatenate([mean, log_var], -1), rtol=1e-4, atol=1e-4)
    tokens = clip_tokenizer.read(place / "model" / "tokenizer").encode("number 2", 77)
    states, _ = ClipText(text.config).apply({"params": text.params}, jnp.asarray(tokens[None]))
    np.testing.assert_allclose(source[2]["context"], states[0], rtol=1e-4, atol=1e-5)
    means = image[4].astype(float).reshape(8, 2, 8, 2, 3).mean((1, 3))
    assert np.abs(source[4]["small"][0] - means).max() <= 0.5
    spread = np.exp(np.asarray(log_var, np.float64)).mean() + np.asarray(mean, np.float64).var()
    np.testing.assert_allclose(source.manifest.deviation, spread**0.5, rtol=1e-4)


def test_cached_latents_train_as_encoding_in_the_step_does(place, tmp_path):
    """The same pictures, captions and keys: the same loss and gradient."""
    told = {}
    for name, data in (("cached", latents_of(place)), ("fly", pixels_of(place))):
        model = place / "model"
        given = {} if name == "cached" else {"autoencoder": model, "text_encoder": model}
        config = dataclasses.replace(CONFIG, drop=0.4, **given)
        source, assets = opened(config, data, tmp_path / name)
        task = config.task(assets)
        batch = batch_of(task, source)
        assert ("moments" in batch, "context" in batch) == (name == "cached",) * 2
        variables = task.init(jax.random.key(0), task.load(one_device), batch)
        params = waves(variables.params)
        value = jax.jit(jax.value_and_grad(lambda p, f, b, k, task=task: task.loss(p, Known(f, {}, {}, 0), b, k)[0]))
        told[name] = value(params, variables.frozen, batch, KEYS)
        latents = config._x0(assets, variables.frozen, batch, KEYS)
        assert abs(float(latents.std()) - 1) < 0.05, "unit deviation, but for what is drawn"
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5), told["cached"], told["fly"])


def test_a_dropped_caption_is_the_empty_text(place, tmp_path):
    source, assets = opened(CONFIG, latents_of(place), tmp_path)
    frozen = CONFIG.task(assets).load(one_device)
    batch = batch_of(CONFIG.task(assets), source)
    empty = frozen_text.states(assets.clip, frozen, frozen_text.tokens(assets.clip, "")[None])
    losses = []
    for drop, context in ((1.0, batch["context"]), (0.0, np.repeat(empty, COUNT, 0)), (0.0, batch["context"])):
        task = dataclasses.replace(CONFIG, drop=drop).task(assets)
        params = waves(task.init(jax.random.key(0), frozen, batch).params)
        losses.append(float(task.loss(params, Known(frozen, {}, {}, 0), {**batch, "context": context}, KEYS)[0]))
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
    assert abs(losses[2] - losses[1]) > 1e-4


@pytest.mark.parametrize("data", [pixels_of, latents_of])
def test_a_student_has_the_networks_and_the_words_of_its_teacher(place, tmp_path, monkeypatch, data):
    teacher = dataclasses.replace(CONFIG, autoencoder=place / "model", text_encoder=place / "model", scale=0.3)
    opened(teacher, pixels_of(place), tmp_path / "teacher")
    found = teachers.Teacher(tmp_path / "teacher", teacher, SIZE)
    monkeypatch.setattr(teachers, "read", lambda path: found)  # whose network is no kind that a file names
    halving = picture.ProcessConfig(
        objective="progressive", prediction="v", weight="truncated_snr", clip=None, intervals=(4, 1), stage=2
    )
    student = dataclasses.replace(CONFIG, process=halving, teacher=tmp_path / "teacher")
    source, assets = opened(student, data(place), tmp_path / "student")
    for name, file in (("autoencoder", "config.json"), ("tokenizer", "merges.txt")):
        assert (tmp_path / "student" / name / file).read_bytes() == (tmp_path / "teacher" / name / file).read_bytes()
    monkeypatch.setattr(picture, "load_params", lambda at, like: waves(like))
    task = student.task(assets)
    loaded, batch = task.load(one_device), batch_of(task, source)
    first = task.init(jax.random.key(0), loaded, batch)
    assert sorted(first.frozen) == ["autoencoder", "text_encoder"]
    jax.tree.map(np.testing.assert_array_equal, first.params, waves(first.params))
    known = Known(first.frozen, first.extra, first.params, np.int32(0))
    loss, _, stats = jax.jit(task.loss)(first.params, known, batch, KEYS)
    assert np.isfinite(loss)
    assert task.absorb(first.extra, stats).keys() == first.extra.keys()
    for change, message in (
        ({"scale": 1.0}, "task.scale is given, and a student has its teacher's: leave it out"),
        ({"blur": 1.0}, "another model than its student: task.blur is 2.0 there and 1.0 here"),
    ):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(student, **change).check(pixels_of(place), OptimizerConfig())


@pytest.mark.parametrize("steered", ["none", "low_resolution", "blurred"])
def test_a_run_is_a_bundle_that_a_pipeline_takes(place, tmp_path, steered):
    net = UNetConfig(
        out_channels=4, channels=(8,), layers=1, attention=("cross",), mid_attention="none", heads=(1,), depth=(1,),
        groups=4,
    )  # fmt: skip
    config = dataclasses.replace(CONFIG, net=net, picture=steered)
    source, assets = opened(config, latents_of(place), tmp_path)
    task = config.task(assets)
    shapes = jax.eval_shape(task.init, jax.random.key(0), task.load(one_device), batch_of(task, source))
    bundle = config.bundle(assets, Variables(shapes.params, shapes.frozen))
    model = make_model(bundle)
    assert (model.factor, model.channels, model.extra) == (2, 4, 0 if steered == "none" else 3)
    assert model.chunked
    assert not model.edits
    assert not hasattr(of_model(model)(), "noise_level")
    assert bundle.components["unet"].json["sample_size"] == SIZE // 2
    scale = bundle.components["vae"].config.scale
    np.testing.assert_allclose(scale, 1 / source.manifest.deviation, rtol=1e-6)
    if steered == "blurred":  # what the user gives to a model that a map steers
        seen = dataclasses.replace(model, picture="semantic_map")
        given = np.array([[[0, 9], [9, 0]]], np.uint8).repeat(4, 1).repeat(4, 2)[..., None].repeat(3, -1)
        assert inputs.size(seen, SIZE // 2, given, None, None, None) == (8, 8)
        np.testing.assert_array_equal(inputs.pictures(seen, given, None, 1, (8, 8))["image"], given[:, ::2, ::2])


def test_a_semantic_map_steers_by_its_colours(place, tmp_path):
    """No colour is mixed with another; the file has the name of its picture, and a user's map is scaled alike."""
    rng = np.random.default_rng(1)
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
    maps = {}
    for i in range(COUNT):
        (tmp_path / "maps").mkdir(parents=True, exist_ok=True)
        maps[i] = colours[rng.integers(0, 3, (SIZE, SIZE))]
        Image.fromarray(maps[i]).save(tmp_path / "maps" / f"{i}.png")
    steered = {"picture": "semantic_map", "maps": tmp_path / "maps", "condition": "none", "text_encoder": None}
    config = dataclasses.replace(CONFIG, **steered, autoencoder=place / "model", scale=1.0)
    for change, data, message in (
        ({"maps": None}, pixels_of(place), "task.picture is 'semantic_map' and task.maps is None"),
        ({}, dataclasses.replace(pixels_of(place), flip=True), "data.flip mirrors pictures alone"),
        ({}, latents_of(place), "are latents, which have no names"),
        ({"picture": "none"}, pixels_of(place), "semantic maps, and nothing else, need the folder"),
        ({"maps": place / "pictures" / "none"}, pixels_of(place), "there is no such folder"),
    ):
        with pytest.raises((ValueError, OSError), match=message):
            opened(dataclasses.replace(config, **change), data, tmp_path / "refused")
    source, assets = opened(config, pixels_of(place), tmp_path / "run")
    task = config.task(assets)
    batch = batch_of(task, source)
    assert batch["small"].shape == (COUNT, SIZE // 2, SIZE // 2, 3)
    for i in range(COUNT):
        own = maps[int(pathlib.Path(source[i]["name"]).stem)]
        np.testing.assert_array_equal(batch["small"][i], canvas.nearest(own[None], SIZE // 2, SIZE // 2)[0])
    assert {tuple(x) for x in np.asarray(batch["small"]).reshape(-1, 3)} == {tuple(x) for x in colours}
    variables = task.init(jax.random.key(0), task.load(one_device), batch)
    known, other = Known(variables.frozen, {}, {}, 0), {**batch, "small": 255 - batch["small"]}
    losses = [float(task.loss(waves(variables.params), known, one, KEYS)[0]) for one in (batch, other)]
    assert abs(losses[0] - losses[1]) > 1e-4
    (tmp_path / "maps" / "2.png").unlink()
    with pytest.raises(ValueError, match=r"lacks 1 of 6: .*2\.png; a file has the name of its picture"):
        opened(config, pixels_of(place), tmp_path / "other")


STABLE = UNetConfig(
    out_channels=4, channels=(8, 8), layers=1, attention=("cross", "none"), mid_attention="cross", heads=(2, 2),
    depth=(1, 1), groups=4, time_shift=0.0, sin_first=False,
)  # fmt: skip
ALONE = dataclasses.replace(STABLE, attention=("none", "self"), mid_attention="self")


@pytest.mark.parametrize(("condition", "net"), [("clip", STABLE), ("none", ALONE)])
def test_a_run_is_converted_to_the_class_that_diffusers_has(place, tmp_path, condition, net):
    """Written and read back, it is the same networks, with the scale that was measured."""
    config = dataclasses.replace(CONFIG, net=net, picture="none", condition=condition)
    source, assets = opened(config, latents_of(place), tmp_path)
    task = config.task(assets)
    loaded = task.load(one_device)
    shapes = jax.eval_shape(task.init, jax.random.key(0), loaded, batch_of(task, source)).params
    params = waves(jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes))
    bundle = config.bundle(assets, Variables(params, loaded))
    write_directory(latent_model.published(bundle), tmp_path / "made")
    back = read_directory(tmp_path / "made")
    read = back.components["unet"].config
    assert read == dataclasses.replace(net, dtype=read.dtype)
    jax.tree.map(np.testing.assert_array_equal, back.components["unet"].params, params["unet"])
    vae = back.components["vae" if condition == "clip" else "vqvae"]
    np.testing.assert_allclose(vae.config.scale, 1 / source.manifest.deviation, rtol=1e-6)
    np.testing.assert_allclose(back.process().schedule.knots, bundle.process().schedule.knots, rtol=1e-6)
    assert (back.process().kind, back.process().clip) == ("v", None)


def test_what_diffusers_has_no_class_for_is_not_converted(place, tmp_path):
    config = dataclasses.replace(CONFIG, net=STABLE)
    source, assets = opened(config, latents_of(place), tmp_path)
    task = config.task(assets)
    shapes = jax.eval_shape(task.init, jax.random.key(0), task.load(one_device), batch_of(task, source))
    with pytest.raises(ValueError, match="no pipeline in latents that is steered by another picture"):
        latent_model.published(config.bundle(assets, Variables(shapes.params, shapes.frozen)))


def test_a_run_keeps_its_networks(place, tmp_path):
    shutil.copytree(place / "latents", tmp_path / "latents")
    data = dataclasses.replace(latents_of(place), name=str(tmp_path / "latents"))
    opened(CONFIG, data, tmp_path / "run")
    shutil.rmtree(tmp_path / "latents")
    assets = CONFIG.assets(tmp_path / "run", data)
    frozen = CONFIG.task(assets).load(one_device)
    kept = dataclasses.replace(assets.vae, params=frozen["autoencoder"])
    assert first_stage.fingerprint(kept) == first_stage.fingerprint(read_component(place / "model" / "vae"))
    shutil.rmtree(tmp_path / "run" / "autoencoder")
    named = dataclasses.replace(CONFIG, autoencoder=pathlib.Path("first"))
    with pytest.raises(FileNotFoundError, match=r"run.autoencoder is missing.*the run began with first"):
        named.assets(tmp_path / "run", data)


@pytest.mark.parametrize("data", [latents_of, pixels_of])
def test_a_dry_run_describes_the_run_that_its_files_make(place, data):
    read = data is pixels_of
    named = {"autoencoder": place / "model" / "vae", "text_encoder": place / "model"} if read else {}
    run = Experiment("dry", dataclasses.replace(CONFIG, **named), data=data(place))
    run = dataclasses.replace(run, train=dataclasses.replace(run.train, batch_size=2))
    described = subject.describe(run, make_mesh(MeshSpec(), jax.devices()[:1]))
    assert set(described.like.frozen) == {"autoencoder", "text_encoder"}
    assert ("image" in described.row) == read
    assert ("moments" in described.row) == (not read)
    jax.eval_shape(described.step, *described.arguments(2))


def other_autoencoder(place, tmp_path):
    vae = read_component(place / "model" / "vae")
    params = jax.tree.map(lambda x: x * 1.01, vae.params)
    write_component(dataclasses.replace(vae, params=params), tmp_path / "other")
    return tmp_path / "other"


def test_latents_of_another_autoencoder_are_refused(place, tmp_path):
    """Named by a new run, or met by an old one whose data are others now."""
    config = dataclasses.replace(CONFIG, autoencoder=other_autoencoder(place, tmp_path))
    with pytest.raises(ValueError, match=r"was made with another network than .*other"):
        opened(config, latents_of(place), tmp_path / "new")
    assert not (tmp_path / "new" / "autoencoder").exists()
    config = dataclasses.replace(config, text_encoder=place / "model")
    opened(config, pixels_of(place), tmp_path / "old")
    with pytest.raises(ValueError, match=r"was made with another network than .*old.autoencoder"):
        opened(config, latents_of(place), tmp_path / "old", new=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"process": picture.ProcessConfig(prediction="v")}, "task.process.clip is 1.0: latents have no such limits"),
        ({"scale": 0.0}, "task.scale is 0.0"),
        ({"net": Linear(out_channels=3)}, "task.net.out_channels is 3, and the latents have 4 channels: set it to 4"),
        ({"condition": "none", "text_encoder": pathlib.Path("x")}, "task.condition 'none' does not read it"),
        ({"autoencoder": pathlib.Path("nowhere")}, "there is no autoencoder at nowhere"),
        ({"autoencoder": None}, "task.autoencoder is not given"),
        ({"text_encoder": None}, "give task.text_encoder"),
        ({"text_encoder": pathlib.Path("nowhere")}, "nowhere has no text_encoder"),
        ({"autoencoder": "three"}, "task.net.out_channels is 4, and the latents have 3"),
        ({"autoencoder": "pictures"}, "pictures holds no autoencoder"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_compiles(place, tmp_path, monkeypatch, change, message):
    monkeypatch.setattr(latent, "Spread", None)
    change = {k: place / v if v in ("three", "pictures") else v for k, v in change.items()}
    config = dataclasses.replace(
        CONFIG, **{"autoencoder": place / "model", "text_encoder": place / "model", "scale": 1.0, **change}
    )
    with pytest.raises((ValueError, OSError), match=message) as told:
        opened(config, pixels_of(place), tmp_path)
    assert "\n" not in str(told.value)


def test_text_states_are_of_captions_as_they_are(place, tmp_path):
    data = dataclasses.replace(latents_of(place), articles=True)
    with pytest.raises(ValueError, match=r"data\.articles is True"):
        opened(CONFIG, data, tmp_path)


def test_latents_of_a_codebook_are_not_yet_quantised():
    json = {**small._VAE, "_class_name": "VQModel", "latent_channels": 3, "num_vq_embeddings": 5}
    part = small.tiny(json)
    assert first_stage.channels(part) == (3, 3)
    z = first_stage.moments(part, part.params, jnp.zeros((2, 16, 16, 3), jnp.uint8))
    assert len(np.unique(np.asarray(z).reshape(-1, 3), axis=0)) > 5, "more than the codebook has"
    scaled = first_stage.with_scale(part, 0.5)
    np.testing.assert_allclose(first_stage.latents(scaled, z, KEYS[:2]), z / 2, rtol=1e-6)
    assert first_stage.fingerprint(scaled) == first_stage.fingerprint(part)


def test_the_blur_is_a_gaussian():
    """Of a point far from the border: deviation 2, sum 1; a plain picture stays as it is."""
    point = np.zeros((1, 33, 33, 1), np.float32)
    point[0, 16, 16] = 1
    made = np.asarray(latent.blurred(jnp.asarray(point), 2.0))[0, :, :, 0]
    at = np.arange(33) - 16.0
    np.testing.assert_allclose(made.sum(), 1, rtol=1e-5)
    np.testing.assert_allclose((made.sum(0) * at**2).sum(), 4, rtol=0.03)  # cut at three deviations
    np.testing.assert_allclose(made, np.outer(made.sum(0), made.sum(1)), atol=1e-6)
    np.testing.assert_allclose(latent.blurred(jnp.full((1, 4, 4, 3), 0.3), 2.0), 0.3, rtol=1e-5)
