"""Makes docs/unclip.md: what a prior buys, and what an embedding keeps of a picture, on emoji.

    python scripts/unclip_page.py

Trains what is not trained yet; `systems.train` lists the commands on the page.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from systems import CLIPS, JUDGE, RUNS, captions, draw, examples, picture, read, show, table, train, write

import jaxdiff
from jaxdiff.evaluation import rerank
from jaxdiff.metrics.clip_score import r_precision
from jaxdiff.pipelines.vary import VaryOptions

DRAWS = 4
GUIDANCES = (1.0, 2.0, 4.0)
SEEN = 64
PRIOR, TEXT = "the prior's", "the text's in its place, as long as a picture's"
SYSTEM = {**CLIPS, "openmoji_prior": ["openmoji_prior"], "openmoji_unclip": ["openmoji_unclip"]}


def main() -> None:
    """Trains, draws, measures and writes."""
    commands = train(SYSTEM)
    at, pipe = RUNS / "unclip", jaxdiff.load(RUNS / "openmoji_unclip")
    embed = rerank.embedder(RUNS / "openmoji_clip")
    assert embed is not None
    held_out, told = examples("test", 32, SEEN)
    embeds = pipe.prior.look([""] * SEEN, VaryOptions(picture=held_out))[0]
    seen, away = (np.asarray(x, np.float32) for x in (embeds, pipe.prior.away(embeds)))
    length = np.linalg.norm(seen, axis=-1).mean()

    def of_text(prompts: Sequence[str], *, key: Any) -> np.ndarray:
        blank = np.zeros((len(prompts), 32, 32, 3), np.uint8)
        text = np.asarray(embed(blank, prompts)[1], np.float32)
        text = text * (length / np.linalg.norm(text, axis=-1, keepdims=True))
        return pipe.decoder(prompts, key=key, embed=text, no_embed=np.repeat(away[:1], len(prompts), 0))

    def of_nothing(prompts: Sequence[str], *, key: Any) -> np.ndarray:
        none = np.repeat(away[:1], len(prompts), 0)
        return pipe.decoder(prompts, key=key, embed=none, no_embed=none)

    ways = {
        **{f"{PRIOR}, guidance {g:g}": (f"prior-{g:g}", functools.partial(pipe, prior_guidance=g)) for g in GUIDANCES},
        TEXT: ("text", of_text),
        "none, and the text alone": ("none", of_nothing),
    }
    judge_of = rerank.embedder(RUNS / JUDGE)
    assert judge_of is not None
    rows, gains = [], []
    for split, count, times in (("train", 512, 1), ("test", None, DRAWS)):
        chosen, each, of_split = captions(split)[:count], {}, "training" if split == "train" else "held-out"
        prompts = chosen * times
        for name, (folder, of) in ways.items():
            drawn = draw(at / f"{split}-{folder}", of, prompts)
            images, texts = (np.split(np.asarray(x), times) for x in judge_of(read(drawn), prompts))
            scores = [100 * np.maximum(rerank.similarity(*both), 0) for both in zip(images, texts, strict=True)]
            right = [r_precision(*both).mean() for both in zip(images, texts, strict=True)]
            each[name] = np.mean(scores, 0)
            rows.append((f"{len(chosen)} of the {of_split} set", times, name, each[name].mean(), np.mean(right)))
        if split == "train":
            best = max((name for name in ways if name.startswith(PRIOR)), key=lambda name: each[name].mean())
            ways = {name: way for name, way in ways.items() if name == best or not name.startswith(PRIOR)}
        gain = each[best] - each[TEXT]
        gains.append(f"{gain.mean():.1f} ± {gain.std(ddof=1) / len(chosen) ** 0.5:.1f} on the {of_split} set")
    others = [pipe([""] * SEEN, key=jax.random.split(jax.random.key(n), SEEN), picture=held_out) for n in range(3)]
    unit = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)
    real, *drawn = (unit(np.asarray(judge_of(images, told)[0], np.float64)) for images in (held_out, *others))
    alike = np.stack([one @ real.T for one in drawn])
    itself, any_other = np.eye(SEEN, dtype=bool), ~np.eye(SEEN, dtype=bool)
    found = float((alike.argmax(-1) == np.arange(SEEN)).mean())
    mixed = [
        pipe([""] * 2, key=jax.random.split(jax.random.key(5), 2), picture=held_out[:2], towards=held_out[2:4], mix=mix)
        for mix in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    between = np.stack([held_out[:2], *mixed, held_out[2:4]], 1).reshape(-1, 32, 32, 3)
    write(
        "unclip",
        [
            "# unCLIP of emoji",
            "",
            "A prior imagines CLIP's embedding of a picture that a text describes, and a decoder draws pictures of "
            "that embedding (Ramesh et al. 2022, arXiv 2204.06125). The decoder also varies a picture that it is "
            "given: what CLIP sees in it stays, the rest is drawn anew.",
            "",
            *show("unclip", "openmoji_unclip", pipe),
            "Colours, hearts, circles and books are right; houses and trees are not, and red apples have corners.",
            "",
            "## What a prior buys",
            "",
            "CLIP score and R-precision among 100 captions (chance is 0.01) of pictures for each caption, by a CLIP "
            "trained on the same emoji that no part of the system has seen. The text stands beside the embedding in "
            "all rows.",
            "",
            table(("captions", "pictures of each", "embedding", "CLIP score", "R-precision"), rows),
            "",
            f"Of the guidances of a prior (`jaxdiff sample --prior-guidance`) the best on the training set is kept: "
            f"{best}. What it adds to the score of the text's embedding, with the standard error over captions: "
            f"{' and '.join(gains)}. Of {len(captions('train'))} pictures a prior learns the training set by heart, "
            "which is why the checkpoint of the least held-out loss is kept; the paper's has seen 250 million.",
            "",
            "## Variations",
            "",
            f"Three variations of each of {SEEN} held-out emoji, `jaxdiff sample --picture FILE`, as that other CLIP "
            f"sees them: the cosine of a variation and its original is {alike[:, itself].mean():.2f} on average, of a "
            f"variation and another original {alike[:, any_other].mean():.2f}. Of the {SEEN} originals its own is the "
            f"nearest for {100 * found:.0f}% of the variations (by chance {100 / SEEN:.1f}%). The first eight "
            "originals (first row), and their variations:",
            "",
            picture(
                "unclip_variations",
                np.concatenate([x[:8] for x in (held_out, *others)]),
                [*told[:8], *[""] * 24],
                8,
            ),
            "",
            "From one held-out emoji (left) to another (right), by spherical interpolation of their embeddings:",
            "",
            picture("unclip_between", between, columns=7),
        ],
        commands,
    )


if __name__ == "__main__":
    main()
