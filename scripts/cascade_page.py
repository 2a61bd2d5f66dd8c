"""Makes docs/cascade.md: what a cascade buys, and what noise on the small pictures buys in it, on emoji.

    python scripts/cascade_page.py

Trains what is not trained yet; `systems.train` lists the commands on the page.
"""

import numpy as np
from systems import (
    CLIPS,
    JUDGE,
    RUNS,
    captions,
    draw,
    enlarge,
    frechet,
    judge,
    minutes,
    picture,
    read,
    show,
    table,
    train,
    write,
)

import jaxdiff

NUM = 384
CASCADE = {name: [name] for name in ("openmoji_base16", "openmoji_sr32", "openmoji_sr64")}
PLAIN = "openmoji_sr32_plain"
WHOLE = "openmoji_whole64"
OTHERS = {
    PLAIN: ["openmoji_sr32", "--task.levels", "0", "--task.net.no-augment"],
    WHOLE: [
        "openmoji_base16",
        *("--data.size", "64", "--task.net.patch", "4"),
        *("--task.net.channels", "64", "96", "128", "--task.net.heads", "2", "3", "4"),
        *("--train.steps", "3100"),
    ],
}
LEVELS = (0, 100, 300)
"""Levels of noise to sample with, of 600 that were trained."""


def main() -> None:
    """Trains, draws, measures and writes."""
    commands = train({**CASCADE, **OTHERS, JUDGE: CLIPS[JUDGE]})
    at, told = RUNS / "cascade", captions("train")
    base = draw(at / "base16", jaxdiff.load(RUNS / "openmoji_base16"), told, NUM)
    second, cascade = jaxdiff.load(RUNS / "openmoji_sr32"), jaxdiff.load(RUNS / "openmoji_sr64")
    twice = {
        "16x16 pictures, enlarged by bicubic interpolation": enlarge(base, at / "bicubic32", 32),
        "trained without noise": draw(at / "plain32", jaxdiff.load(RUNS / PLAIN), told, NUM),
    }
    for level in LEVELS:
        twice[f"trained with noise, level {level}"] = draw(at / f"level{level}", second, told, NUM, noise_level=level)
    sets = {
        "16x16 pictures, enlarged by bicubic interpolation": enlarge(base, at / "bicubic64", 64),
        "one model of 64x64": draw(at / "whole64", jaxdiff.load(RUNS / WHOLE), told, NUM),
        "cascade": draw(at / "cascade64", cascade, told, NUM),
    }
    head = ("pictures", "Frechet distance", "CLIP score", "R-precision")
    small = [(name, frechet(folder, 32), *judge(folder, 32)) for name, folder in twice.items()]
    large = [(name, frechet(folder, 64), *judge(folder, 64)) for name, folder in sets.items()]
    without, *levels = (scores[1] for scores in small[1:])
    best = min(levels)
    side = np.concatenate([read(folder)[:8] for folder in sets.values()])
    write(
        "cascade",
        [
            "# A cascade of emoji",
            "",
            "A first model draws 16x16 pictures of a name, a second makes them 32x32 and a third 64x64, each a "
            "diffusion model whose input is joined by the smaller picture, enlarged (Ho et al. 2021, arXiv "
            "2106.15282). A later stage is trained on true small pictures and sampled on made ones, which are never "
            "quite like them. So training adds noise to the small picture and tells the network how much, and "
            "sampling adds a little of it, which hides what the stage before does wrong (Saharia et al. 2022, arXiv "
            "2205.11487).",
            "",
            *show("cascade", "openmoji_sr64", cascade),
            "Outlines and colours are clean; hearts, circles, books and cats are right, apples and houses are not.",
            "",
            "## What a cascade buys",
            "",
            f"{NUM} pictures of 64x64 of each, of the training set's captions, against the training set: the Frechet "
            "distance in 320 features of EfficientNet-Lite0 (less is better; it compares with no paper's), the CLIP "
            "score and R-precision among 100 captions (chance is 0.01), by a CLIP trained on the same emoji that no "
            "stage has seen. The three stages were trained for "
            f"{minutes(*CASCADE):.0f} minutes together, the one model of 64x64 for {minutes(WHOLE):.0f}.",
            "",
            table(head, large),
            "",
            "The first eight pictures of each, a set a row, none chosen:",
            "",
            picture("cascade_rows", side, columns=8),
            "",
            "## What noise on the small pictures buys",
            "",
            f"The same of {NUM} pictures of 32x32, by the first two stages. Levels are of the 600 that training drew "
            "from.",
            "",
            table(head, small),
            "",
            f"Of the levels the best Frechet distance is {best:.0f}, and training without noise has {without:.0f}: as "
            "small a difference as between levels, while the CLIP score is better without. What the papers found for "
            "large cascades, that this noise is needed, is not seen in these small ones.",
        ],
        commands,
    )


if __name__ == "__main__":
    main()
