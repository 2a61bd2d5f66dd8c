"""Equal transformer blocks one after another against one `lax.scan` over them: compile time, time of a call, memory.

    python scripts/measure_scan.py [--width 1280 --depth 10 --side 16 --context 2048]

The defaults are the middle block of Stable Diffusion XL's U-Net at 512x512: ten blocks of 1280 channels, 20 heads, on
16x16 positions, with a text of 77 tokens. The first two ways take the weights as checkpoints have them, each block by
itself: the scan stacks them within the program. The third takes them stacked, which no checkpoint has them. A call is
the least of three, in turns; compiling is in CPU time, and memory is what the compiler says. The gradient is of all
weights.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxdiff.nn.transformer import TransformerBlock

TURNS = 3


def main() -> None:
    """Compiles, runs, prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("width", 1280), ("depth", 10), ("side", 16), ("context", 2048)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    block = TransformerBlock(args.width // 64, 64)
    x, context = jnp.ones((1, args.side**2, args.width)), jnp.ones((1, 77, args.context))
    shapes = jax.eval_shape(block.init, jax.random.key(0), x, context)
    # each block's weights have an own place, as those that are read from a file
    each = [jax.tree.map(lambda leaf: jnp.full(leaf.shape, 1e-3), shapes) for _ in range(args.depth)]

    def loop(weights: Any, x: Any) -> Any:
        for one in weights:
            x = block.apply(one, x, context)
        return x

    def stacked(weights: Any, x: Any) -> Any:
        return jax.lax.scan(lambda x, one: (block.apply(one, x, context), None), x, weights)[0]

    def scan(weights: Any, x: Any) -> Any:
        return stacked(jax.tree.map(lambda *leaves: jnp.stack(leaves), *weights), x)

    print("| program | way | compile, CPU s | a call, s | temporaries, MiB |\n|---|---|---|---|---|")
    together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
    ways = {"one after another": (loop, each), "scan": (scan, each), "scan, stacked before": (stacked, together)}
    for name, of in (("forward", lambda f: f), ("gradient", _gradient)):
        made = {way: (*_compile(of(function), weights, x), weights) for way, (function, weights) in ways.items()}
        least = dict.fromkeys(made, float("inf"))
        for _ in range(TURNS):
            for way, (program, _, weights) in made.items():
                began = time.perf_counter()
                jax.block_until_ready(program(weights, x))
                least[way] = min(least[way], time.perf_counter() - began)
        for way, (program, seconds, _) in made.items():
            memory = program.memory_analysis().temp_size_in_bytes / 2**20
            print(f"| {name} | {way} | {seconds:.2f} | {least[way]:.2f} | {memory:.0f} |", flush=True)


def _gradient(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return jax.grad(lambda weights, x: jnp.sum(function(weights, x) ** 2))


def _compile(function: Callable[[Any, Any], Any], *arguments: Any) -> tuple[Any, float]:
    """Returns a compiled program, and the CPU seconds that tracing, lowering and compiling took."""
    began = time.process_time()
    return jax.jit(function).lower(*arguments).compile(), time.process_time() - began


if __name__ == "__main__":
    main()
