"""GLIDE's checkpoints: networks against the published code, the way back, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pretrained.glide_files import ARRAYS, INDEX, PROMPTS, write
from reference.sd_weights import noise, weights

from jaxdiff.cli.main import main
from jaxdiff.models.text import TextTransformer
from jaxdiff.models.unet import UNet
from jaxdiff.pretrained import files, glide
from jaxdiff.pretrained.rules import TensorError
from jaxdiff.pretrained.schedulers.placing import Placing
from jaxdiff.typing import Cond


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    (path,) = write(tmp_path_factory.mktemp("glide"), "base")
    return path, glide.read(path)


def close(ours, theirs):
    assert np.abs(ours - theirs).max() < 1e-4 * np.abs(theirs).max()


def test_both_networks_agree_with_the_published_code(base):
    _, bundle = base
    text, unet = bundle.components["text_encoder"], bundle.components["unet"]
    words = bundle.tokenizers["tokenizer"]
    tokens = jnp.asarray(np.stack([words.encode(p, text.config.length) for p in [*PROMPTS, "", ""]]))
    states, mask, pooled = jax.jit(TextTransformer(text.config).apply)({"params": text.params}, tokens)
    assert mask is None
    close(states, ARRAYS["states"])
    close(pooled, ARRAYS["pooled"])
    x = jnp.asarray(np.tile(noise("x", (2, 16, 16, 3)), (2, 1, 1, 1)))
    cond = Cond(context=states, pooled=pooled)
    out = jax.jit(UNet(unet.config).apply)({"params": unet.params}, x, jnp.array([3.0, 500.0, 999.0, 0.0]), cond)
    close(out, ARRAYS["output"])


def test_the_upsamplers_steps_are_the_published_ones():
    process = glide._process(True, fills=False)
    np.testing.assert_array_equal(process.calls(27).timesteps, ARRAYS["steps"])
    assert isinstance(process.grid, Placing)
    np.testing.assert_array_equal(process.calls(3).timesteps, [999, 500, 0])


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.heavy] if "-" in n else []) for n in INDEX["models"]]
)
def test_what_is_read_is_written_back(tmp_path, name):
    (path,) = write(tmp_path, name)
    bundle = glide.read(path, without=("tokenizer",))
    glide.write(bundle, tmp_path / "again.safetensors")
    ours, theirs = files.read_tensors(tmp_path / "again.safetensors"), weights(INDEX["models"][name])
    assert ours.keys() == theirs.keys()
    for tensor, x in theirs.items():
        np.testing.assert_array_equal(np.asarray(ours[tensor]), x, err_msg=tensor)


@pytest.mark.heavy
def test_convert_writes_a_file_and_no_directory(base, tmp_path, capsys):
    path, _ = base
    out = tmp_path / "out.safetensors"
    main(["convert", "--model", str(path), "--out", str(out)])
    assert files.read_tensors(out).keys() == files.read_tensors(path).keys()
    assert glide.found(out)
    with pytest.raises(SystemExit):
        main(["convert", "--model", str(path), "--out", str(tmp_path / "folder")])
    assert "has no directories" in capsys.readouterr().err


def changed(tmp_path, **shapes):
    tensors = {**INDEX["models"]["base"], **{name.replace("__", "."): shape for name, shape in shapes.items()}}
    path = tmp_path / "other.safetensors"
    files.write_safetensors(path, weights({name: shape for name, shape in tensors.items() if shape}))
    return path


@pytest.mark.parametrize(
    ("shapes", "says"),
    [
        ({"input_blocks__0__0__weight": [64, 4, 3, 3]}, "takes 4 channels"),
        ({"out__2__weight": [3, 64, 3, 3]}, "gives 3"),
        ({"time_embed__0__weight": [256, 96]}, "96 waves before 64 channels"),
        ({"padding_embedding": []}, "text_encoder: 1 tensors do not fit this model: missing: padding_embedding"),
        ({"final_ln__weight": [64]}, r"final_ln.weight is \(64,\), expected \(128,\)"),
        ({"token_embedding__weight": [757, 100]}, "text states of 100 channels"),
        ({"token_embedding__weight": []}, "token_embedding.weight is missing"),
        ({"label_emb__weight": [3, 256]}, "unexpected: label_emb.weight"),
    ],
)
def test_tensors_that_are_not_glides_are_named(tmp_path, shapes, says):
    with pytest.raises(TensorError, match=says) as error:
        glide.read(changed(tmp_path, **shapes), without=("tokenizer",))
    assert "\n" not in str(error.value)


def test_a_tokenizer_is_needed_and_has_to_fit(base, tmp_path):
    (path,) = write(tmp_path, "base", words=False)
    with pytest.raises(FileNotFoundError, match=r"has no tokenizer: put encoder\.json and vocab\.bpe"):
        glide.read(path)
    assert glide.read(path, tokenizer=base[0].parent).tokenizers
    other = changed(tmp_path, token_embedding__weight=[800, 128])
    with pytest.raises(ValueError, match=r"vocabulary of 757 tokens, and the text encoder of .* knows 800"):
        glide.read(other, tokenizer=base[0].parent)
