"""Sounds: WAV files, mu-law levels, spectrograms as pictures, and vowels made on the fly to learn from without data.

    f(x) = sign(x) log(1 + mu |x|) / log(1 + mu),  x in [-1, 1], mu = levels - 1

Sources: van den Oord et al. 2016 (WaveNet), arXiv 1609.03499, section 2.2 (mu-law); Peterson and Barney 1952, JASA 24,
table II (mean formants of men's vowels).
"""

import wave
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8

VOWELS = {
    "heed": (270, 2290, 3010),
    "head": (530, 1840, 2480),
    "had": (660, 1720, 2410),
    "hod": (730, 1090, 2440),
    "who": (300, 870, 2240),
}
"""The first three formants in Hz."""
WINDOW = 128
"""Samples of a spectrogram's window."""


def mu_law(x: Float[np.ndarray, "*s"], levels: int) -> Int[np.ndarray, "*s"]:
    """Returns the level 0 .. levels - 1 of each sample in [-1, 1]."""
    mu = levels - 1
    y = np.sign(x) * np.log1p(mu * np.abs(np.clip(x, -1, 1))) / np.log1p(mu)
    return np.rint((y + 1) * mu / 2).astype(np.int32)


def from_mu_law(level: Int[np.ndarray, "*s"], levels: int) -> Float[np.ndarray, "*s"]:
    """Returns the sample in [-1, 1] that each level stands for."""
    mu = levels - 1
    y = 2 * level / mu - 1
    return np.sign(y) * np.expm1(np.abs(y) * np.log1p(mu)) / mu


def read(path: Path, rate: int) -> Float[np.ndarray, " n"]:
    """Reads a WAV file of 16 bits, whose channels are averaged.

    Raises:
      ValueError: if it is damaged, of other bits, or of another rate.
    """
    try:
        with wave.open(str(path)) as file:
            channels, width, own, count = file.getparams()[:4]
            data = file.readframes(count)
    except (wave.Error, EOFError) as error:
        raise ValueError(f"{path} is no WAV file that can be read: {error}") from None
    if own != rate:
        raise ValueError(f"{path} has {own} samples a second: expected {rate}, scale it, or set task.rate to {own}")
    if width != 2:
        raise ValueError(f"{path} has {8 * width} bits a sample: expected 16")
    return (np.frombuffer(data, "<i2").reshape(-1, channels).mean(1) / 32768).astype(np.float64)


def read_folders(top: Path, rate: int, least: int, classes: int) -> dict[str, tuple[Float[np.ndarray, " n"], ...]]:
    """Reads the WAV files below a folder, by the names of the folders that they lie in.

    Args:
      top: the folder.
      rate: samples a second.
      least: samples that each must have.
      classes: folders that there must be; 0 is content with one.

    Raises:
      ValueError: see `read`; or if a sound is shorter, or there are fewer folders.
    """
    paths = sorted(top.rglob("*.wav"))
    found: dict[str, tuple[np.ndarray, ...]] = dict.fromkeys(sorted({path.parent.name for path in paths}), ())
    if len(found) < max(classes, 1):
        raise ValueError(
            f"{top} has {len(paths)} WAV files in {len(found)} folders: expected one for each of task.classes "
            f"{classes}, and one at least"
        )
    for path in paths:
        wave = read(path, rate)
        if len(wave) < least:
            raise ValueError(f"{path} has {len(wave)} samples: expected task.samples {least} or more")
        found[path.parent.name] += (wave,)
    return found


def stretch(
    waves: Sequence[Float[np.ndarray, " n"]], rng: np.random.Generator, samples: int
) -> Float[np.ndarray, " m"]:
    """Returns so many samples of one of several sounds, from anywhere in it."""
    wave = waves[int(rng.integers(len(waves)))]
    return wave[rng.integers(len(wave) - samples + 1) :][:samples]


def write(path: Path, x: Float[np.ndarray, " n"], rate: int) -> None:
    """Writes samples in [-1, 1] as a WAV file of 16 bits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.rint(np.clip(x, -1, 1) * 32767).astype("<i2").tobytes())


def spectrogram(x: Float[np.ndarray, " n"]) -> UInt8[np.ndarray, "h w 3"]:
    """Returns the loudness of frequencies over time as a picture, low ones at the bottom, 80 dB from black to white."""
    hop = WINDOW // 4
    padded = np.pad(x, (WINDOW // 2, WINDOW))
    frames = np.stack([padded[i : i + WINDOW] for i in range(0, len(x), hop)]) * np.hanning(WINDOW)
    loud = 20 * np.log10(np.abs(np.fft.rfft(frames)) * 4 / WINDOW + 1e-9)
    shade = np.clip((loud + 80) / 80, 0, 1)[:, :0:-1].T
    return np.repeat(np.rint(255 * shade).astype(np.uint8)[..., None], 3, -1)


def fade(samples: int, rate: int) -> Float[np.ndarray, " n"]:
    """Returns how loud each sample of a sound is that begins and ends within 20 ms, from 0 to 1."""
    time = np.arange(samples) / rate
    return np.minimum(1, np.minimum(time, time[::-1]) / 0.02)


def vowel(
    which: int, rng: np.random.Generator, samples: int, rate: int, hop: int
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, "m 2"]]:
    """Makes a vowel: harmonics of a gliding pitch, as loud as the formants near them let through.

    Returns:
      The samples, and of each `hop` of them the pitch in octaves above 110 Hz, and the loudness in [0, 1].
    """
    time = np.arange(samples) / rate
    begin, end = rng.uniform(-0.2, 0.8, 2)
    octaves = np.linspace(begin, end, samples) + 0.02 * np.sin(2 * np.pi * 5 * time + rng.uniform(0, 6))
    pitch = 110 * 2**octaves
    phase = 2 * np.pi * np.cumsum(pitch) / rate + rng.uniform(0, 2 * np.pi)
    loud = rng.uniform(0.5, 1) * fade(samples, rate)
    total = np.zeros(samples)
    formants = [*VOWELS.values()][which]
    for n in range(1, int(rate / 2 / pitch.min()) + 1):
        at = n * pitch
        gain = sum(10.0**-k / (1 + ((at - f) / (60 + 0.03 * f)) ** 2) for k, f in enumerate(formants)) + 0.002
        total += np.where(at < rate / 2, gain, 0) * np.sin(n * phase)
    total *= loud / np.abs(total).max()
    controls = np.stack([octaves, loud], -1)[::hop]
    return total, controls[: samples // hop]
