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


def test_other_forms_of_files(bundle, tmp_path):
    save_file({"clip_l": noise("l", (3, 32))}, tmp_path / "xl.safetensors")
    assert len(textual_inversion.add(bundle, tmp_path / "xl.safetensors").tokenizers["tokenizer"].added["xl"]) == 3
    save_file({"<one>": noise("one", (32,))}, tmp_path / "one.safetensors")
    added = textual_inversion.add(bundle, tmp_path / "one.safetensors", word="<renamed>").tokenizers["tokenizer"].added
    assert len(added["<renamed>"]) == 1


def test_what_is_no_textual_inversion(bundle, tmp_path):
    save_file({"x": noise("x", (2, 33))}, tmp_path / "wide.safetensors")
    with pytest.raises(ValueError, match="vectors of width 33, which no text encoder here has"):
        textual_inversion.add(bundle, tmp_path / "wide.safetensors")
    save_file({"x": noise("x", (2, 2, 2))}, tmp_path / "cube.safetensors")
    with pytest.raises(ValueError, match="holds no textual inversion"):
        textual_inversion.read(tmp_path / "cube.safetensors")
    save_file({"x": noise("x", (32,)), "y": noise("y", (32,))}, tmp_path / "two.safetensors")
    with pytest.raises(ValueError, match="holds several words: x, y"):
        textual_inversion.add(bundle, tmp_path / "two.safetensors")
