"""Kandinsky 2.1, which reads the prompt itself, and Stable unCLIP, against the reference's, from the same noise."""

import functools
import json
import pathlib

import jax
import numpy as np
import pytest
from PIL import Image
from pipelines import small
from pipelines import test_kandinsky as kandinsky_22
from pipelines.test_kandinsky import MASK, PICTURE, drawn
from reference.sd_weights import load, noise

from jaxdiff.cli import convert, sample
from jaxdiff.models.text_xlm import XlmText
from jaxdiff.pipelines import imagine, program
from jaxdiff.pipelines.diffusion import DiffusionPipeline
from jaxdiff.pipelines.imagine import PriorPipeline
from jaxdiff.pipelines.imagined import Imagined, split
from jaxdiff.pretrained import unigram_tokenizer
from jaxdiff.pretrained.read import Bundle
from jaxdiff.pretrained.write import write_directory
from jaxdiff.sampling import table

REFERENCE = pathlib.Path(__file__).parents[1] / "reference"
INDEX, ARRAYS = load(REFERENCE / "kandinsky_text.npz")
EMBED = {"embed": noise("embed", (2, 32)), "no_embed": noise("away", (2, 32))}
TOLD = {"negative": "ugly", "steps": 5, "guidance": 2.0, "height": 16, "width": 16}


@functools.cache
def part(name):
    return small.component(INDEX["parts"][name])


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    path = tmp_path_factory.mktemp("words")
    (path / "tokenizer.json").write_bytes(bytes(ARRAYS["json"]))
    return unigram_tokenizer.read(path, "XLMRobertaTokenizer")


def bundle(kind, names, words, **schedulers):
    parts = {name: part(entry) for name, entry in names.items()}
    told = {name: INDEX["schedulers"][entry] for name, entry in schedulers.items()}
    index = {"_class_name": kind, **{name: ["diffusers", one.kind] for name, one in parts.items()}}
    index |= {
        name: ["transformers", "XLMRobertaTokenizer" if "Kandinsky" in kind else "CLIPTokenizer"] for name in words
    }
    index |= {name: ["diffusers", one["_class_name"]] for name, one in told.items()}
    return Bundle(kind, index, parts, words, told, guidance=4.0)


def kandinsky(words, unet="unet"):
    names = {"unet": unet, "movq": "movq", "text_encoder": "text"}
    return bundle("KandinskyPipeline", names, {"tokenizer": words}, scheduler="ddim")


def prior_of_kandinsky():
    """A prior of the width of that decoder's embeddings, whose CLIP has a tower of pictures."""
    text = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    made = {
        "prior": {"num_attention_heads": 2, "attention_head_dim": 4, "num_layers": 1, "embedding_dim": 32},
        "text_encoder": {**text, "hidden_size": 32, "projection_dim": 32, "vocab_size": 2017, "eos_token_id": 2016},
        "image_encoder": {**text, "image_size": 16, "patch_size": 8, "projection_dim": 32},
    }
    kinds = ("PriorTransformer", "CLIPTextModelWithProjection", "CLIPVisionModelWithProjection")
    parts = {
        name: small.tiny({"_class_name": kind, **one}) for kind, (name, one) in zip(kinds, made.items(), strict=True)
    }
    index = {"_class_name": "KandinskyPriorPipeline", "tokenizer": ["transformers", "CLIPTokenizer"]}
    index |= {name: ["diffusers", one.kind] for name, one in parts.items()}
    told = {"scheduler": {**kandinsky_22.INDEX["schedulers"]["prior"]}}
    index["scheduler"] = ["diffusers", "UnCLIPScheduler"]
    return Bundle(index["_class_name"], index, parts, {"tokenizer": small.tokenizer()}, told, guidance=4.0)


STABLE = {"unet": "stable unet", "text_encoder": "stable text", "vae": "vae", "image_normalizer": "normalizer"}


def stable(prior):
    more = {"prior": "prior", "prior_text_encoder": "prior text"} if prior else {"image_encoder": "vision"}
    names = ["tokenizer", *(["prior_tokenizer"] if prior else [])]
    told = {"scheduler": "ddim", "image_noising_scheduler": "level", **({"prior_scheduler": "prior"} if prior else {})}
    kind = "StableUnCLIPPipeline" if prior else "StableUnCLIPImg2ImgPipeline"
    return bundle(kind, STABLE | more, {name: small.tokenizer() for name in names}, **told)


@pytest.fixture
def same_noise(monkeypatch):
    same = lambda keys, *rest: drawn(len(keys), *rest[-1])
    for module in (imagine, program):
        monkeypatch.setattr(module, "unit_noise", same)
    monkeypatch.setattr(table, "normal", same)


def test_the_tokenizer_agrees_on_all_captions(words):
    odd = {3: "  {}\t ", 5: "{} </s> {}", 7: "{}<extra_id_3>", 11: "\ufb01ne \uff21rt {}", 13: "{}\n{}"}  # as t5.py
    plain = json.loads(bytes(np.load(REFERENCE / "sd_tokenizer.npz")["captions"]))
    texts = [odd.get(n % 17, "{}").format(text, text) for n, text in enumerate(plain)]
    at = np.cumsum(ARRAYS["lengths"])[:-1]
    for text, theirs in zip(texts, np.split(ARRAYS["ids"], at), strict=True):
        ours = words.encode(text, 77)
        np.testing.assert_array_equal(ours[: len(theirs)], theirs)
        assert (ours[len(theirs) :] == 1).all()


def test_the_text_encoder_agrees(words):
    one = part("text")
    tokens = np.stack([words.encode(text, 77) for text in small.PROMPTS])
    states, vector = jax.jit(XlmText(one.config).apply)({"params": one.params}, tokens)
    for ours, theirs in ((states[:, :12], ARRAYS["states"]), (vector, ARRAYS["vector"])):
        assert np.abs(np.asarray(ours) - theirs).max() < 1e-4 * np.abs(theirs).max()


CALLS = {
    "text": ("unet", {}),
    "image": ("unet", {"image": PICTURE, "strength": 0.6}),
    "fills": ("unet fills", {"image": PICTURE[:1].repeat(2, 0), "mask": MASK}),
}


@pytest.mark.heavy
@pytest.mark.parametrize("name", CALLS)
def test_pictures_agree(words, same_noise, name):
    unet, options = CALLS[name]
    pipe = DiffusionPipeline(kandinsky(words, unet), devices=jax.devices()[:1])
    made = pipe(small.PROMPTS, key=jax.random.key(0), **TOLD, **EMBED, **options)
    error = np.abs(made.astype(float) - 255 * (ARRAYS[name] / 65535)).max()
    print(f"{name}: {error:.2f} / 255")
    assert error < 2
    other = pipe(["two", "fish"], key=jax.random.key(1), **{**TOLD, "guidance": 3.0}, **EMBED, **options)
    assert pipe.compiled() == 1
    assert not np.array_equal(made, other)


@pytest.mark.heavy
def test_a_noisy_embedding_is_drawn(same_noise):
    pipe = DiffusionPipeline(stable(prior=False), devices=jax.devices()[:1])
    embed = noise("embed", (2, 24))
    made = pipe(small.PROMPTS, key=jax.random.key(0), embed=embed, noise_level=300, **TOLD)
    error = np.abs(made.astype(float) - 255 * (ARRAYS["noisy"] / 65535)).max()
    print(f"noisy: {error:.2f} / 255")
    assert error < 2
    other = pipe(small.PROMPTS, key=jax.random.key(0), embed=embed, noise_level=20, **TOLD)
    assert pipe.compiled() == 1
    assert not np.array_equal(made, other)
    varied = pipe(small.PROMPTS, key=jax.random.key(0), picture=PICTURE, noise_level=20, **TOLD)
    error = np.abs(varied.astype(float) - 255 * (ARRAYS["varied"] / 65535)).max()
    print(f"varied: {error:.2f} / 255")
    assert error < 2
    with pytest.raises(ValueError, match="noise_level is 1000: this model knows 0 to 999"):
        pipe("a", key=jax.random.key(0), embed=embed, noise_level=1000)


@pytest.mark.heavy
def test_stable_unclip_agrees(same_noise):
    prior, decoder = split(stable(prior=True))
    device = jax.devices()[:1]
    pipe = Imagined(PriorPipeline(prior, devices=device), DiffusionPipeline(decoder, devices=device))
    made = pipe(small.PROMPTS, key=jax.random.key(0), prior_steps=4, prior_guidance=3.0, noise_level=20, **TOLD)
    error = np.abs(made.astype(float) - 255 * (ARRAYS["imagined"] / 65535)).max()
    print(f"imagined: {error:.2f} / 255")
    assert error < 2
    pipe(["two", "fish"], key=jax.random.key(1), prior_steps=4, noise_level=3, **TOLD)
    assert pipe.compiled() == 2


@pytest.fixture(scope="module")
def folders(tmp_path_factory, words):
    path = tmp_path_factory.mktemp("text")
    write_directory(kandinsky(words), path / "kandinsky")
    write_directory(prior_of_kandinsky(), path / "prior")
    write_directory(stable(prior=True), path / "stable")
    write_directory(stable(prior=False), path / "pictures")
    return path


def test_directories_are_read_and_written_back_as_they_were(folders, tmp_path):
    for name in ("kandinsky", "prior", "stable", "pictures"):
        convert.main(["--model", str(folders / name), "--out", str(tmp_path / name)])
        files = [file.relative_to(folders) for file in (folders / name).rglob("*") if file.is_file()]
        assert len(files) > 7
        for file in files:
            ours, theirs = (root / file for root in (tmp_path, folders))
            assert ours.read_bytes() == theirs.read_bytes(), file


KANDINSKY = ("--prior-steps", "--picture", "--towards", "--mix", "--straight", "--keep", "--described", "--mask")
KANDINSKY = (*KANDINSKY, "--prior-strength", "--blend")
STABLE_OPTIONS = ("--prior-steps", "--noise-level", "--negative-prompt")


@pytest.mark.parametrize(
    ("models", "shown", "hidden"),
    [
        (("prior", "kandinsky"), KANDINSKY, ("--embed", "--noise-level", "--chunks")),
        (("stable",), STABLE_OPTIONS, ("--embed", "--keep", "--picture ")),
        (("pictures",), ("--picture ", "--noise-level"), ("--prior-steps", "--keep")),
    ],
)
def test_help_shows_its_own_options(folders, capsys, models, shown, hidden):
    then = ["--then", str(folders / models[1])] if models[1:] else []
    with pytest.raises(SystemExit):
        sample.main(["--model", str(folders / models[0]), *then, "--help"])
    told = capsys.readouterr().out
    assert [option for option in shown if option not in told] == []
    assert [option for option in hidden if option in told] == []


@pytest.mark.heavy
@pytest.mark.parametrize("how", ["imagined", "kept", "changed", "blended"])
def test_the_command_line_draws_with_kandinsky(folders, tmp_path, how):
    Image.fromarray(PICTURE[0]).save(tmp_path / "seen.png")
    seen = {"imagined": ["--prior-steps", "2"], "kept": ["--picture", str(tmp_path / "seen.png"), "--keep"]}
    seen["changed"] = ["--picture", str(tmp_path / "seen.png"), "--prior-strength", "0.5", "--prior-steps", "4"]
    seen["blended"] = ["--blend", f"{tmp_path}/seen.png:0.6", "a hat:0.4", "--prior-steps", "2"]
    told = ["--prompt", "a red heart", "--num", "1", "--steps", "2", "--height", "16", "--width", "16"]
    models = ["--model", str(folders / "prior"), "--then", str(folders / "kandinsky")]
    sample.main([*models, *told, *seen[how], "--out", str(tmp_path / "one.png")])
    assert (tmp_path / "one.png").is_file()


@pytest.mark.heavy
def test_the_command_line_varies_a_picture(folders, tmp_path):
    Image.fromarray(PICTURE[0]).save(tmp_path / "seen.png")
    told = ["--prompt", "a", "--num", "1", "--steps", "2", "--picture", str(tmp_path / "seen.png")]
    sample.main(["--model", str(folders / "pictures"), *told, "--noise-level", "9", "--out", str(tmp_path / "one.png")])
    assert (tmp_path / "one.png").is_file()


@pytest.mark.heavy
def test_the_command_line_makes_pictures(folders, tmp_path):
    told = ["--prompt", "a red heart", "--num", "1", "--out", str(tmp_path / "one.png")]
    sample.main(["--model", str(folders / "stable"), *told, "--prior-steps", "3", "--steps", "2", "--noise-level", "5"])
    assert (tmp_path / "one.png").is_file()


def test_a_tokenizer_of_another_kind_is_refused(tmp_path):
    saved = pathlib.Path(__file__).parents[1] / "reference" / "t5.npz"
    (tmp_path / "tokenizer.json").write_bytes(bytes(np.load(saved)["json"]))
    with pytest.raises(ValueError, match="<s> has the id None, and XLM-RoBERTa's is 0"):
        unigram_tokenizer.read(tmp_path, "XLMRobertaTokenizer")
