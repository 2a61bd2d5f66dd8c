import json
import random
from collections import Counter

import numpy as np
import pytest

from jaxdiff.data.tokenizer import END, PAD, START, BytePair, normalise

CAPTIONS = [
    "red heart",
    "Red  circle",
    "blue heart",
    "blue circle",
    "heart on fire",
    "hearts, hearts!",
    "naïve piñata",
] * 3


def byte(sign: str) -> int:
    return 3 + ord(sign)


def texts(count: int) -> list[str]:
    """Strings of every kind of character: ASCII, white space, accents and their parts, emoji, half surrogates, NUL."""
    rng = random.Random(0)
    ranges = [(32, 127), (0, 32), (0xA0, 0x250), (0x300, 0x370), (0x1F300, 0x1F900), (0xD800, 0xE000), (0x2000, 0x2030)]
    draw = lambda: chr(rng.randrange(*rng.choice(ranges)))
    return ["", *("".join(draw() for _ in range(rng.randrange(30))) for _ in range(count))]


def naive(words: dict[str, int], merges: int) -> list[tuple[int, int]]:
    """Counts all pairs anew for every merge: what the paper's listing does."""
    spelled = {word: [byte(c) for c in word] for word in words}
    learned: list[tuple[int, int]] = []
    while len(learned) < merges:
        count = Counter()
        for word, times in words.items():
            for pair in zip(spelled[word], spelled[word][1:], strict=False):
                count[pair] += times
        if not count:
            break
        best = min(pair for pair, n in count.items() if n == max(count.values()))
        for word, ids in spelled.items():
            i, merged = 0, []
            while i < len(ids):
                joined = tuple(ids[i : i + 2]) == best
                merged.append(259 + len(learned) if joined else ids[i])
                i += 2 if joined else 1
            spelled[word] = merged
        learned.append(best)
    return learned


def test_merges_of_the_papers_example():
    """The dictionary of Sennrich et al.: low 5, lower 2, newest 6, widest 3. Counted by hand, a space before each word.

    e s and s t stand 9 times, e s is the smaller; then es t, 9; then ' l', 'lo' and 'ow', 7 each; then 'ow' before
    ' l' + 'o', whose first id is a merge.
    """
    captions = ["low"] * 5 + ["lower"] * 2 + ["newest"] * 6 + ["widest"] * 3
    merges = BytePair.learn(captions, 259 + 4).merges
    assert merges == ((byte("e"), byte("s")), (259, byte("t")), (byte(" "), byte("l")), (byte("o"), byte("w")))


def test_learning_agrees_with_counting_anew():
    rng = random.Random(1)
    words = {
        " " + "".join(rng.choice("abc") for _ in range(rng.randrange(1, 8))): rng.randrange(1, 9) for _ in range(60)
    }
    captions = [word for word, times in words.items() for _ in range(times)]
    assert list(BytePair.learn(captions, 259 + 80).merges) == naive(words, 80)


def test_learning_does_not_depend_on_the_order_of_captions():
    shuffled = random.Random(2).sample(CAPTIONS, len(CAPTIONS))
    assert BytePair.learn(CAPTIONS, 300) == BytePair.learn(shuffled, 300)


def test_the_size_is_reached_or_nothing_is_left_to_merge():
    assert BytePair.learn(CAPTIONS, 270).size == 270
    assert BytePair.learn(["ab", "cd"], 300).size == 259 + 4, "two merges make ' ab' one id"
    assert [len(BytePair.learn(CAPTIONS, 500).encode(text, 8).nonzero()[0]) for text in ("fire", "blue circle")] == [
        3,
        4,
    ]
    assert BytePair.learn([], 300).size == 259
    with pytest.raises(ValueError, match="vocabulary size 100: expected at least 259"):
        BytePair.learn(CAPTIONS, 100)


@pytest.mark.parametrize("vocabulary", [BytePair(), BytePair.learn(CAPTIONS, 320)], ids=["bytes", "learned"])
def test_any_text_survives_the_round_trip(vocabulary):
    for text in [*texts(300), *CAPTIONS]:
        ids = vocabulary.encode(text, 200)
        assert vocabulary.decode(ids) == normalise(text)
        assert ids.dtype == np.int32
        assert ids.shape == (200,)
        assert 0 <= ids.min() <= ids.max() < vocabulary.size


def test_normalise_is_idempotent_and_hides_case_and_spaces():
    for text in texts(300):
        assert normalise(normalise(text)) == normalise(text)
    assert normalise("  A \t Red\nHEART ") == "a red heart"
    assert normalise("e\u0301") == normalise("É") == "\u00e9"


def test_a_word_is_the_same_wherever_it_stands():
    vocabulary = BytePair.learn(CAPTIONS, 400)
    (heart,) = vocabulary.encode("heart", 3)[1:2]
    assert vocabulary.encode("red heart", 8).tolist()[2] == heart
    assert heart in vocabulary.encode("heart, red", 8).tolist()


def test_layout_of_ids():
    assert BytePair().encode("ab", 7).tolist() == [START, byte(" "), byte("a"), byte("b"), END, PAD, PAD]
    assert (PAD, START, END) == (0, 1, 2)
    assert BytePair().encode("", 3).tolist() == [START, END, PAD]


def test_encoding_applies_merges_in_the_order_learned():
    """'abc' with merges bc, ab: bc was learned first, so ab finds nothing left."""
    merges = ((byte("b"), byte("c")), (byte("a"), byte("b")))
    assert BytePair(merges).encode("abc", 6).tolist() == [START, byte(" "), byte("a"), 259, END, PAD]


def test_a_long_text_is_cut_and_both_parts_are_told():
    vocabulary = BytePair.learn(CAPTIONS, 400)
    assert vocabulary.cut("red heart", 4) == ("red heart", "")
    assert vocabulary.cut("Red heart on fire", 4) == ("red heart", " on fire")
    assert vocabulary.encode("red heart on fire", 4).tolist() == vocabulary.encode("red heart", 4).tolist()
    for text in texts(100):
        for length in (2, 5, 9):
            kept, lost = vocabulary.cut(text, length)
            assert kept + lost == normalise(text)
            assert vocabulary.decode(vocabulary.encode(text, length)).rstrip("\ufffd") == kept.rstrip("\ufffd")
            assert vocabulary.encode(text, length)[-1] in (PAD, END)
    with pytest.raises(ValueError, match="length is 1: expected at least 2"):
        vocabulary.encode("red", 1)


def test_json_round_trip():
    vocabulary = BytePair.learn(CAPTIONS, 320)
    again = BytePair.from_json(vocabulary.to_json())
    assert again == vocabulary
    assert np.array_equal(again.encode("red hearts", 9), vocabulary.encode("red hearts", 9))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense", "not a byte-pair vocabulary"),
        ("[]", "not a byte-pair vocabulary"),
        ("[" * 100_000, "not a byte-pair vocabulary"),
        ('{"merges": []}', "fields format and merges alone"),
        ('{"format": "jaxdiff byte pairs 1", "merges": {}}', "fields format and merges alone"),
        ('{"format": "jaxdiff byte pairs 1", "merges": [], "special": 1}', "fields format and merges alone"),
        ('{"format": "jaxdiff byte pairs 1", "merges": [[1]]}', r"merge 0 joins \[1\]: expected two ids from 3 to 258"),
        ('{"format": "jaxdiff byte pairs 1", "merges": ["ab"]}', "merge 0 joins ab"),
        ('{"format": "jaxdiff byte pairs 1", "merges": [[5, 6.5]]}', r"merge 0 joins \[5, 6\.5\]"),
        ('{"format": "jaxdiff byte pairs 1", "merges": [[5, "6"]]}', "merge 0 joins"),
        ('{"format": "jaxdiff byte pairs 1", "merges": [[5, true]]}', "merge 0 joins"),
        ('{"format": "jaxdiff byte pairs 1", "merges": [[5, NaN]]}', "merge 0 joins"),
        ('{"format": "jaxdiff byte pairs 1", "merges": [[5, 6], [5, 6]]}', "a merge comes twice"),
        ('{"format": "jaxdiff byte pairs 9", "merges": []}', "format is 'jaxdiff byte pairs 9'"),
        (json.dumps({"format": "jaxdiff byte pairs 1", "merges": [[5, 259]]}), r"merge 0 joins \[5, 259\]"),
        (json.dumps({"format": "jaxdiff byte pairs 1", "merges": [[0, 5]]}), r"merge 0 joins \[0, 5\]"),
    ],
)
def test_what_is_no_vocabulary_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        BytePair.from_json(text)


def test_a_file_of_a_vocabulary_is_whole_or_named(tmp_path):
    vocabulary, file = BytePair.learn(CAPTIONS, 320), tmp_path / "vocabulary.json"
    vocabulary.write(file)
    assert BytePair.read(file) == vocabulary
    assert file.read_text() == vocabulary.to_json()
    whole = file.read_bytes()
    for end in range(0, len(whole), 7):  # half written
        file.write_bytes(whole[:end])
        with pytest.raises(ValueError, match=r"vocabulary\.json is damaged: ") as error:
            BytePair.read(file)
        assert "\n" not in str(error.value)
    file.write_bytes(b"\xff\xfe\0")
    with pytest.raises(ValueError, match=r"vocabulary\.json is not UTF-16"):
        BytePair.read(file)
    with pytest.raises(FileNotFoundError, match=r"gone\.json"):
        BytePair.read(tmp_path / "gone.json")


def test_decoding_refuses_unknown_ids():
    with pytest.raises(ValueError, match="id 300 is not of this vocabulary of 259"):
        BytePair().decode([300])
