"""Inputs that do not serve a training on a model of others, through the run itself: named before anything compiles."""

import dataclasses

import jax
import pytest
from pipelines import small
from reference import finetune_cases
from reference.sd_weights import load, noise
from tasks import published_cases as cases

from jaxdiff import loading, trainer
from jaxdiff.data import DataConfig, picture
from jaxdiff.experiment import Experiment
from jaxdiff.pretrained import files
from jaxdiff.pretrained.write import write_component
from jaxdiff.tasks.class_pictures import PriorConfig
from jaxdiff.training import OptimizerConfig, TrainConfig

SIZE = cases.SIZE
COMPILED = []
jax.monitoring.register_event_duration_secs_listener(
    lambda name, seconds, **told: COMPILED.append(told) if "backend_compile" in name else None
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return cases.save(tmp_path_factory.mktemp("models"))


@pytest.fixture
def pictures(tmp_path):
    """A folder of four captioned pictures, two of which lack hints in the folder beside it."""
    for folder, names in (("pictures", "abcd"), ("hints", "ac"), ("empty", "")):
        (tmp_path / folder).mkdir()
        for name in names:
            save(tmp_path / folder / f"{name}.png", SIZE, SIZE)
            (tmp_path / folder / f"{name}.txt").write_text("a heart")
    return tmp_path / "pictures"


def save(path, height, width):
    path.write_bytes(picture.encode(small.picture(path.stem, 32)[0][:height, :width]).getvalue())


def smaller(task, pictures):
    save(pictures / "b.png", 12, 40)
    save(pictures / "d.png", 30, SIZE - 1)
    return task


def known_word(task, pictures):
    return dataclasses.replace(cases.WORD, model=task.model, word="heart")


def no_class_pictures(task, pictures):
    return dataclasses.replace(task, prior=PriorConfig(prompt="a heart", folder=pictures.with_name("empty")))


def no_room(task, pictures):
    return dataclasses.replace(task, prior=PriorConfig(prompt="a heart", count=2**32 - 1))


def hints_missing(task, pictures):
    return dataclasses.replace(cases.CONTROL, model=task.model, hint="files", folder=pictures.with_name("hints"))


def no_model(task, pictures):
    return dataclasses.replace(task, model=pictures.with_name("nowhere"))


def no_text(task, pictures):
    (pictures / "c.txt").unlink()
    return task


RUNS = {
    smaller: r"2 of 4 pictures are smaller than 16x16, .*: b.png \(12x32\), d.png \(30x15\); remove them, or lower",
    known_word: "task.word: the tokenizer knows 'heart' already: choose another word",
    no_class_pictures: "empty is there and has no picture: put pictures of the class in, or remove it",
    no_room: r"class_pictures: 4294967295 pictures may take \d+ MB, and \d+ MB are free: make room, or lower",
    hints_missing: r"hints lacks 2 of 4: b\.png, d\.png; a file has the name of its picture",
    no_model: "task.model is .*nowhere, and nothing is there: name a directory of diffusers, or a file",
    no_text: "c.png",
}


@pytest.mark.parametrize("change", RUNS)
def test_a_run_refuses_it_by_name(change, model, pictures, tmp_path):
    task = change(dataclasses.replace(cases.LORA, model=model), pictures)
    config = Experiment(
        name="refused", task=task, data=DataConfig(name=str(pictures), size=SIZE, workers=0),
        train=TrainConfig(steps=2, batch_size=8),
    )  # fmt: skip
    COMPILED.clear()
    with pytest.raises((ValueError, OSError), match=RUNS[change]) as told:
        trainer.run(config, tmp_path / "run")
    assert "\n" not in str(told.value)
    assert not COMPILED


def test_an_adapter_of_sdxl_is_for_its_three_levels(tmp_path):
    """It halves before its third feature: of two levels the middle of the U-Net would have other sides."""
    model = finetune_cases.save(load(small.REFERENCE / "finetune.npz")[0]["xl"], tmp_path / "xl")
    task = dataclasses.replace(cases.TASKS["t2i_adapter"], model=model)
    with pytest.raises(ValueError, match="xl has a U-Net of 2 levels: an adapter of SDXL halves once"):
        task.check(DataConfig(name="synthetic", size=SIZE), OptimizerConfig())


def another_lora(folder):
    """SDXL's."""
    name = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
    tensors = {f"{name}.lora_A.weight": noise("a", (2, 2048)), f"{name}.lora_B.weight": noise("b", (8, 2))}
    files.write_safetensors(folder / "xl.safetensors", tensors)
    return {"loras": [folder / "xl.safetensors"]}


def another_controlnet(folder):
    wide = {**small._JSON["tiny control"], "cross_attention_dim": 16}
    write_component(small.tiny(wide), folder / "control")
    return {"controlnets": [folder / "control"]}


def another_adapter(folder):
    wide = {**small._JSON["tiny adapter"], "channels": [16, 16]}
    write_component(small.tiny(wide), folder / "adapter")
    return {"adapter": folder / "adapter"}


OTHERS = {
    another_lora: r"is a LoRA for SDXL \(cross-attention to 2048 numbers\): this model is a U-Net .* to 8 numbers",
    another_controlnet: r"controlnet_00 is for .* to 16 numbers\): this model's U-Net has .* to 8 numbers\)",
    another_adapter: r"the adapter has features of \(16, 16\): this model's U-Net has \(8, 8\)",
}


@pytest.mark.parametrize("make", OTHERS)
def test_what_was_trained_for_another_model_is_refused_by_name(make, model, tmp_path):
    with pytest.raises(ValueError, match=OTHERS[make]) as told:
        loading.load(model, devices=jax.devices()[:1], **make(tmp_path))
    assert "\n" not in str(told.value)
