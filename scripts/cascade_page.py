"""Makes docs/cascade.md: what a cascade buys, and what noise on the small pictures buys in it, on emoji.

    python scripts/cascade_page.py

Trains what is not trained yet; `systems.train` lists the commands on the page.
"""

import pathlib

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
    picture,
    read,
    show,
    table,
    train,
    write,
)

import jaxdiff

NUM = 768
PLAIN = ["--task.levels", "0", "--task.net.no-augment"]
CASCADE = {name: [name] for name in ("openmoji_base16", "openmoji_sr32", "openmoji_sr64")}
WHOLE = ["openmoji_base16", "--data.size", "64"]
OTHERS = {
    "openmoji_sr32_plain": ["openmoji_sr32", *PLAIN],
    "openmoji_sr64_plain": ["openmoji_sr64", *PLAIN, "--task.before", "runs/openmoji_sr32_plain"],
    "openmoji_whole64": [*WHOLE, "--task.net.patch", "4", "--train.steps", "11000"],
    "openmoji_whole64_fine": [*WHOLE, "--task.net.patch", "2", "--train.steps", "2800"],
}
LEVELS = (0, 50, 100, 200, 400)
"""Levels of noise to sample with, of 600 that were trained."""


def main() -> None:
    """Trains, draws, measures and writes."""
    commands = train({**CASCADE, **OTHERS, JUDGE: CLIPS[JUDGE]})
    at, told = RUNS / "cascade", captions("train")
    sets: dict[str, pathlib.Path] = {}
    base = draw(at / "base16", jaxdiff.load(RUNS / "openmoji_base16"), told, NUM)
    sets["16x16 pictures enlarged by bicubic interpolation"] = enlarge(base, at / "bicubic", 64)
    sets["one model of 64x64, which sees 4x4 squares"] = draw(
        at / "whole64", jaxdiff.load(RUNS / "openmoji_whole64"), told, NUM
    )
    sets["one model of 64x64, which sees 2x2 squares"] = draw(
        at / "whole64_fine", jaxdiff.load(RUNS / "openmoji_whole64_fine"), told, NUM
    )
    sets["cascade, trained without noise"] = draw(at / "plain", jaxdiff.load(RUNS / "openmoji_sr64_plain"), told, NUM)
    cascade = jaxdiff.load(RUNS / "openmoji_sr64")
    for level in LEVELS:
        name = f"cascade, level {level}"
        sets[name] = draw(at / f"level{level}", cascade, told, NUM, noise_level=level)
    rows = [(name, frechet(folder, 64), *judge(folder, 64)) for name, folder in sets.items()]
    shown = [sets["16x16 pictures enlarged by bicubic interpolation"], sets["cascade, trained without noise"]]
    shown += [sets["cascade, level 100"], sets["one model of 64x64, which sees 4x4 squares"]]
    side = np.concatenate([read(folder)[:8] for folder in shown])
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
            "## What was measured",
            "",
            f"{NUM} pictures of each, of the training set's captions, against the training set: the Frechet distance "
            "in 320 features of EfficientNet-Lite0 (less is better; it compares with no paper's), the CLIP score and "
            "R-precision among 100 captions (chance is 0.01), by a CLIP trained on the same emoji that no stage has "
            "seen. The models of 64x64 were trained with as much counted work as the three stages together.",
            "",
            table(("pictures", "Frechet distance", "CLIP score", "R-precision"), rows),
            "",
            "The first eight pictures of four of these sets, none chosen: bicubic, cascade without noise, cascade at "
            "level 100, one model of 64x64.",
            "",
            picture("cascade_rows", side, columns=8),
        ],
        commands,
    )


if __name__ == "__main__":
    main()
