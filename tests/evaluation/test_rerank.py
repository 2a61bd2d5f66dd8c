"""The best of several draws: that of the largest cosine, picture by picture; what does not go together is refused."""

import jax
import numpy as np
import pytest
from families import keys

from jaxdiff.cli.main import main
from jaxdiff.evaluation import rerank


def test_the_nearest_of_each_picture_is_kept_with_what_belongs_to_it():
    calls = []

    def draw(keys):
        calls.append(np.asarray(jax.random.key_data(keys)).tolist())
        n = len(calls)
        return np.full((2, 1, 1, 3), n, np.uint8), np.array([10 * n, 20 * n])

    def embed(pictures, prompts):  # draw 2 is nearest for the first prompt, draw 3 for the second
        n = int(pictures[0, 0, 0, 0])
        angle = np.array([abs(n - 2), abs(n - 3)]) * 0.5
        return 5 * np.stack([np.cos(angle), np.sin(angle)], -1), np.array([[1.0, 0], [2.0, 0]])

    pictures, latents = rerank.best_of(draw, keys(2), ["a", "b"], 4, embed)
    assert pictures[:, 0, 0, 0].tolist() == [2, 3]
    assert latents.tolist() == [20, 60]
    assert len({str(call) for call in calls}) == 4, "each draw has keys of its own"


def test_one_draw_uses_the_keys_as_they_are():
    given = keys(2)
    assert rerank.best_of(lambda k: (k is given,), given, ["a", "b"], 1, None) == (True,)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--best-of", "4"], "give both, or neither"),
        (["--rerank", "clip"], "give both, or neither"),
        (["--best-of", "0"], "best_of is 0"),
        (["--best-of", "2", "--rerank", "clip", "--prompt", ""], "a prompt is empty"),
    ],
)
def test_what_does_not_go_together_is_refused(words, message, tmp_path, capsys):
    (tmp_path / "config.json").write_text("{}")
    more = [] if "--prompt" in words else ["--prompt", "cat"]
    with pytest.raises(SystemExit):
        main(["sample", "--model", str(tmp_path), *more, *words])
    assert message in capsys.readouterr().err


def test_a_folder_that_is_no_clip_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        rerank.embedder(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no CLIP at"):
        rerank.embedder(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="no text_config"):
        rerank.embedder(tmp_path)
