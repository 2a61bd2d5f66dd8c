"""Numbers by formula: weights and inputs that NumPy gives alike on both sides, so that fixtures hold outputs only."""

import json
import zlib

import numpy as np


def noise(name, shape):
    """Uniform numbers in [-1, 1) from a hash (splitmix64) of the name and the position, as float32."""
    with np.errstate(over="ignore"):
        x = np.arange(int(np.prod(shape)), dtype=np.uint64) + np.uint64(zlib.crc32(name.encode()) << 32)
        x *= np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x ^= x >> np.uint64(31)
    return ((x >> np.uint64(40)).astype(np.float32) / 2**23 - 1).reshape(shape)


def weight(name, shape):
    """A weight whose layer keeps its input's size; what is one number a channel lies near 1 (scale) or 0 (bias)."""
    if len(shape) < 2:
        return np.float32(0.0 if name.endswith("bias") else 1.0) + np.float32(0.1) * noise(name, shape)
    return noise(name, shape) * np.float32((3 / np.prod(shape[1:])) ** 0.5)


def weights(shapes):
    """All tensors of {name: shape}."""
    return {name: weight(name, tuple(shape)) for name, shape in shapes.items()}


def take(model):
    """The torch model with its tensors by formula, ready to be called."""
    import torch

    model.load_state_dict({name: torch.tensor(weight(name, tuple(v.shape))) for name, v in model.state_dict().items()})
    return model.eval()


def save(path, cases):
    """Writes {case: (model, {name: tensor})}: its class, config and the shapes of its tensors as JSON, and arrays."""
    index, arrays = {}, {}
    for case, (model, outputs) in cases.items():
        config = model.config if isinstance(model.config, dict) else model.config.to_dict()
        shapes = {name: list(v.shape) for name, v in model.state_dict().items()}
        index[case] = {"class": type(model).__name__, "config": dict(config), "shapes": shapes}
        for name, tensor in outputs.items():
            arrays[f"{case}/{name}"] = tensor.detach().numpy()
            print(case, name, arrays[f"{case}/{name}"].shape, "std", arrays[f"{case}/{name}"].std())
    np.savez_compressed(path, index=np.frombuffer(json.dumps(index).encode(), np.uint8), **arrays)


def load(path):
    """The index and the arrays of such a file."""
    file = np.load(path)
    return json.loads(bytes(file["index"])), file
