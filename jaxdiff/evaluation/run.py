"""The whole of `jaxdiff evaluate`: from its options to numbers in a file."""

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from jaxdiff import experiment
from jaxdiff.data.config import DataConfig
from jaxdiff.data.config import check as check_data
from jaxdiff.data.source import kind_of
from jaxdiff.evaluation import clip, pairs, report, samples, sweep
from jaxdiff.evaluation.config import COMPARED, PAIRED, EvaluateConfig, calls, check, command
from jaxdiff.evaluation.likelihood import bits_per_dim, own_bits
from jaxdiff.evaluation.networks import FeatureExtractor, Features, network
from jaxdiff.evaluation.pictures import Pictures, data_set, first, folder
from jaxdiff.evaluation.reconstruct import reconstructor
from jaxdiff.loading import load
from jaxdiff.metrics import statistics
from jaxdiff.metrics.bootstrap import Estimate
from jaxdiff.metrics.clip_score import clip_score, r_precision
from jaxdiff.pipelines.cascade import Cascade
from jaxdiff.pipelines.diffusion import DiffusionPipeline
from jaxdiff.pipelines.imagined import Imagined
from jaxdiff.pipelines.pipeline import HasLikelihood
from jaxdiff.tasks import clip as clip_task

Counting = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


def evaluate(config: EvaluateConfig, counting: Counting, say: Callable[[str], None] = print) -> str:
    """Makes what is to be made, measures, writes WORKDIR/results.json and .md (and .png of a sweep); gives the table.

    Args:
      config: what to do.
      counting: (what, total) -> a context with a function to be called with how many are done.
      say: called with what a reader of the numbers should know, such as conversions.

    Raises:
      ValueError, OSError: for options, pictures or weights that do not serve.
    """
    check(config)
    pipe = load(config.model, "pmap") if config.model else None
    _check_pipeline(config, pipe)
    config = _with_reference(config)
    cells: Sequence[sweep.Cell] = ()
    if config.sweep:
        assert pipe, "check"
        cells = sweep.cells(config.sweep.split(","), calls(config), pipe.calls)
    size = config.size or _side(pipe)
    generated = _first(config.generated, config.num, size) if config.generated else None
    real = _reference(config, size or (generated.shape[0] if generated else 0))
    for note in (*(generated.notes if generated else ()), *(real.notes if isinstance(real, Pictures) else ())):
        say(note)
    count = generated.count if generated else config.num
    if config.autoencoder and isinstance(real, Pictures):
        count = min(config.num, real.count)
        real = dataclasses.replace(first(real, count), names=[samples.name(i) for i in range(count)])
    seen = ReferenceSet(config, real, count, counting)
    if cells and pipe:
        return _sweep(config, cells, pipe, seen, counting, say)
    estimates: dict[str, Estimate] = {}
    if {*config.metrics} - {"bound", "ode", "bits"}:
        place = config.workdir / "pictures"
        if config.autoencoder and isinstance(real, Pictures):
            generated = _reconstructed(config, real, place, counting)
        elif generated is None:
            generated = _made(config, pipe, real, place, counting, steps=config.steps, sampler=config.sampler)
        estimates = seen.measure(generated, say)
    if pipe and isinstance(real, Pictures):
        estimates |= (_bits if isinstance(pipe, DiffusionPipeline) else _own_bits)(config, pipe, real, counting)
    return _write(config, report.markdown(estimates), {"metrics": report.as_json(estimates)}, seen.origin)


def _sweep(
    config: EvaluateConfig,
    cells: Sequence[sweep.Cell],
    pipe: DiffusionPipeline,
    seen: "ReferenceSet",
    counting: Counting,
    say: Callable[[str], None],
) -> str:
    rows = []
    for cell in cells:
        say(f"{cell.sampler}, {cell.calls} calls")
        place = config.workdir / "sweep" / f"{cell.sampler}-{cell.wanted}"
        generated = _made(config, pipe, seen.real, place, counting, steps=cell.steps, sampler=cell.sampler)
        rows.append((cell, seen.measure(generated, say)))
    metrics = list(rows[0][1])
    picture = config.workdir / "results.png"
    sweep.plot(rows, metrics[0], picture, f"{config.num} pictures of {Path(config.model).name}")
    text = "\n\n".join([f"![{metrics[0]}]({picture.name})", *(sweep.table(rows, metric) for metric in metrics)])
    table = [{**dataclasses.asdict(cell), "metrics": report.as_json(values)} for cell, values in rows]
    return _write(config, text, {"sweep": table}, seen.origin)


class ReferenceSet:
    """The real pictures, as the network sees them; sets are measured against it."""

    def __init__(self, config: EvaluateConfig, real: Pictures | statistics.Moments, count: int, counting: Counting):
        """Looks at the real pictures once; refuses sets that are too small before that. `count` is of the made sets."""
        self.config, self.real, self._counting = config, real, counting
        self.metrics = tuple(name for name in config.metrics if name in COMPARED)
        self.origin: dict[str, Any] = {}
        if "lpips" in config.metrics:
            pairs.find(config.lpips)
        self._clip = clip_task.read(config.clip) if config.clip else None
        if not self.metrics:
            return
        of = network(config.network, config.weights, config.resize)
        self.width = config.width or of.widths[-1]
        self.origin = {"network": of.label, "width": self.width, **of.origin}
        self._look = FeatureExtractor(of, self.width, "inception_score" in self.metrics, config.batch_size)
        report.check(self.metrics, count, real.count, self.width, of.widths, config.k, config.resamples)
        # only the moments are wanted if nothing else is asked for
        self._keep = self.metrics != ("frechet",) or config.resamples > 0
        if isinstance(real, Pictures):
            with counting("real pictures seen", real.count) as tell:
                self._features = self._look(real, self._keep, tell, config.workdir / "features")
            if config.save_statistics:
                config.save_statistics.parent.mkdir(parents=True, exist_ok=True)
                statistics.save(config.save_statistics, self._features.moments)
        else:
            if str(len(real.mean)) != self.width:
                raise ValueError(
                    f"{config.reference} has statistics of {len(real.mean)} features, {of.label} is used at "
                    f"{self.width}: give --width, one of {', '.join(of.widths)}, or the network that they are of"
                )
            self._features = Features(real)

    def measure(self, generated: Pictures, say: Callable[[str], None]) -> dict[str, Estimate]:
        """Measures all that is asked for of a generated set."""
        config = self.config
        result: dict[str, Estimate] = {}
        if isinstance(self.real, Pictures) and generated.shape != self.real.shape:
            say(f"{generated.name} is {generated.shape}, {self.real.name} {self.real.shape}: --size makes them equal")
        if self.metrics:
            with self._counting("pictures seen", generated.count) as tell:
                features = self._look(generated, self._keep, tell, config.workdir / "features")
            result = report.compare(
                self.metrics,
                features,
                self._features,
                self._look.of.label,
                self.width,
                k=config.k,
                resamples=config.resamples,
                report=lambda name: say(f"{name} ..."),
            )
            if config.autoencoder:
                result = {("r" if name.startswith("FID") else "") + name: e for name, e in result.items()}
        if paired := tuple(name for name in config.metrics if name in PAIRED):
            assert isinstance(self.real, Pictures)
            result |= pairs.compare(
                paired,
                generated,
                self.real,
                network=config.lpips,
                batch_size=config.batch_size,
                resamples=config.resamples,
            )
        if "clip" in config.metrics:
            result |= self._captions(generated)
        return result

    def _captions(self, generated: Pictures) -> dict[str, Estimate]:
        assert self._clip is not None
        assert self.config.clip is not None
        texts = list(generated.captions())[: generated.count]
        if not any(texts):
            raise ValueError(
                f"the metric clip needs captions, and {generated.name} has none: use --model, or give each picture one"
            )
        with self._counting("pictures read by CLIP", generated.count) as tell:
            x, y = clip.vectors(self._clip, generated, texts, self.config.batch_size, tell)
        name = f"({self.config.clip.name})"
        return {
            **report.mean(f"CLIP score {name}", clip_score(x, y), self.config.resamples, 0.0, 100.0),
            **report.mean(f"CLIP R-precision {name}", r_precision(x, y), self.config.resamples, 0.0, 1.0),
        }


def _check_pipeline(config: EvaluateConfig, pipe: Any) -> None:
    """Refuses what a model does not have.

    Raises:
      ValueError: names the metric, and what the model has instead.
    """
    diffuses = isinstance(pipe, DiffusionPipeline)
    if pipe is None or (diffuses and "bits" not in config.metrics):
        return
    if diffuses:
        raise ValueError("bits: a diffusion model has the metrics bound and ode instead")
    has = isinstance(pipe, HasLikelihood)
    if wrong := {"bound", "ode", *(() if has else ("bits",))} & {*config.metrics}:
        instead = "ask for bits" if has else "it gives pictures and no density, leave it out"
        raise ValueError(f"{', '.join(sorted(wrong))}: this model has no such likelihood: {instead}")
    if config.sweep:
        raise ValueError("a sweep compares samplers of a diffusion model, and this model has none: leave it out")


def _side(pipe: Any) -> int:
    """Returns the side of a model's pictures; 0 where it is not known, or any."""
    if model := getattr(pipe, "model", None):
        return 0 if "vae" in model.nets else min(pipe.size)
    return min(getattr(pipe, "size", (0,)))


def _with_reference(config: EvaluateConfig) -> EvaluateConfig:
    """Fills in, without --reference, what the model was trained on."""
    if config.reference:
        return config
    path = Path(config.model)
    run = path.parent.parent if path.parent.name == "checkpoints" else path
    if not config.model or not (run / "config.json").is_file():
        raise ValueError("expected --reference: a TFDS name, a folder of pictures, or a .npz of statistics")
    data = experiment.read(run).data
    return dataclasses.replace(
        config, reference=data.name, split=data.split, subset=data.subset, data_dir=config.data_dir or data.dir
    )


def _reference(config: EvaluateConfig, size: int) -> Pictures | statistics.Moments:
    path = Path(os.path.expanduser(config.reference))
    if path.suffix == ".npz":
        return statistics.load(path)
    data = DataConfig(
        name=config.reference, split=config.split, subset=config.subset, size=size or 1, dir=config.data_dir
    )
    check_data(data)
    if kind_of(config.reference) == "folder":
        return folder(path, size, config.split)
    if not size:
        raise ValueError(f"at what size should {config.reference} be read? Give --size")
    return data_set(data)


def _made(
    config: EvaluateConfig,
    pipe: Any,
    real: Pictures | statistics.Moments,
    place: Path,
    counting: Counting,
    **options: Any,
) -> Pictures:
    """Returns the model's pictures, made where they are missing."""
    prompts = _prompts_for(pipe, config.prompt or _shuffled(real.captions() if isinstance(real, Pictures) else ()))
    side = max(real.shape) if isinstance(real, Pictures) else config.size or 512
    _check_room(place, config.num, side)
    diffuses = isinstance(pipe, DiffusionPipeline | Cascade | Imagined)
    if not prompts and diffuses and pipe.model.reads:
        raise ValueError(f"{config.reference} has no captions to show: give --prompt")
    with counting("pictures made", config.num) as tell:
        samples.make(
            pipe,
            place,
            prompts or [""],
            config.num,
            config.seed,
            batch_size=config.batch_size,
            report=tell,
            origin={"model": config.model},
            **({"guidance": config.guidance, **options} if diffuses else {}),
        )
    return _first(place, config.num)


def _prompts_for(pipe: Any, captions: Sequence[str]) -> list[str]:
    """Spells captions as the model reads them: where it knows classes, those of data are spelled with spaces."""
    model = getattr(pipe, "model", None)
    labels = model.labels if model else getattr(pipe, "labels", ())
    if not labels and not model:
        return [""] * len(captions)  # it reads nothing
    spelled = {name.replace("_", " "): name for name in labels}
    return [spelled.get(caption, caption) for caption in captions]


def _shuffled(captions: Sequence[str]) -> list[str]:
    """Shuffles captions, once and for all: those of a folder are sorted, and the first may be all alike."""
    return [captions[i] for i in np.random.default_rng(0).permutation(len(captions))]


def _check_room(place: Path, num: int, side: int) -> None:
    """Refuses to make more pictures than the disk has room for."""
    there = next(one for one in (place.absolute(), *place.absolute().parents) if one.exists())
    need, free = num * (3 * side**2 + 4096), shutil.disk_usage(there).free  # a PNG of noise, and what a file costs
    if need > free:
        raise ValueError(
            f"{num} pictures of {side}x{side} may take {need / 1e9:.1f} GB, and {there} has {free / 1e9:.1f} GB free: "
            "lower --num, or choose another --workdir"
        )


def _first(place: Path, num: int, size: int = 0) -> Pictures:
    """Returns the first pictures of a folder, with their prompts if `samples.make` made them, else captions."""
    found = first(folder(place, size), num)
    return dataclasses.replace(found, captions=lambda: samples.prompts_of(place, found.count) or found.captions())


def _reconstructed(config: EvaluateConfig, real: Pictures, place: Path, counting: Counting) -> Pictures:
    """Returns the reference through the autoencoder."""
    assert config.autoencoder is not None
    pipe = reconstructor(config.autoencoder, real)
    numbers = [str(i) for i in range(real.count)]
    origin = {"autoencoder": str(config.autoencoder), "reference": real.name}
    with counting("pictures reconstructed", real.count) as tell:
        samples.make(pipe, place, numbers, real.count, batch_size=config.batch_size, report=tell, origin=origin)
    return first(folder(place), real.count)


def _bits(config: EvaluateConfig, pipe: DiffusionPipeline, real: Pictures, counting: Counting) -> dict[str, Estimate]:
    result: dict[str, Estimate] = {}
    names: dict[Literal["bound", "ode"], str] = {
        "bound": f"bits/dim (bound, {config.bound_steps or 'infinitely many'} steps)",
        "ode": "bits/dim (probability-flow ODE)",
    }
    for kind, name in names.items():
        if kind in config.metrics:
            prompts = _prompts_for(pipe, real.captions()) or [""] * real.count
            with counting("pictures under the model", real.count) as tell:
                bits = bits_per_dim(
                    pipe,
                    real,
                    prompts,
                    kind,
                    steps=config.bound_steps,
                    seed=config.seed,
                    batch_size=config.batch_size,
                    report=tell,
                )
            result |= report.mean(name, bits, config.resamples)
    return result


def _own_bits(config: EvaluateConfig, pipe: Any, real: Pictures, counting: Counting) -> dict[str, Estimate]:
    if "bits" not in config.metrics:
        return {}
    prompts = _prompts_for(pipe, real.captions()) or [""] * real.count
    with counting("pictures under the model", real.count) as tell:
        bits = own_bits(pipe, real, prompts, seed=config.seed, batch_size=config.batch_size, report=tell)
    return report.mean(f"bits/dim ({pipe.likelihood})", bits, config.resamples)


def _write(config: EvaluateConfig, table: str, results: dict[str, Any], origin: dict[str, Any]) -> str:
    config.workdir.mkdir(parents=True, exist_ok=True)
    options = {k: str(v) if isinstance(v, Path) else v for k, v in dataclasses.asdict(config).items()}
    machine = {"jax": jax.__version__, "devices": [device.device_kind for device in jax.devices()]}
    contents = {"options": options, "network": origin, **machine, **results}
    (config.workdir / "results.json").write_text(json.dumps(contents, indent=2) + "\n")
    (config.workdir / "results.md").write_text(f"Made by `{command(config)}`.\n\n{table}\n")
    return table
