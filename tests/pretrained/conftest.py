"""The small model that LoRAs of every layout are for."""

import dataclasses

import pytest
from lora_files import LORAS, UNETS, component, theirs


@pytest.fixture(scope="module")
def model():
    """A U-Net, of which a part is enough and faster, and a text encoder that stands for both."""
    text = component("CLIPTextModel", LORAS["text"]["config"], LORAS["text"]["tensors"])
    unet = component("UNet2DConditionModel", UNETS["sd1"]["config"], UNETS["sd1"]["shapes"])
    unet = dataclasses.replace(unet, params={"down_0": unet.params["down_0"]})
    return {"unet": unet, "text_encoder": text, "text_encoder_2": text}


@pytest.fixture(scope="module")
def plain(model):
    return {name: theirs(part, part.params) for name, part in model.items()}
