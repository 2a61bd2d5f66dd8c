"""Kandinsky's priors and decoders against the reference's pipelines, from the same noise; and what they refuse."""

import dataclasses
import functools
import json
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import randomised
from pipelines import small
from reference.sd_weights import load, noise

from jaxdiff import loading
from jaxdiff.cli import convert, sample
from jaxdiff.models import causal_prior
from jaxdiff.models.autoencoder_vq import AutoencoderVQ
from jaxdiff.models.causal_prior import CausalPrior, CausalPriorConfig
from jaxdiff.pipelines import imagine, program
from jaxdiff.pipelines.diffusion import DiffusionPipeline
from jaxdiff.pipelines.imagine import PriorPipeline
from jaxdiff.pipelines.imagined import Imagined
from jaxdiff.pipelines.prior_options import PriorOptions
from jaxdiff.pipelines.vary import VaryOptions
from jaxdiff.pretrained.read import Bundle, Component, read_directory
from jaxdiff.pretrained.write import write_directory
from jaxdiff.sampling import table
from jaxdiff.typing import Cond

REFERENCE = pathlib.Path(__file__).parents[1] / "reference"
INDEX, ARRAYS = load(REFERENCE / "kandinsky.npz")
TOLD = {"prior": "prior", "text_encoder": "text_encoder", "image_encoder": "image_encoder"}


@functools.cache
def part(name):
    return small.component(INDEX["parts"][name])


def bundle(kind, names, **schedulers):
    parts = {name: part(entry) for name, entry in names.items()}
    told = {name: INDEX["schedulers"][entry] for name, entry in schedulers.items()}
    words = {name.replace("text_encoder", "tokenizer"): small.tokenizer() for name in parts if "text" in name}
    index = {"_class_name": kind, **{name: ["diffusers", one.kind] for name, one in parts.items()}}
    index |= {name: ["transformers", "CLIPTokenizer"] for name in words}
    index |= {name: ["diffusers", one["_class_name"]] for name, one in told.items()}
    return Bundle(kind, index, parts, words, told, guidance=4.0)


def prior_bundle():
    return bundle("KandinskyV22PriorPipeline", TOLD, scheduler="prior")


def decoder_bundle(unet="unet", scheduler="ddpm"):
    return bundle("KandinskyV22Pipeline", {"unet": unet, "movq": "movq"}, scheduler=scheduler)


@pytest.fixture(scope="module")
def prior():
    return PriorPipeline(prior_bundle(), devices=jax.devices()[:1])


@pytest.fixture(scope="module")
def decoder():
    made = {}

    def make(unet="unet", scheduler="ddpm"):
        if (unet, scheduler) not in made:
            made[unet, scheduler] = DiffusionPipeline(decoder_bundle(unet, scheduler), devices=jax.devices()[:1])
        return made[unet, scheduler]

    return make


def drawn(*shape):
    theirs = noise("drawn", (*shape[:1], *shape[3:], *shape[1:3]) if len(shape) == 4 else shape) * np.float32(1.7)
    return jnp.asarray(theirs.transpose(0, 2, 3, 1) if len(shape) == 4 else theirs)


@pytest.fixture
def same_noise(monkeypatch):
    same = lambda keys, *rest: drawn(len(keys), *rest[-1])
    for module in (imagine, program):
        monkeypatch.setattr(module, "unit_noise", same)
    monkeypatch.setattr(table, "normal", same)


def picture(name, side):
    return ((noise(name, (2, side, side, 3)) + 1) * 127.5).round().astype(np.uint8)


def test_movq_agrees():
    one = part("movq")
    run = jax.jit(
        lambda method, x, **told: AutoencoderVQ(one.config).apply({"params": one.params}, x, method=method, **told),
        static_argnums=0,
        static_argnames="quantized",
    )
    first = lambda x: np.asarray(x).transpose(0, 3, 1, 2)
    last = lambda name, shape: jnp.asarray(noise(name, shape).transpose(0, 2, 3, 1))
    z, x = last("z", (2, 4, 8, 12)), last("picture", (2, 3, 16, 24))
    for ours, name in (
        (run("encode", x), "latents"),
        (run("decode", z, quantized=True), "picture"),
    ):
        theirs = ARRAYS[f"movq {name}"]
        assert np.abs(first(ours) - theirs).max() < 1e-4 * np.abs(theirs).max()


@pytest.mark.parametrize("which", ["plain", pytest.param("negative", marks=pytest.mark.heavy)])
def test_the_prior_agrees(prior, same_noise, which):
    keys = jax.random.split(jax.random.key(0), 2)
    options = PriorOptions(prior_steps=4, prior_guidance=3.0)
    away = ["ugly"] * 2 if which == "negative" else None
    ours = prior(small.PROMPTS, keys=keys, negative=away, options=options)
    for name, x in zip(("embed", "no embed"), ours, strict=True):
        theirs = ARRAYS[f"{name} {which}"]
        assert np.abs(np.asarray(x) - theirs).max() < 1e-4 * np.abs(theirs).max()


def seen():
    return picture("seen", 16)


@pytest.mark.heavy
@pytest.mark.parametrize("which", ["changed", "changed negative"])
def test_a_prior_that_starts_from_a_picture_agrees(prior, same_noise, which):
    keys = jax.random.split(jax.random.key(0), 2)
    options = PriorOptions(prior_steps=5, prior_guidance=3.0)
    away = ["ugly"] * 2 if which == "changed negative" else None
    embed = prior.look(small.PROMPTS, VaryOptions(picture=seen()))[0]
    ours = prior(small.PROMPTS, keys=keys, negative=away, options=options, start=embed, strength=0.6)
    for name, x in zip(("embed", "no embed"), ours, strict=True):
        theirs = ARRAYS[f"{name} {which}"]
        error = np.abs(np.asarray(x) - theirs).max()
        print(f"{name} {which}: {error:.1e}")
        assert error < 1e-4


@pytest.mark.heavy
@pytest.mark.parametrize("which", ["blend", "blend negative"])
def test_a_blend_of_pictures_and_a_text_agrees(prior, decoder, same_noise, monkeypatch, which):
    both = Imagined(prior, decoder())
    told = {}
    monkeypatch.setattr(DiffusionPipeline, "__call__", lambda self, prompts, **given: told.update(given))
    parts = [(small.PROMPTS[0], 0.5), (seen()[:1], 0.4), (picture("other", 16)[:1], -0.2)]
    negative = "ugly" if which == "blend negative" else None
    both("", key=jax.random.key(0), blend=parts, negative=negative, prior_steps=4, prior_guidance=3.0)
    for name, x in (("embed", told["embed"]), ("no embed", told["no_embed"])):
        error = np.abs(np.asarray(x) - ARRAYS[f"{name} {which}"]).max()
        print(f"{name} {which}: {error:.1e}")
        assert error < 1e-4


MASK = (noise("mask", (1, 16, 16, 1)) > 0.2).astype(np.float32)
PICTURE = picture("image", 16)
CALLS = {
    "text": ("unet", "ddpm", "plain", {}),
    "negative": ("unet", "ddim", "negative", {}),
    "image": ("unet", "ddpm", "plain", {"image": picture("image", 16), "strength": 0.6}),
    "fills": ("unet fills", "ddpm", "plain", {"image": picture("image", 16)[:1].repeat(2, 0), "mask": MASK}),
    "hint": ("unet hint", "ddim", "plain", {"hints": [picture("hint", 64)]}),
    "hint image": (
        "unet hint",
        "ddim",
        "plain",
        {"hints": [picture("hint", 64)], "image": picture("image", 16), "strength": 0.6},
    ),
}


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.heavy] if n != "text" else []) for n in CALLS])
def test_pictures_agree(decoder, same_noise, name):
    unet, how, which, options = CALLS[name]
    pipe = decoder(unet, how)
    embed = {"embed": ARRAYS[f"embed {which}"], "no_embed": ARRAYS[f"no embed {which}"]}
    made = pipe("", key=jax.random.key(0), steps=5, guidance=2.0, height=16, width=16, **embed, **options)
    error = np.abs(made.astype(float) - 255 * (ARRAYS[name] / 65535)).max()
    print(f"{name}: {error:.2f} / 255")
    # 0.5 for the rounding to 8 bits, and what sums in another order become over the calls
    assert error < 2
    before = pipe.compiled()
    again = {**options, "strength": 0.6} if "image" in options and "mask" not in options else options
    other = pipe("", key=jax.random.key(1), steps=5, guidance=3.0, height=16, width=16, **embed, **again)
    assert pipe.compiled() == before
    assert not np.array_equal(made, other)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    path = tmp_path_factory.mktemp("kandinsky")
    write_directory(prior_bundle(), path / "prior")
    write_directory(decoder_bundle(), path / "decoder")
    whole = {f"prior_{name}": part for name, part in prior_bundle().components.items()}
    names = {**whole, **decoder_bundle().components}
    index = {"_class_name": "KandinskyV22CombinedPipeline", "prior_tokenizer": ["transformers", "CLIPTokenizer"]}
    index |= {name: ["diffusers", part.kind] for name, part in names.items()}
    told = {"scheduler": INDEX["schedulers"]["ddim"], "prior_scheduler": INDEX["schedulers"]["prior"]}
    index |= {name: ["diffusers", one["_class_name"]] for name, one in told.items()}
    both = Bundle(index["_class_name"], index, names, {"prior_tokenizer": small.tokenizer()}, told)
    write_directory(both, path / "both")
    return path


def test_directories_are_read_and_written_back_as_they_were(folders, tmp_path):
    for name in ("prior", "decoder", "both"):
        convert.main(["--model", str(folders / name), "--out", str(tmp_path / name)])
        files = [file.relative_to(folders) for file in (folders / name).rglob("*") if file.is_file()]
        assert len(files) > 3
        for file in files:
            ours, theirs = (root / file for root in (tmp_path, folders))
            assert ours.read_bytes() == theirs.read_bytes(), file


def test_a_prior_of_the_class_that_starts_from_pictures_is_read(folders, tmp_path):
    shutil.copytree(folders / "prior", tmp_path / "prior")
    index = json.loads((tmp_path / "prior" / "model_index.json").read_text())
    named = {**index, "_class_name": "KandinskyV22PriorEmb2EmbPipeline"}
    (tmp_path / "prior" / "model_index.json").write_text(json.dumps(named))
    assert PriorPipeline(read_directory(tmp_path / "prior")).width == 24


def test_help_shows_what_prior_and_decoder_take(folders, capsys):
    with pytest.raises(SystemExit):
        sample.main(["--model", str(folders / "both"), "--help"])
    shown = capsys.readouterr().out
    for option in ("--prior-steps", "--prior-draws", "--guidance", "--steps", "--image", "--negative-prompt"):
        assert option in shown
    assert "--embed" not in shown
    assert "--no-embed" not in shown


@pytest.mark.heavy
@pytest.mark.parametrize("how", ["one after another", "both in one"])
def test_the_command_line_makes_pictures(folders, tmp_path, how):
    apart = ["--model", str(folders / "prior"), "--then", str(folders / "decoder")]
    model = apart if how == "one after another" else ["--model", str(folders / "both")]
    told = ["--prompt", "a red heart", "--num", "1", "--out", str(tmp_path / "one.png")]
    sample.main([*model, *told, "--prior-steps", "3", "--steps", "2", "--negative-prompt", "ugly"])
    assert (tmp_path / "one.png").is_file()


def test_the_end_of_a_prompt_that_is_not_seen_is_said(prior, monkeypatch):
    def stop(*_, **__):
        raise InterruptedError

    monkeypatch.setattr(prior, "_run", stop)
    with pytest.warns(UserWarning, match="does not see 'a a a"), pytest.raises(InterruptedError):
        prior(["a " * 90], keys=jax.random.split(jax.random.key(0), 1))


@pytest.fixture(scope="module")
def coded():
    """A prior that says embeddings as codes, in the place of one that diffuses them."""
    whole, embeds = prior_bundle(), [noise(name, (40, 24)) for name in ("pictures", "texts")]
    net = CausalPriorConfig(
        embed=24, text=whole.components["text_encoder"].config.width, kept=3, bins=8, width=8, layers=1, heads=2
    )
    text = Cond(context=jnp.zeros((1, 77, net.text)), context_mask=jnp.ones((1, 77), bool), pooled=jnp.zeros((1, 24)))
    blank = text, jnp.zeros(1, jnp.int32), jnp.zeros((1, 3), jnp.int32)
    shapes = jax.eval_shape(lambda: CausalPrior(net).init(jax.random.key(0), *blank))["params"]
    params = {**randomised(shapes), **jax.tree.map(jnp.asarray, causal_prior.fit(*embeds, net))}
    parts = {**whole.components, "prior": Component("CausalPrior", {}, net, params)}
    return PriorPipeline(dataclasses.replace(whole, components=parts, schedulers={}), devices=jax.devices()[:1])


def test_codes_that_make_no_sense_are_refused(coded):
    call = functools.partial(coded, ["a"], keys=jax.random.split(jax.random.key(0), 1))
    for options, words in (
        ({"prior_temperature": 0.0}, "prior_temperature is 0.0: expected a number above 0"),
        ({"prior_top_p": 1.5}, "prior_top_p is 1.5: expected a number above 0 and at most 1"),
        ({"prior_draws": 65}, "prior_draws is 65: expected a whole number from 1 to 64"),
        ({"prior_guidance": float("nan")}, "prior_guidance is nan"),
    ):
        with pytest.raises(ValueError, match=words):
            call(options=coded.Options(**options))
    assert coded.compiled() == 0


@pytest.mark.heavy
@pytest.mark.parametrize("kind", ["diffused", "coded"])
def test_another_call_of_both_compiles_nothing(prior, coded, decoder, kind):
    both = Imagined({"diffused": prior, "coded": coded}[kind], decoder())
    few = {"steps": 5, "height": 16, "width": 16, **({"prior_steps": 4} if kind == "diffused" else {"prior_draws": 2})}
    assert ("prior_steps" in {f.name for f in dataclasses.fields(both.Options)}) == (kind == "diffused")
    made = both(["a cat", "b"], key=jax.random.key(0), **few)
    before = both.compiled()
    other = both(["one", "two"], key=jax.random.key(1), **few, guidance=2.0, prior_guidance=2.0)
    assert both.compiled() == before
    assert not np.array_equal(made, other)


def test_of_several_embeddings_the_nearest_is_kept():
    embeds = jnp.asarray(noise("embeds", (3, 4, 5)))
    text = jnp.asarray(noise("text", (4, 5)))
    kept = imagine.nearest(embeds, text)
    for n in range(4):
        scores = [float(embeds[i, n] @ text[n]) for i in range(3)]
        np.testing.assert_array_equal(kept[n], embeds[int(np.argmax(scores)), n])


def test_what_makes_no_sense_is_refused(prior, decoder, folders):
    pipe = Imagined(prior, decoder())
    call = functools.partial(pipe, "a", key=jax.random.key(0))
    for options, words in (
        ({"prior_steps": 1}, "prior_steps is 1: expected a whole number from 2 to 1000"),
        ({"prior_draws": 0}, "prior_draws is 0: expected a whole number from 1 to 64"),
        ({"prior_guidance": float("inf")}, "prior_guidance is inf"),
        ({"embed": np.zeros((1, 24))}, "embed is what the prior makes"),
        ({"strange": 1}, "this model takes no strange"),
    ):
        with pytest.raises(ValueError, match=words):
            call(**options)
    alone = functools.partial(decoder(), "", key=jax.random.key(0))
    with pytest.raises(ValueError, match="pass embed, or give it as a later stage of its prior"):
        alone()
    with pytest.raises(ValueError, match=r"embed has shape \(1, 7\): expected \(1, 24\)"):
        alone(embed=np.zeros((1, 7), np.float32))
    with pytest.raises(ValueError, match="is a prior, which draws no pictures"):
        loading.load(folders / "prior")
    less = {name: part for name, part in prior_bundle().components.items() if name != "text_encoder"}
    with pytest.raises(ValueError, match="has no text_encoder: its directory needs"):
        PriorPipeline(Bundle("A", {}, less, {"tokenizer": small.tokenizer()}, prior_bundle().schedulers))
