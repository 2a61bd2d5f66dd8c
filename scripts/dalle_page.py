"""Makes docs/dalle.md: DALL-E in small on emoji, and what choosing the best of 16 by CLIP buys.

    python scripts/dalle_page.py

Trains what is not trained yet; `systems.train` lists the commands on the page.
"""

import numpy as np
from systems import CLIPS, JUDGE, RUNS, captions, draw, examples, picture, read, show, table, train, write

import jaxdiff
from jaxdiff.evaluation import rerank

SYSTEM = {**CLIPS, "openmoji_dvae": ["openmoji_dvae"], "openmoji_dalle": ["openmoji_dalle"]}
DRAWS = 16


def main() -> None:
    """Trains, draws, measures and writes."""
    commands = train(SYSTEM)
    at, pipe = RUNS / "dalle", jaxdiff.load(RUNS / "openmoji_dalle")
    embeds = {name: rerank.embedder(RUNS / name) for name in CLIPS}

    def alike(name: str, images: np.ndarray, prompts: list[str]) -> np.ndarray:
        embed = embeds[name]
        assert embed is not None
        return 100 * np.maximum(rerank.similarity(*embed(images, prompts)), 0).reshape(-1, DRAWS)

    rows, best = [], {}
    for split, count in (("train", 64), ("test", 64)):
        prompts = [prompt for prompt in captions(split)[:count] for _ in range(DRAWS)]
        images = read(draw(at / split, pipe, prompts))
        chosen, judged = alike("openmoji_clip", images, prompts), alike(JUDGE, images, prompts)
        at_best = np.take_along_axis(judged, chosen.argmax(1)[:, None], 1)[:, 0]
        gain = at_best - judged.mean(1)
        rows.append(
            (
                f"{count} of the {'training' if split == 'train' else 'held-out'} set",
                float(judged.mean()),
                float(at_best.mean()),
                f"{gain.mean():.2f} ± {gain.std(ddof=1) / len(gain) ** 0.5:.2f}",
            )
        )
        best[split] = images.reshape(-1, DRAWS, *images.shape[1:])[np.arange(count), chosen.argmax(1)]
    real, _ = examples("test", 32, 64)
    coded = jaxdiff.load(RUNS / "openmoji_dvae").reconstruct(real)
    error = ((coded.astype(np.float64) - real) ** 2).mean((1, 2, 3))
    psnr = float((10 * np.log10(255**2 / error)).mean())
    write(
        "dalle",
        [
            "# DALL-E of emoji",
            "",
            "A discrete VAE turns a 32x32 picture into 8x8 codes of 512, and a transformer writes those codes after "
            "the words of a caption, one after another (Ramesh et al. 2021, arXiv 2102.12092). Of many pictures for a "
            "caption the one is shown that CLIP finds most like it.",
            "",
            *show("dalle", "openmoji_dalle", pipe),
            "Colours mostly follow the words and outlines are closed, but few shapes are recognised, and some pictures "
            "are nearly empty.",
            "",
            f"Held-out emoji (first row) and what their codes say of them (second row); over 64 of them the PSNR is "
            f"{psnr:.1f} dB:",
            "",
            picture("dalle_codes", np.concatenate([real[:8], coded[:8]]), columns=8),
            "",
            "## What choosing buys",
            "",
            f"{DRAWS} pictures for each caption. openmoji_clip chooses the best of them, as `jaxdiff sample --best-of "
            f"{DRAWS} --rerank runs/openmoji_clip` does; the CLIP score is by another CLIP, which no part of the "
            "system has seen, with the standard error of the gain over captions.",
            "",
            table(("captions", "score of all", "score of the best", "gain"), rows),
            "",
            "The best of 16 for the first 16 captions of the training set:",
            "",
            picture("dalle_best", best["train"][:16], captions("train")[:16], 8),
        ],
        commands,
    )


if __name__ == "__main__":
    main()
