"""The host's peak memory while Stable Diffusion 1.5, full size, is loaded.

    python scripts/benchmark_load.py [--dtype float32]

Random weights are written to a temporary folder, as a directory of diffusers and as one file (4.3 GB each in float32),
and each is loaded by `jaxdiff.load` in a new process. Printed is what that process held at most beyond what it had held
before, in parts of the files' size. On a CPU the parameters stay there, so it cannot be below 1.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile

from jaxdiff.benchmarks import subject
from jaxdiff.pretrained import single_file
from jaxdiff.pretrained.write import write_directory

LOAD = """
import sys, time, jax, numpy as np
from jaxdiff import load
jax.device_put(np.zeros(3)).block_until_ready()
memory = lambda field: next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(field))
before, began = memory("VmRSS:"), time.perf_counter()
pipe = load(sys.argv[1], **({"tokenizer": sys.argv[2]} if sys.argv[2:] else {}))
jax.block_until_ready(pipe.params)
print(f"{memory('VmHWM:') - before} {time.perf_counter() - began:.1f}")
"""


def main() -> None:
    """Writes, loads, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32", help="of the weights")
    bundle = subject.bundle(subject.published("sd1", dtype=parser.parse_args().dtype))
    with tempfile.TemporaryDirectory() as folder:
        directory, one = pathlib.Path(folder) / "directory", pathlib.Path(folder) / "one.safetensors"
        write_directory(bundle, directory)
        single_file.write(bundle, one)
        words = [str(directory / "tokenizer")]
        for path, files, more in ((directory, list(directory.rglob("*.safetensors")), []), (one, [one], words)):
            size = sum(file.stat().st_size for file in files)
            command = [sys.executable, "-c", LOAD, str(path), *more]
            took, seconds = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
            print(f"{path.name}: {size / 1e9:.2f} GB, peak {int(took) / size:.3f} of that, {seconds} s", flush=True)


if __name__ == "__main__":
    main()
