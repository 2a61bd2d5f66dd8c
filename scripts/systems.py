"""What the pages of whole systems share: runs, trained where they are missing; pictures, drawn once; measures."""

import functools
import itertools
import json
import pathlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from PIL import Image

from jaxdiff.cli.main import main as jaxdiff
from jaxdiff.cli.progress import counting
from jaxdiff.data.grid import grid
from jaxdiff.data.source import DataConfig, open_source
from jaxdiff.evaluation import samples
from jaxdiff.training import checkpoint

TOP = pathlib.Path(__file__).parents[1]
RUNS, DOCS = pathlib.Path("runs"), TOP / "docs"
JUDGE = "openmoji_clip_judge"
CLIPS = {"openmoji_clip": ["openmoji_clip"], JUDGE: ["openmoji_clip", "--seed", "1"]}
"""The CLIP that systems stand on, and one that none of them has seen, which judges them."""
PROMPTS = (
    "red heart",
    "cat face",
    "house",
    "red apple",
    "tree",
    "fish",
    "blue circle",
    "green book",
)


def train(commands: Mapping[str, Sequence[str]]) -> list[str]:
    """Trains each run that is not finished, and returns the commands."""
    lines = []
    for name, words in commands.items():
        workdir = RUNS / name
        whole = ["train", *words, *(["--workdir", str(workdir)] if name != words[0] else [])]
        lines.append(" ".join(["jaxdiff", *whole]))
        done = checkpoint.steps(workdir / "checkpoints") if (workdir / "config.json").is_file() else []
        if not done or done[-1] < json.loads((workdir / "config.json").read_text())["train"]["steps"]:
            jaxdiff(whole)
    return lines


def minutes(*names: str) -> float:
    """Returns how long runs trained: the sum of their steps, each as long as the median of those logged together."""
    total = 0.0
    for name in names:
        lines = [json.loads(line) for line in (RUNS / name / "metrics.jsonl").read_text().splitlines()]
        found = {0: 0.0} | {line["step"]: line["step_seconds_p50"] for line in lines if "step_seconds_p50" in line}
        steps = sorted(found)
        total += sum((step - before) * found[step] for before, step in itertools.pairwise(steps))
    return total / 60


def examples(split: str, size: int, count: int) -> tuple[np.ndarray, list[str]]:
    """Returns the first pictures of emoji without skin tones and flags, uint8 [n h w 3], and their names."""
    source = open_source(DataConfig(name="openmoji", size=size, split=split, subset="plain"))
    found = [source[i] for i in range(count)]
    return np.stack([one["image"] for one in found]), [one["caption"] for one in found]


@functools.cache
def captions(split: str) -> tuple[str, ...]:
    """Returns the names of emoji without skin tones and flags, shuffled."""
    told = open_source(DataConfig(name="openmoji", size=32, split=split, subset="plain")).captions()
    return tuple(told[i] for i in np.random.default_rng(0).permutation(len(told)))


def draw(
    folder: pathlib.Path, pipe: Callable[..., np.ndarray], prompts: Sequence[str], num: int = 0, **options: Any
) -> pathlib.Path:
    """Draws pictures into a folder, those that are missing; the prompts in turn, each once where `num` is 0."""
    num = num or len(prompts)
    with counting(folder.name, num) as tell:
        samples.make(pipe, folder, prompts, num, batch_size=64, report=tell, origin={"folder": str(folder)}, **options)
    return folder


def read(folder: pathlib.Path) -> np.ndarray:
    """Returns the pictures of a folder, uint8 [n h w 3]."""
    return np.stack([np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))])


def enlarge(of: pathlib.Path, to: pathlib.Path, side: int) -> pathlib.Path:
    """Enlarges a folder's pictures by bicubic interpolation."""
    to.mkdir(parents=True, exist_ok=True)
    for path in of.glob("*.png"):
        Image.open(path).resize((side, side), Image.Resampling.BICUBIC).save(to / path.name)
    shutil.copy(of / samples.SETTINGS, to)
    return to


def frechet(folder: pathlib.Path, size: int) -> float:
    """Returns the Frechet distance of a folder's pictures from the training set, in 320 features."""
    return measure(folder, size, "frechet", "--width", "320")[0]


def judge(folder: pathlib.Path, size: int) -> tuple[float, float]:
    """Returns the mean CLIP score of a folder's pictures and their R-precision, by the CLIP that judges."""
    score, precision = measure(folder, size, "clip", "--clip", str(RUNS / JUDGE))
    return score, precision


def measure(folder: pathlib.Path, size: int, metric: str, *options: str) -> list[float]:
    """Runs `jaxdiff evaluate` on a folder, and returns its numbers."""
    workdir = folder.parent / "evaluation"
    count = str(len(list(folder.glob("*.png"))))
    of = ["--reference", "openmoji", "--subset", "plain", "--split", "train", "--size", str(size), "--num", count]
    asked = ["--metrics", metric, *options, "--resamples", "0", "--workdir", str(workdir)]
    jaxdiff(["evaluate", "--generated", str(folder), *of, *asked])
    return [told["value"] for told in json.loads((workdir / "results.json").read_text())["metrics"].values()]


def picture(name: str, images: np.ndarray, told: Sequence[str] = (), columns: int | None = None) -> str:
    """Writes docs/NAME.png, and returns the line that shows it."""
    grid(images, told, columns).save(DOCS / f"{name}.png", optimize=True)
    return f"![{name.replace('_', ' ')}]({name}.png)"


def show(name: str, model: str, pipe: Callable[..., np.ndarray]) -> list[str]:
    """Draws two pictures for each of `PROMPTS`, and returns the lines that show them and the command for others."""
    prompts = [prompt for prompt in PROMPTS for _ in range(2)]
    images = pipe(prompts, key=jax.random.split(jax.random.key(1), len(prompts)))
    command = f"`jaxdiff sample --model {RUNS / model} --prompt ...` draws such pictures, two for each prompt:"
    return [command, "", picture(name, images, prompts, 8), ""]


def write(name: str, lines: Sequence[str], commands: Sequence[str]) -> None:
    """Writes docs/NAME.md, with the commands that trained what it shows."""
    last = [
        "",
        "## Commands",
        "",
        f"`python scripts/{name}_page.py` runs them where they were not run yet, and makes this page.",
        "",
        "```bash",
        *commands,
        "```",
        "",
        "The pictures show OpenMoji, and what models trained on it make of it (CC BY-SA 4.0).",
    ]
    (DOCS / f"{name}.md").write_text("\n".join([*lines, *last]) + "\n")


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Returns a table; numbers have three digits."""
    cell = lambda x: f"{x:.3g}" if isinstance(x, float) else str(x)
    body = ["| " + " | ".join(map(cell, row)) + " |" for row in rows]
    return "\n".join(["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *body])
