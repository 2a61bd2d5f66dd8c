"""Makes unet_ddpm.npz: a small DDPM network of diffusers, its input and its output.

Run from the repository's root in an environment with the `reference` extra: python tests/reference/unet_ddpm.py

The weights are a formula of name and index, so they need no storing; the test fills its own network with the same.
"""

import pathlib
import zlib

import numpy as np
import torch
from diffusers import UNet2DModel


def formula(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers of the size of trained weights: a wave whose phase is the name's; norm scales lie around 1."""
    size = int(np.prod(shape))
    wave = np.sin(np.arange(size) * 1.7 + zlib.crc32(name.encode()) % 1000).reshape(shape)
    if "norm" in name and name.endswith("weight"):
        return 1 + 0.3 * wave
    return wave * (1.5 / np.sqrt(np.prod(shape[1:])) if len(shape) > 1 else 0.2)


def main() -> None:
    net = UNet2DModel(
        in_channels=3,
        out_channels=3,
        layers_per_block=2,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        norm_eps=1e-6,
        attention_head_dim=None,
        flip_sin_to_cos=False,
        freq_shift=1,
        downsample_padding=0,
    ).double()
    with torch.no_grad():
        for name, weight in net.named_parameters():
            weight.copy_(torch.from_numpy(formula(name, tuple(weight.shape))))
        x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
        t = np.array([3.0, 800.0], np.float32)
        y = net(torch.from_numpy(x).double().permute(0, 3, 1, 2), torch.from_numpy(t).double()).sample
    np.savez_compressed(
        pathlib.Path(__file__).with_suffix(".npz"), x=x, t=t, y=y.permute(0, 2, 3, 1).numpy().astype(np.float32)
    )
    print("spread of the output", y.std().item())


if __name__ == "__main__":
    main()
