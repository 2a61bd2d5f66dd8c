"""Makes docs/imagen.md: a frozen text encoder against one that is trained along, on emoji.

    python scripts/imagen_page.py

Trains what is not trained yet; `systems.train` lists the commands on the page.
"""

from systems import CLIPS, RUNS, captions, draw, judge, show, table, train, write

import jaxdiff

TRAINED = "openmoji_imagen32_trained"
SYSTEM = {
    **CLIPS,
    "openmoji_imagen32": ["openmoji_imagen32"],
    "openmoji_imagen64": ["openmoji_imagen64"],
    TRAINED: [
        "openmoji_imagen32",
        *("--task.condition", "text", "--task.net.pooled", "--task.text-encoder", "None"),
    ],
}
GUIDANCE = (1.0, 3.0, 6.0)


def main() -> None:
    """Trains, draws, measures and writes."""
    commands = train(SYSTEM)
    at, whole = RUNS / "imagen", jaxdiff.load(RUNS / "openmoji_imagen64")
    rows = []
    for name, run in (("frozen", "openmoji_imagen32"), ("trained along", TRAINED)):
        pipe = jaxdiff.load(RUNS / run)
        for scale in GUIDANCE:
            scores = []
            for split, count in (("train", 512), ("test", 100)):
                told = captions(split)[:count]
                scores += judge(draw(at / f"{run}-{split}-{scale:g}", pipe, told, guidance=scale), 32)
            rows.append((name, scale, *scores))
    head = ("text encoder", "guidance", "CLIP score", "R-precision", "held-out CLIP score", "held-out R-precision")
    write(
        "imagen",
        [
            "# Imagen of emoji",
            "",
            "A cascade whose stages read the caption through a text encoder that was trained before and is frozen "
            "(Saharia et al. 2022, arXiv 2205.11487): there T5, which has read far more text than there are captions "
            "of pictures; here, in small, the text tower of the CLIP that was trained on the same emoji.",
            "",
            *show("imagen", "openmoji_imagen64", whole),
            "Colours, cats and trees can be recognised; hearts, apples and circles have corners; houses are heaps.",
            "",
            "## What a frozen encoder buys",
            "",
            "The first stage with the frozen encoder, and the same network with a text encoder that is trained along "
            "from the start, after as many steps: 512 captions of the training set and 100 held-out ones, judged by "
            "another CLIP, which no stage has seen (chance of R-precision: 0.01). The frozen encoder was trained "
            "before, for ten minutes, on the same captions and their pictures.",
            "",
            table(head, rows),
        ],
        commands,
    )


if __name__ == "__main__":
    main()
