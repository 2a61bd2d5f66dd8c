"""What a LoRA's run writes is read as the weights that it was trained with, in both layouts; and it is taken itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pipelines import small
from reference.sd_weights import noise

from jaxdiff.data import DataConfig
from jaxdiff.dryrun.subject import Nothing
from jaxdiff.pretrained import files, lora
from jaxdiff.pretrained.rules import flatten, unflatten
from jaxdiff.pretrained.write import write_directory
from jaxdiff.tasks import lora as task
from jaxdiff.training import Variables

SD = small.TINY
XL = {"unet": "unet_xl", "vae": "vae", "text_encoder": "text_l", "text_encoder_2": "text_g"}
PARTS = {"sd": SD, "xl": XL}
ALL = (*task.PARTS,)
FORMS = {
    "plain": {"alpha": 4.0},
    "stabilised": {"stabilised": True, "alphas": ((r"unet/mid/.*", 1.0),), "ranks": ((r"text_encoder/.*", 3),)},
    "dora": {"dora": True, "parts": ("attention", "convolutions", "text_attention")},
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    def save(name):
        path = tmp_path_factory.mktemp(name)
        kind = {"xl": {"_class_name": "StableDiffusionXLPipeline"}}.get(name, {})
        write_directory(small.bundle(PARTS[name], **kind), path)
        return path

    return {name: save(name) for name in PARTS}


@pytest.mark.parametrize("layout", ["diffusers", "kohya"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("version", PARTS)
def test_a_file_says_what_was_trained(version, form, layout, models, tmp_path):
    config = task.Config(model=models[version], rank=2, words="a <toy>", **{"parts": ALL, **FORMS[form]})
    assets = config.assets(tmp_path, DataConfig(), source=Nothing(8, 0), new=True)
    base = small.bundle(PARTS[version]).components
    frozen = {name: part.params for name, part in base.items()}
    shapes = jax.eval_shape(lambda: config._start(assets, jax.random.key(0), frozen)[0])
    params = {path: jnp.asarray(noise(path, x.shape)) for path, x in flatten(shapes).items()}
    params = unflatten({path: 1 + 0.1 * x if path.endswith("magnitude") else x for path, x in params.items()})
    out = tmp_path / "x.safetensors"
    config.apart(assets, Variables(params), out, layout)(out)
    read = lora.read(out, base)
    ours = config.factors(assets, params)
    assert {name: own.keys() for name, own in read.items()} == {name: own.keys() for name, own in ours.items()}
    for name, own in ours.items():
        for path, factors in own.items():
            if layout == "diffusers":  # which knows no alpha
                factors = {**factors, "up": factors["up"] * factors["scale"], "scale": 1.0}
            for role, x in factors.items():
                np.testing.assert_allclose(read[name][path][role], x, rtol=1e-6, err_msg=f"{name}/{path}/{role}")
    note = files.metadata(out)
    assert note["modelspec.trigger_phrase"] == "a <toy>"
    assert note["ss_new_sd_model_hash"] == assets.base.sha256
    assert note["ss_network_dim"] == ("3" if form == "stabilised" else "2")


def test_a_lora_is_for_a_file_and_a_layout_that_there_is(models, tmp_path):
    config = task.Config(model=models["sd"])
    assets = config.assets(tmp_path, DataConfig(), source=Nothing(8, 0), new=True)
    with pytest.raises(ValueError, match=r"this run is a LoRA, for a file that ends in \.safetensors"):
        config.apart(assets, Variables({}), tmp_path / "folder", "diffusers")
    with pytest.raises(ValueError, match="unknown layout 'other' of a LoRA: expected one of diffusers, kohya"):
        lora.write(tmp_path / "x.safetensors", {}, {}, "other")


def test_files_of_no_run_are_read_as_files(models, tmp_path):
    with pytest.raises(FileNotFoundError, match="no LoRA in"):
        task.read(tmp_path, small.bundle(SD).components)
