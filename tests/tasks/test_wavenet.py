"""WaveNet: causal by gradients, probabilities that sum to 1, sounds drawn with what is kept as without, WAV files."""

import dataclasses
import json
import pathlib
import wave

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import every, keys, randomised
from PIL import Image

from jaxdiff.cli.config import read_config
from jaxdiff.cli.main import main
from jaxdiff.data import sound
from jaxdiff.data.source import DataConfig
from jaxdiff.data.synthetic import SyntheticSource
from jaxdiff.metrics import speed
from jaxdiff.models.unet import UNetConfig
from jaxdiff.models.wavenet import WaveNet, WaveNetConfig, sample
from jaxdiff.tasks import wavenet
from jaxdiff.training import Known, OptimizerConfig

NET = WaveNetConfig(width=3, skip=4, doublings=3, stacks=1)
CONFIG = pathlib.Path(__file__).parents[2] / "configs" / "sound" / "wavenet.py"
PICK = jax.random.categorical
SOURCE = SyntheticSource(DataConfig(size=1))


def network(levels=2, local=None):
    module = WaveNet(NET, levels, 2)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 4, levels)), jnp.zeros(1, jnp.int32), local)
    return module, randomised(shapes["params"], 0.7)


def test_outputs_see_the_levels_before_them_as_far_as_the_reach_and_no_other():
    module, params = network()
    x = jax.nn.one_hot(jnp.asarray(np.random.default_rng(0).integers(0, 2, 12)), 2)
    out = lambda x: module.apply({"params": params}, x[None], jnp.zeros(1, jnp.int32))[0]
    seen = np.abs(jax.jit(jax.jacobian(out))(x)).sum((1, 3)) > 0
    back = np.arange(12)[:, None] - np.arange(12)[None]
    np.testing.assert_array_equal(seen, (back >= 1) & (back <= NET.reach))
    assert NET.reach == 1 + 1 + 2 + 4


def test_probabilities_of_all_sequences_sum_to_one_and_samples_come_as_often_as_they_say():
    module, params = network()
    x = every(2, (3, 1, 1)).reshape(8, 3)
    label = jnp.ones(8, jnp.int32)

    @jax.jit
    def run(draws):
        logits = module.apply({"params": params}, jax.nn.one_hot(x, 2), label)
        log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), x[..., None], -1).sum((1, 2))
        return log_p, sample(module, params, draws, 3, PICK, jnp.ones(4000, jnp.int32))

    log_p, drawn = jax.device_get(run(keys(4000)))
    p = np.exp(log_p.astype(np.float64))
    assert p.sum() == pytest.approx(1, abs=1e-5)
    assert p.std() > 0.01
    seen = (drawn[:, None] == np.asarray(x)[None]).all(-1).sum(0)
    assert ((seen - 4000 * p) ** 2 / (4000 * p))[p > 1e-3].sum() < 2.2 * 8 + 10


def test_sounds_drawn_with_what_is_kept_are_those_of_the_whole_network_and_take_linear_work():
    local = jnp.asarray(np.random.default_rng(1).standard_normal((3, 24, 2)), jnp.float32)
    label = jnp.array([0, 1, 1])
    module, params = network(5, local[:1, :4])

    def whole(keys, samples, label, local):
        def step(x, at):
            logits = module.apply({"params": params}, jax.nn.one_hot(x, 5), label, local)[:, at]
            level = jax.vmap(lambda key, row: PICK(jax.random.fold_in(key, at), row))(keys, logits)
            return x.at[:, at].set(level), None

        return jax.lax.scan(step, jnp.zeros((len(keys), samples), jnp.int32), jnp.arange(samples))[0]

    kept = jax.jit(lambda: sample(module, params, keys(3), 24, PICK, label, local))()
    np.testing.assert_array_equal(kept, jax.jit(lambda: whole(keys(3), 24, label, local))())
    assert (kept[1] != kept[2]).any()

    def flops(samples, how):
        return speed.work(jax.make_jaxpr(lambda: how(keys(3), samples, label, local[:, :samples]))()).flops

    linear = lambda keys, samples, label, local: sample(module, params, keys, samples, PICK, label, local)
    assert flops(24, linear) == 2 * flops(12, linear)
    assert flops(24, whole) == pytest.approx(4 * flops(12, whole), rel=0.01)  # the class is told once


def test_mu_law_is_the_published_one_and_levels_survive_it():
    levels = np.arange(256)
    np.testing.assert_array_equal(sound.mu_law(sound.from_mu_law(levels, 256), 256), levels)
    np.testing.assert_array_equal(sound.mu_law(np.array([-1.0, 0.0, 1.0, 2.0]), 256), [0, 128, 255, 255])
    assert sound.from_mu_law(np.array([3]), 5)[0] == pytest.approx((5**0.5 - 1) / 4)


def test_a_vowel_has_the_pitch_that_is_told_and_its_formant():
    """The strongest frequencies lie on harmonics of the pitch; hod is loudest near its first formant, 730 Hz."""
    x, told = sound.vowel(3, np.random.default_rng(0), 4096, 8000, 64)
    assert (x.shape, told.shape) == ((4096,), (64, 2))
    assert np.abs(x).max() <= 1
    part = x[1024:2048] * np.hanning(1024)
    loud = np.abs(np.fft.rfft(part, 8192))
    at = np.argmax(loud) * 8000 / 8192
    pitch = 110 * 2 ** told[24, 0]
    assert at / pitch == pytest.approx(round(at / pitch), abs=0.25)
    assert abs(at - 730) < pitch
    shown = sound.spectrogram(x)
    assert shown.shape == (64, 128, 3)
    row = 63 - shown[:, 40, 0].argmax()
    assert abs((row + 1) * 8000 / 128 - 730) < 130


def test_wav_files_come_back_and_those_of_another_rate_or_size_are_refused(tmp_path):
    x = np.linspace(-1, 1, 300)
    path = tmp_path / "a" / "one.wav"
    sound.write(path, x, 8000)
    np.testing.assert_allclose(sound.read(path, 8000), x, atol=2 / 32767)
    with pytest.raises(ValueError, match="has 8000 samples a second: expected 16000"):
        sound.read(path, 16000)
    with wave.open(str(tmp_path / "bytes.wav"), "wb") as file:
        file.setparams((1, 1, 8000, 0, "NONE", ""))
        file.writeframes(b"\0" * 300)
    with pytest.raises(ValueError, match="has 8 bits"):
        sound.read(tmp_path / "bytes.wav", 8000)
    (tmp_path / "no.wav").write_bytes(b"RIFF")
    with pytest.raises(ValueError, match="is no WAV file"):
        sound.read(tmp_path / "no.wav", 8000)
    config = wavenet.Config(sounds=str(tmp_path / "a"), classes=1, samples=200, rate=8000)
    assets = config.assets(tmp_path, DataConfig(), SOURCE, new=True)
    later = dataclasses.replace(config, sounds="elsewhere").assets(tmp_path, DataConfig())  # no sound is read
    for one in (assets, later):
        assert one.labels == ("a",)
        row = config._example(one)({}, np.random.default_rng(0))
        assert (row["sound"].shape, int(row["label"])) == ((200,), 0)
    for fields, message in (
        ({"classes": 2}, "1 WAV files in 1 folders"),
        ({"samples": 400}, "has 300 samples: expected task.samples 400"),
        ({"rate": 16000}, "has 8000 samples a second"),
    ):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(config, **fields).assets(tmp_path, DataConfig(), SOURCE)


def test_the_loss_is_bits_per_sample():
    config = read_config(CONFIG, small=True).task
    task = config.task(config.assets(pathlib.Path(), DataConfig()))
    rows = [task.example({}, np.random.default_rng(i)) for i in range(2)]
    batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    zero = jax.tree.map(lambda x: jnp.zeros(x.shape), jax.eval_shape(task.init, jax.random.key(0), {}, batch).params)
    assert task.loss(zero, Known({}, {}, {}, 0), batch, keys(2))[0] == pytest.approx(3, rel=1e-6)


@pytest.mark.slow
def test_a_run_writes_wav_files_and_spectrograms(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", jax.config.jax_compilation_cache_dir)
    main(["train", str(CONFIG), "--small", "--workdir", str(tmp_path / "run"), "--train.steps", "3"])
    folder = tmp_path / "run" / "samples" / "sounds"
    with wave.open(str(folder / "000003" / "1.wav")) as file:
        assert (file.getframerate(), file.getnframes()) == (8000, 256)
    assert Image.open(folder / "000003.png").size[1] >= 64
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert 1 < lines[-1]["ema_loss"] < 4
    out = tmp_path / "out" / "a.png"
    words = ["sample", "--model", str(tmp_path / "run"), "--out", str(out)]
    main([*words, "--prompt", "heed", "head", "--pitch", "150"])
    assert f"wrote {tmp_path / 'out' / 'a' / '1.wav'}" in capsys.readouterr().out
    shown = np.asarray(Image.open(out))
    for i in range(2):
        heard = sound.read(tmp_path / "out" / "a" / f"{i}.wav", 8000)
        assert heard.shape == (256,)
        whole = sound.from_mu_law(sound.mu_law(heard, 8), 8)  # without the file's rounding
        there = shown[6 : 6 + 2 * 64 : 2, 6 + i * (2 * 8 + 6) :][:, : 2 * 8 : 2]  # pixels are doubled
        np.testing.assert_allclose(there.astype(int), sound.spectrogram(whole), atol=1)
    assert json.loads(Image.open(out).info["parameters"])["pitch"] == 150
    with pytest.raises(SystemExit):
        main([*words, "--prompt", "hello"])
    assert "'hello' is no class of this model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"net": UNetConfig()}, "task.net is a UNetConfig: expected wavenet"),
        ({"net": WaveNetConfig(doublings=20)}, "doublings is 20"),
        ({"classes": 6}, "task.classes is 6: expected 0 to 5"),
        ({"rate": 0}, "task.rate is 0"),
        ({"samples": 10}, "task.samples is 10"),
        ({"levels": 1}, "task.levels is 1"),
        ({"hop": 3}, "task.hop is 3: expected a divisor"),
        ({"hop": 64, "sounds": "x"}, "whose pitch is not known"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        wavenet.Config(**fields).check(DataConfig(name="synthetic"), OptimizerConfig())
    with pytest.raises(ValueError, match="is 'openmoji', pictures"):
        wavenet.Config().check(DataConfig(), OptimizerConfig())
