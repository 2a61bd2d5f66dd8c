"""The 35.7M-parameter CIFAR U-Net beside PyTorch eager's, batch 16, float32, on the CPU: forward, and a step of Adam.

    python scripts/benchmark_unet.py [--rounds 5]

The sides take turns in one process, each going first every other time; a turn is two calls of which the second is
timed, and the figure is the median of the ratios. Needs the extra `reference`. Neighbours on a shared machine change
both sides' times, so quote the ratio.
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
import optax
import torch
from diffusers import UNet2DModel

from jaxdiff.models.unet import UNet, cifar10

BATCH = 16


def jax_side():
    """Functions that run one forward pass, and one step of Adam."""
    net = UNet(cifar10(dropout=0.0))
    x, t = jax.random.normal(jax.random.key(0), (BATCH, 32, 32, 3)), jnp.full((BATCH,), 500.0)
    params = jax.jit(net.init)(jax.random.key(1), x, t)
    adam = optax.adam(1e-4)
    state = {"params": params, "adam": adam.init(params)}
    forward = jax.jit(net.apply)

    def step(params, opt_state):
        grads = jax.grad(lambda p: (net.apply(p, x, t) ** 2).mean())(params)
        updates, opt_state = adam.update(grads, opt_state)
        return optax.apply_updates(params, updates), opt_state

    step = jax.jit(step, donate_argnums=(0, 1))

    def train():
        state["params"], state["adam"] = jax.block_until_ready(step(state["params"], state["adam"]))

    return lambda: jax.block_until_ready(forward(state["params"], x, t)), train


def torch_side():
    """The same in PyTorch, eager."""
    net = UNet2DModel(
        sample_size=32,
        block_out_channels=(128, 256, 256, 256),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=None,
        norm_eps=1e-6,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
    )
    x, t = torch.randn(BATCH, 3, 32, 32), torch.full((BATCH,), 500)
    adam = torch.optim.Adam(net.parameters(), 1e-4)

    def forward():
        with torch.no_grad():
            net(x, t)

    def train():
        adam.zero_grad()
        (net(x, t).sample ** 2).mean().backward()
        adam.step()

    return forward, train


def compare(name, ours, theirs, rounds):
    """Prints medians and the median ratio with its spread."""
    ours(), theirs()  # compile, and fill the allocators
    times = []
    for i in range(rounds):
        order = [ours, theirs] if i % 2 else [theirs, ours]
        took = {}
        for side in order:
            side()  # untimed: XLA returns its memory after a call, and getting it again after the other's costs more
            start = time.perf_counter()
            side()
            took[side] = time.perf_counter() - start
        times.append((took[ours], took[theirs]))
    ratios = sorted(a / b for a, b in times)
    print(
        f"{name:8} jaxdiff {statistics.median(a for a, _ in times):.3f} s, "
        f"torch {statistics.median(b for _, b in times):.3f} s, "
        f"ratio {statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})",
        flush=True,
    )


def main():
    """Both comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side")
    rounds = parser.parse_args().rounds
    (forward, train), (torch_forward, torch_train) = jax_side(), torch_side()
    compare("forward", forward, torch_forward, rounds)
    compare("step", train, torch_train, rounds)


if __name__ == "__main__":
    main()
