"""Makes docs/glide.md: text among the keys of attention, what guidance buys, and filling, on emoji.

    python scripts/glide_page.py

Trains what is not trained yet; `systems.train` lists the commands on the page.
"""

import jax
import numpy as np
from systems import CLIPS, JUDGE, RUNS, captions, draw, examples, judge, picture, show, table, train, write

import jaxdiff

SYSTEM = {
    JUDGE: CLIPS[JUDGE],
    "openmoji_glide": ["openmoji_glide"],
    "openmoji_glide_inpaint": ["openmoji_glide_inpaint", "--task.begin", "runs/openmoji_glide"],
}
GUIDANCE = (1.0, 2.0, 3.0, 5.0)


def main() -> None:
    """Trains, draws, measures and writes."""
    commands = train(SYSTEM)
    at, pipe = RUNS / "glide", jaxdiff.load(RUNS / "openmoji_glide")
    told = captions("train")[:512]
    rows = [(scale, *judge(draw(at / f"guided{scale:g}", pipe, told, guidance=scale), 32)) for scale in GUIDANCE]
    real, names = examples("test", 32, 8)
    mask = np.zeros((8, 32, 32, 1), np.uint8)
    mask[:, 8:24, 8:24] = 1
    hidden = np.where(mask, 128, real).astype(np.uint8)
    filled = jaxdiff.load(RUNS / "openmoji_glide_inpaint")(names, key=jax.random.key(2), image=real, mask=mask)
    write(
        "glide",
        [
            "# GLIDE of emoji",
            "",
            "One diffusion model whose attention sees the states of a caption's words beside the picture's own "
            "(Nichol et al. 2021, arXiv 2112.10741). A fifth of the captions are left out in training, so that "
            "sampling can go further away from what is drawn without one: guidance without a classifier. Trained on "
            "with four channels more, it fills holes in pictures.",
            "",
            *show("glide", "openmoji_glide", pipe),
            "Hearts, apples, books and circles are drawn, not always in their colour; houses, trees and fish are not.",
            "",
            "## What guidance buys",
            "",
            "512 captions of the training set; CLIP score and R-precision among 100 captions (chance is 0.01), by a "
            "CLIP trained on the same emoji that the model has not seen.",
            "",
            table(("guidance", "CLIP score", "R-precision"), rows),
            "",
            "## Filling",
            "",
            "Held-out emoji with a hole, and the hole filled from the name, `jaxdiff sample --model "
            "runs/openmoji_glide_inpaint --image FILE --mask FILE --prompt ...`:",
            "",
            picture("glide_filled", np.concatenate([hidden, filled]), [*names, *[""] * 8], 8),
        ],
        commands,
    )


if __name__ == "__main__":
    main()
