"""unCLIP as Karlo has it: pictures against the reference from the same noise, what it refuses, and the command line."""

import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from pipelines import small
from reference.sd_weights import load, noise

from jaxdiff.cli import sample
from jaxdiff.pipelines import unclip
from jaxdiff.pipelines.unclip import UnclipPipeline, VariationsPipeline
from jaxdiff.pretrained.files import read_weights
from jaxdiff.pretrained.read import Bundle, read_directory
from jaxdiff.pretrained.write import write_directory
from jaxdiff.sampling import table

INDEX, ARRAYS = load(pathlib.Path(__file__).parents[1] / "reference" / "unclip.npz")
FEW = {"prior_steps": 4, "decoder_steps": 4, "larger_steps": 3}


KINDS = {"UnCLIPPipeline": "image_encoder", "UnCLIPImageVariationPipeline": "prior"}
"""Each pipeline, and what it has not of the other's."""


@functools.cache
def part(name):
    return small.component(INDEX["parts"][name])


@functools.cache
def bundle(kind="UnCLIPPipeline"):
    parts = {name: part(name) for name in INDEX["parts"] if name != KINDS[kind]}
    schedulers = {name: one for name, one in INDEX["schedulers"].items() if not name.startswith(KINDS[kind])}
    index = {"_class_name": kind, "tokenizer": ["transformers", "CLIPTokenizer"]}
    index |= {name: ["diffusers", one.kind] for name, one in parts.items()}
    index |= {name: ["diffusers", "UnCLIPScheduler"] for name in schedulers}
    return Bundle(kind, index, parts, {"tokenizer": small.tokenizer()}, schedulers)


@pytest.fixture(scope="module")
def pipe():
    return UnclipPipeline(bundle(), devices=jax.devices()[:1])


@pytest.fixture(scope="module")
def varies():
    return VariationsPipeline(bundle("UnCLIPImageVariationPipeline"), devices=jax.devices()[:1])


def picture(name, side):
    return ((noise(name, (2, side, side, 3)) + 1) * 127.5).round().astype(np.uint8)


def same(keys, *rest):
    shape = (len(keys), *rest[-1])
    theirs = noise("drawn", (*shape[:1], *shape[3:], *shape[1:3]) if len(shape) == 4 else shape) * np.float32(1.7)
    return jnp.asarray(theirs.transpose(0, 2, 3, 1) if len(shape) == 4 else theirs)


def test_the_end_of_a_prompt_that_is_not_seen_is_said(pipe, monkeypatch):
    def stop(*_):
        raise InterruptedError

    monkeypatch.setattr(pipe, "_run", stop)
    with pytest.warns(UserWarning, match="does not see 'a a a"), pytest.raises(InterruptedError):
        pipe("a " * 90, key=jax.random.key(0), **FEW)


@pytest.mark.heavy
def test_pictures_agree_and_nothing_compiles_again(pipe, monkeypatch):
    monkeypatch.setattr(unclip, "unit_noise", same)
    monkeypatch.setattr(table, "normal", same)
    made = pipe(small.PROMPTS, key=jax.random.key(0), **FEW, prior_guidance=3.0, decoder_guidance=2.0)
    error = np.abs(made.astype(float) - 255 * (ARRAYS["pictures"] / 65535)).max()
    print(f"{error:.2f} / 255")
    assert error < 2
    best = pipe(small.PROMPTS, key=jax.random.key(0), **FEW, prior_draws=2, latents=True)[1]
    assert best.shape == (2, 24)
    assert pipe.compiled() == 2
    other, embed = pipe(["two", "fish"], key=jax.random.key(1), **FEW, prior_guidance=1.0, latents=True)
    assert pipe.compiled() == 2
    assert embed.shape == (2, 24)
    assert not np.array_equal(made, other)


@pytest.mark.heavy
def test_variations_agree_and_nothing_compiles_again(varies, monkeypatch):
    monkeypatch.setattr(unclip, "unit_noise", same)
    monkeypatch.setattr(table, "normal", same)
    few = {"decoder_steps": 4, "larger_steps": 3}
    made = varies("", key=jax.random.key(0), picture=picture("seen", 24), **few, decoder_guidance=2.0)
    error = np.abs(made.astype(float) - 255 * (ARRAYS["varied"] / 65535)).max()
    print(f"varied: {error:.2f} / 255")
    assert error < 2
    again = varies("a heart", key=jax.random.key(1), picture=picture("other", 24), **few, decoder_guidance=3.0)
    assert varies.compiled() == 1
    assert not np.array_equal(made, again)
    mixed = lambda mix: varies(
        "",
        key=jax.random.key(0),
        picture=picture("seen", 24),
        towards=picture("other", 24),
        mix=mix,
        **few,
        latents=True,
    )
    start, middle, end = (np.asarray(mixed(mix)[1]) for mix in (0.0, 0.5, 1.0))
    assert varies.compiled() == 2
    cosine = lambda a, b: (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    np.testing.assert_allclose(cosine(middle, start), cosine(middle, end), atol=1e-5)


@pytest.mark.heavy
def test_a_kept_picture_begins_at_its_own_noise(monkeypatch):
    """Of a decoder that changes slowly, whose steps back are nearly its steps; nothing is enlarged."""
    monkeypatch.setattr(unclip, "larger", lambda nets, process, params, table, small, *rest: small)
    whole = bundle("UnCLIPImageVariationPipeline")
    decoder = whole.components["decoder"]
    slow = {**decoder.params, "conv_out": jax.tree.map(lambda x: 0.05 * x, decoder.params["conv_out"])}
    parts = {**whole.components, "decoder": dataclasses.replace(decoder, params=slow)}
    pipe = VariationsPipeline(dataclasses.replace(whole, components=parts), devices=jax.devices()[:1])
    shown = picture("seen", 8)
    told = {"picture": shown, "decoder_steps": 20, "larger_steps": 2, "decoder_guidance": 1.0}
    apart = [
        np.abs(pipe("", key=jax.random.key(0), keep=keep, **told).astype(float) - shown).mean()
        for keep in (True, False)
    ]
    print(f"kept: {apart[0]:.1f} / 255 away, otherwise {apart[1]:.1f}")
    assert apart[0] < 10
    assert apart[0] < 0.2 * apart[1]
    pipe("a heart", key=jax.random.key(1), keep=True, **{**told, "decoder_guidance": 3.0})
    assert pipe.compiled() == 2  # with what is kept, and without


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "this model makes variations of a picture: pass picture"),
        ({"picture": picture("seen", 24), "mix": 2.0}, "mix is 2.0: expected a number from 0 to 1"),
        ({"prior_steps": 3}, "this model takes no prior_steps: expected picture, towards"),
        ({"picture": np.zeros((3, 8, 8, 3), np.uint8), "decoder_steps": 1}, "decoder_steps is 1"),
        ({"picture": np.zeros((2, 8, 8), np.uint8)}, "expected uint8 [pictures, height, width, 3]"),
    ],
)
def test_variations_of_what_cannot_be_are_refused(varies, options, words):
    before = varies.compiled()
    with pytest.raises(ValueError, match=r"expected|pass") as error:
        varies(["a", "b"], key=jax.random.key(0), **options)
    assert words in str(error.value)
    assert varies.compiled() == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prior_steps": 1}, "prior_steps is 1: expected a whole number from 2 to 1000"),
        ({"larger_steps": 2.5}, "larger_steps is 2.5"),
        ({"prior_draws": 0}, "prior_draws is 0: expected a whole number from 1 to 64"),
        ({"decoder_guidance": float("nan")}, "decoder_guidance is nan"),
        ({"prior_guidance": "much"}, "prior_guidance is 'much'"),
        ({"negative": "ugly"}, "this model takes no negative: expected prior_steps"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(pipe, options, words):
    before = pipe.compiled()
    with pytest.raises(ValueError, match="expected") as error:
        pipe("a", key=jax.random.key(0), **options)
    assert words in str(error.value)
    assert pipe.compiled() == before


def test_parts_that_are_missing_or_of_another_model_are_named():
    whole = bundle()
    less = {name: part for name, part in whole.components.items() if name != "text_proj"}
    with pytest.raises(ValueError, match="has no text_proj: its directory needs"):
        UnclipPipeline(Bundle(whole.kind, whole.index, less, whole.tokenizers, whole.schedulers))
    other = {**whole.components, "text_encoder": small.part("text_g")}
    with pytest.raises(ValueError, match="prior 24, text_proj 24, text_encoder 20"):
        UnclipPipeline(Bundle(whole.kind, whole.index, other, whole.tokenizers, whole.schedulers))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("karlo")
    for kind in KINDS:
        write_directory(bundle(kind), path / kind)
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_read_and_written_back_as_it_was(folder, tmp_path, kind):
    write_directory(read_directory(folder / kind), tmp_path / "again")
    for name in bundle(kind).components:
        ours, theirs = read_weights(tmp_path / "again" / name), read_weights(folder / kind / name)
        assert ours.keys() == theirs.keys()
        for tensor in ours:
            np.testing.assert_array_equal(np.asarray(ours[tensor]), np.asarray(theirs[tensor]))


@pytest.mark.parametrize(
    ("kind", "shown", "hidden"),
    [
        ("UnCLIPPipeline", ("--prior-guidance", "--prior-draws"), ("--negative-prompt", "--picture", "--mix")),
        (
            "UnCLIPImageVariationPipeline",
            ("--picture", "--towards", "--mix", "--straight", "--keep", "--decoder-steps"),
            ("--negative-prompt", "--prior-guidance", "--blend"),
        ),
    ],
)
def test_help_shows_its_own_options(folder, capsys, kind, shown, hidden):
    with pytest.raises(SystemExit):
        sample.main(["--model", str(folder / kind), "--help"])
    told = capsys.readouterr().out
    assert all(option in told for option in shown)
    assert not any(option in told for option in hidden)


@pytest.mark.heavy
@pytest.mark.parametrize("kind", KINDS)
def test_the_command_line_makes_pictures(folder, tmp_path, kind):
    steps = ["--decoder-steps", "2", "--larger-steps", "2", "--num", "1"]
    told = ["--prompt", "a red heart", "--prior-steps", "2"]
    if kind == "UnCLIPImageVariationPipeline":
        Image.fromarray(picture("seen", 24)[0]).save(tmp_path / "seen.png")
        told = ["--picture", str(tmp_path / "seen.png"), "--towards", str(tmp_path / "seen.png"), "--mix", "0.3"]
        told += ["--keep"]
    sample.main(["--model", str(folder / kind), "--out", str(tmp_path / "one.png"), *told, *steps])
    assert (tmp_path / "one.png").is_file()
