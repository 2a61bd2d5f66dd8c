"""Words of textual inversion: every published layout, how they are found in prompts, and what is refused."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from reference.sd_weights import load, noise, weights
from safetensors.numpy import save_file
from support import REFERENCE, to_device

from jaxdiff.data import tokenizer_clip
from jaxdiff.models.text_clip import ClipText
from jaxdiff.pretrained import textual_inversion
from jaxdiff.pretrained.read import Bundle, Component
from jaxdiff.pretrained.rules import clip, from_tensors

ENTRY = load(REFERENCE / "sd_clip.npz")[0]["large"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer")
    saved = np.load(REFERENCE / "sd_tokenizer.npz")
    (path / "vocab.json").write_bytes(bytes(saved["vocab"]))
    (path / "merges.txt").write_bytes(bytes(saved["merges"]))
    tokenizer = tokenizer_clip.read(path)
    config = {**ENTRY["config"], "vocab_size": tokenizer.size}
    shapes = {**ENTRY["shapes"], "embeddings.token_embedding.weight": [tokenizer.size, 32]}
    net = clip.text_config(config, projection=False)
    params = from_tensors(weights(shapes), clip.text_shapes(net, config), clip.TEXT_RULES, to_device)
    part = Component("CLIPTextModel", config, net, params)
    return Bundle("StableDiffusionPipeline", {}, {"text_encoder": part}, {"tokenizer": tokenizer}, {})


def test_a_new_word_is_its_vectors(bundle, tmp_path):
    vectors = noise("vectors", (2, 32))
    textual_inversion.write(tmp_path / "toy.safetensors", "<toy>", vectors)
    new = textual_inversion.add(bundle, tmp_path / "toy.safetensors")
    old, tokenizer = bundle.tokenizers["tokenizer"], new.tokenizers["tokenizer"]
    assert tokenizer.tokens("a <toy>!") == [*old.tokens("a"), old.size, old.size + 1, *old.tokens("!")]
    assert old.size not in old.tokens("a <toy>!")
    table = new.components["text_encoder"].params["token_embed"]["embedding"]
    np.testing.assert_array_equal(table[old.size :], vectors)
    assert new.components["text_encoder"].json["vocab_size"] == len(table)

    def states(b, ids):
        part = b.components["text_encoder"]
        return ClipText(part.config).apply({"params": part.params}, jnp.asarray(ids[None]))

    plain = old.encode("a cat", 8)
    for before, after in zip(states(bundle, plain), states(new, plain), strict=True):
        np.testing.assert_allclose(after, before, atol=1e-6)  # other prompts mean what they meant
    with pytest.raises(ValueError, match="knows '<toy>' already"):
        textual_inversion.add(new, tmp_path / "toy.safetensors")


VECTORS = noise("vectors", (2, 32))
SAVED = np.load(REFERENCE / "sd_words.npz")
LAYOUTS = {
    "diffusers": ("f.safetensors", {"<toy>": VECTORS}, "<toy>"),
    "diffusers, one vector": ("f.safetensors", {"<toy>": VECTORS[0]}, "<toy>"),
    "diffusers, by PyTorch": ("f.pt", SAVED["diffusers"], "<toy>"),
    "emb_params": ("goodhands.safetensors", {"emb_params": VECTORS}, "goodhands"),
    "web UI": ("Easy-Negative.pt", SAVED["web_ui"], "Easy-Negative"),
    "the paper's": ("f.x.bin", SAVED["first"], "f.x"),
    "a tensor": ("bare.pt", SAVED["bare"], "bare"),
    "SDXL": ("style.safetensors", {"clip_l": VECTORS}, "style"),
    "directory": ("style/learned_embeds.safetensors", {"<toy>": VECTORS}, "<toy>"),
}


def save(path, content):
    path.parent.mkdir(exist_ok=True)
    save_file(content, path) if isinstance(content, dict) else path.write_bytes(bytes(content))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(bundle, tmp_path, layout):
    file, content, word = LAYOUTS[layout]
    save(tmp_path / file, content)
    path = tmp_path / file if "/" not in file else (tmp_path / file).parent
    for given, expected in ((path, word), (f"{path}:My Word", "My Word")):
        new = textual_inversion.add(bundle, given)
        tokenizer, size = new.tokenizers["tokenizer"], bundle.tokenizers["tokenizer"].size
        assert [*tokenizer.added] == [expected]
        table = new.components["text_encoder"].params["token_embed"]["embedding"]
        np.testing.assert_array_equal(table[size:], VECTORS[: len(table) - size])
        spoken = [tokenizer.tokens(f"a {text}, b") for text in (expected, expected.upper(), expected.lower())]
        assert spoken[0] == spoken[1] == spoken[2]
        assert [*range(size, len(table))] == [i for i in spoken[0] if i >= size]


def test_two_encoders(bundle, tmp_path):
    part, tokenizer = bundle.components["text_encoder"], bundle.tokenizers["tokenizer"]
    xl = dataclasses.replace(
        bundle,
        components={"text_encoder": part, "text_encoder_2": part},
        tokenizers={"tokenizer": tokenizer, "tokenizer_2": tokenizer},
    )
    refiner = dataclasses.replace(xl, components={"text_encoder_2": part}, tokenizers={"tokenizer_2": tokenizer})
    second = noise("second", (2, 32))
    save_file({"clip_l": VECTORS, "clip_g": second}, tmp_path / "style.safetensors")
    added = textual_inversion.add(xl, tmp_path / "style.safetensors").components
    for name, vectors in (("text_encoder", VECTORS), ("text_encoder_2", second)):
        np.testing.assert_array_equal(added[name].params["token_embed"]["embedding"][tokenizer.size :], vectors)
    added = textual_inversion.add(refiner, tmp_path / "style.safetensors").components["text_encoder_2"]
    np.testing.assert_array_equal(added.params["token_embed"]["embedding"][tokenizer.size :], second)
    with pytest.raises(ValueError, match=r"text_encoder and text_encoder_2 \(SDXL\): the text encoders here have 32"):
        textual_inversion.add(bundle, tmp_path / "style.safetensors")


def test_a_word_in_two_cases_is_two_words(bundle):
    tokenizer = bundle.tokenizers["tokenizer"]
    both = tokenizer.with_word("GoodHands", 1).with_word("goodhands", 2).with_word("goodhands-2", 1)
    first, second, longer = (list(ids) for ids in both.added.values())
    assert both.tokens("GoodHands") == first
    assert both.tokens("goodhands") == second
    assert both.tokens("GOODHANDS") in (first, second)
    assert both.tokens("GOODHANDS-2") == longer
    assert both.tokens("(goodhands)_") == [*tokenizer.tokens("("), *second, *tokenizer.tokens(")_")]
    for text in ("goodhandsome", "xgoodhands", "goodhands7"):
        assert both.tokens(text) == tokenizer.tokens(text)
    decomposed = tokenizer.with_word("cafe\u0301s", 1)  # as some systems write names of files
    assert decomposed.tokens("caf\u00e9s") == decomposed.tokens("CAFE\u0301S") == [tokenizer.size]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"x": noise("x", (2, 33))}, "vectors of width 33: the text encoders here have 32"),
        ({"x": noise("x", (2, 768))}, r"vectors of width 768 \(Stable Diffusion 1\): the text encoders here have 32"),
        ({"clip_l": noise("x", (2, 33))}, "vectors of width 33 for text_encoder, which has 32"),
        ({"clip_g": noise("x", (2, 1280))}, r"text_encoder_2 \(SDXL\): the text encoders here have 32"),
        ({"x": noise("x", (2, 2, 2))}, r"expected vectors \[width\] or \[n, width\], 'x' is \(2, 2, 2\) of float32"),
        ({"x": np.ones((2, 32), np.int64)}, "'x' is .* of int64"),
        ({"x": np.ones((0, 32), np.float32)}, "holds no textual inversion"),
        ({"x": np.full((2, 32), np.nan, np.float32)}, "the vectors of 'x' are not finite"),
        ({"x": VECTORS, "y": VECTORS}, r"holds several words \(2\): x, y; split it"),
        ({f"{n:03}": VECTORS for n in range(300)}, r"holds several words \(300\): 000, .*, 009, \.\.\.;"),
        ({"clip_l": VECTORS, "t5xxl": VECTORS}, "several words"),
        ({"a": VECTORS}, "knows 'a' already: choose another word, as .*:WORD"),
        ({"<|endoftext|>": VECTORS}, "knows '<|endoftext|>' already"),
        ({" ": VECTORS}, "at least one sign"),
    ],
)
def test_what_is_refused(bundle, tmp_path, content, message):
    save_file(content, tmp_path / "f.safetensors")
    with pytest.raises(ValueError, match=message) as error:
        textual_inversion.add(bundle, tmp_path / "f.safetensors")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def test_file_and_word(bundle, tmp_path):
    save_file({"<toy>": VECTORS}, tmp_path / "a:b.safetensors")
    path = tmp_path / "a:b.safetensors"
    assert textual_inversion.parse(path) == (path, None)
    assert textual_inversion.parse(f"{path}:<c:d>") == (path, "<c:d>")
    assert textual_inversion.parse(tmp_path / "none:x") == (tmp_path / "none:x", None)
    with pytest.raises(ValueError, match="names no word"):
        textual_inversion.parse(f"{path}: ")
    with pytest.raises(FileNotFoundError):
        textual_inversion.add(bundle, tmp_path / "none.safetensors:x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no textual inversion in"):
        textual_inversion.add(bundle, tmp_path / "empty")
    without = dataclasses.replace(bundle, components={})
    with pytest.raises(ValueError, match="has no text encoder"):
        textual_inversion.add(without, path)
