"""Textual inversions as PyTorch (2.13) saves them, each file's bytes: sd_words.npz.

    PYTHONPATH=. python tests/reference/sd_words.py

`web_ui` is what AUTOMATIC1111's web UI writes, `first` what the paper's own code writes (a module of parameters),
`diffusers` what diffusers' training script writes, `bare` a tensor by itself. All hold the same vectors.
"""

import io
import pathlib

import numpy as np
import torch
from sd_weights import noise

HERE = pathlib.Path(__file__)


def main():
    vectors = torch.tensor(noise("vectors", (2, 32)))
    trees = {
        "web_ui": {
            "string_to_token": {"*": 265},
            "string_to_param": {"*": vectors},
            "name": "other",
            "step": 100,
            "sd_checkpoint": None,
            "sd_checkpoint_name": None,
        },
        "first": {
            "string_to_token": {"*": torch.tensor(265)},
            "string_to_param": torch.nn.ParameterDict({"*": torch.nn.Parameter(vectors)}),
        },
        "diffusers": {"<toy>": vectors},
        "bare": vectors,
    }
    saved = {}
    for name, tree in trees.items():
        buffer = io.BytesIO()
        torch.save(tree, buffer)
        saved[name] = np.frombuffer(buffer.getvalue(), np.uint8)
        print(name, len(saved[name]))
    np.savez_compressed(HERE.with_name("sd_words.npz"), **saved)


if __name__ == "__main__":
    main()
