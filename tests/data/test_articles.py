import numpy as np

from jaxdiff.data import DataConfig, batches


class Names:
    """Two captions, no pictures to speak of."""

    labels = ()

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return {"image": np.zeros((1, 1, 3), np.uint8), "caption": ("red heart", "orange")[index], "label": 0}

    def captions(self):
        return ["red heart", "orange"]


def test_articles_come_before_half_of_the_captions_anew_each_time():
    seen = []
    config = DataConfig(articles=True, workers=0)
    stream = batches(Names(), config, batch_size=2, seed=0, encode=lambda text: (seen.append(text), np.zeros(1))[1])
    for _ in range(100):
        next(stream)
    assert set(seen) == {"red heart", "a red heart", "orange", "an orange"}
    with_article = sum(text.startswith("a") for text in seen)
    assert abs(with_article - 100) < 5 * np.sqrt(200 / 4)


def test_a_caption_that_has_an_article_keeps_it():
    class Told(Names):
        texts = ("a red heart", "the sun", "an owl", "another owl")

        def __len__(self):
            return 4

        def __getitem__(self, index):
            return {**super().__getitem__(0), "caption": self.texts[index]}

    seen = []
    config = DataConfig(articles=True, workers=0)
    stream = batches(Told(), config, batch_size=4, seed=0, encode=lambda text: (seen.append(text), np.zeros(1))[1])
    for _ in range(20):
        next(stream)
    assert set(seen) == {*Told.texts, "an another owl"}
