"""Makes docs/students.md: how near students in one and four steps come to their teacher's twenty, on emoji.

    python scripts/students_page.py

Trains what is not trained yet; `systems.train` lists the commands on the page.
"""

import json
import pathlib

import numpy as np
from systems import RUNS, draw, picture, read, table, train, write

import jaxdiff
from jaxdiff.cli.main import main as command
from jaxdiff.data.source import DataConfig, open_source
from jaxdiff.training.checkpoint import steps

WIDTH = 112
"""Features of the Frechet distance: the most that 181 pictures allow."""
GUIDANCE = 3.0
TEACHER = "quickstart"
STUDENTS = {
    "quickstart_progressive": ["quickstart_progressive"],
    "quickstart_lcm": ["quickstart_lcm"],
    "quickstart_dmd": ["quickstart_dmd", "--task.steps", "4"],
    "quickstart_dmd_1": ["quickstart_dmd", "--task.steps", "1"],
}


def main() -> None:
    """Trains, draws, measures and writes."""
    commands = train({TEACHER: [TEACHER], **STUDENTS})
    teacher, progressive = RUNS / TEACHER, RUNS / "quickstart_progressive"
    halved = progressive / "checkpoints"
    four = halved / str(steps(halved)[1])  # the checkpoints are at 8, 4, 2 and 1 steps
    ways = [
        ("the teacher", teacher, 20, GUIDANCE),
        ("the teacher", teacher, 4, GUIDANCE),
        ("progressive distillation", four, 4, 1.0),
        ("latent consistency", RUNS / "quickstart_lcm", 4, 1.0),
        ("distribution matching", RUNS / "quickstart_dmd", 4, 1.0),
        ("the teacher", teacher, 1, GUIDANCE),
        ("progressive distillation", progressive, 1, 1.0),
        ("latent consistency", RUNS / "quickstart_lcm", 1, 1.0),
        ("distribution matching", RUNS / "quickstart_dmd_1", 1, 1.0),
    ]
    told = open_source(DataConfig(name="openmoji", size=32, split="all", subset="quickstart")).captions()
    rows, shown, best = [], [], 0.0
    for name, model, count, guidance in ways:
        folder = RUNS / "students" / f"{name.replace(' ', '_')}_{count}"
        draw(folder, jaxdiff.load(model), told, steps=count, guidance=guidance)
        distance = frechet(folder)
        best = best or distance  # the teacher's, which comes first
        rows.append((name, count, count * (1 + (guidance != 1)), distance, distance / best))
        shown.append(read(folder)[: len(told) : 15])
    write(
        "students",
        [
            "# Students in one and four steps",
            "",
            f"The teacher is the quickstart's run, at guidance {GUIDANCE:g} and in 20 steps of DDIM. Its students "
            "start as it is and learn to do the same in fewer steps, in a few minutes on two cores each: by "
            "progressive distillation (Salimans & Ho 2022, arXiv 2202.00512), by latent consistency on pixels (Luo et "
            "al. 2023, arXiv 2310.04378), and by distribution matching (Yin et al. 2024, arXiv 2405.14867), which is "
            "trained for its number of steps. All have the teacher's guidance in them and are sampled without it, in "
            "half of the calls.",
            "",
            "## What was measured",
            "",
            f"{len(told)} pictures of each, one for each name, against the {len(told)} emoji that all learned from: "
            f"the Frechet distance in {WIDTH} features of EfficientNet-Lite0 (less is better; it compares with no "
            "paper's), and by what factor it is above the teacher's in 20 steps. Calls are those of the network for "
            "one picture.",
            "",
            table(("model", "steps", "calls", "Frechet distance", "factor"), rows),
            "",
            "Pictures of the same names and the same noise, none chosen, in the order of the table:",
            "",
            picture("students", np.concatenate(shown), columns=len(shown[0])),
            "",
            "In four steps all students are nearer than their teacher is in four, in half of the calls; in one step "
            "none is, though the teacher's colours are wrong there. Against the teacher's 20 steps the students' "
            "areas of one colour are uneven, some in other colours (a purple disc gets red by progressive "
            "distillation, a brown one green by distribution matching), and outlines are broken, least by "
            "distribution matching, whose colours are too bright; in one step thin things, such as twigs and "
            "letters, run together.",
        ],
        commands,
    )


def frechet(folder: pathlib.Path) -> float:
    """Returns the Frechet distance of a folder's pictures from the emoji that all were trained on."""
    workdir = folder.with_name(f"{folder.name}_evaluation")
    of = ["--reference", "openmoji", "--subset", "quickstart", "--size", "32", "--metrics", "frechet"]
    asked = ["--width", str(WIDTH), "--resamples", "0", "--workdir", str(workdir)]
    if not (workdir / "results.json").is_file():
        command(["evaluate", "--generated", str(folder), *of, *asked])
    (found,) = json.loads((workdir / "results.json").read_text())["metrics"].values()
    return float(found["value"])


if __name__ == "__main__":
    main()
