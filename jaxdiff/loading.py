"""`jaxdiff.load`: a directory or a file becomes a pipeline that makes pictures."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax

from jaxdiff import experiment
from jaxdiff.data import tokenizer_gpt
from jaxdiff.parallel import MeshSpec, make_mesh, param_shardings
from jaxdiff.pipelines.cascade import Cascade
from jaxdiff.pipelines.dalle_mini import pipeline as draws_tokens
from jaxdiff.pipelines.diffusion import DiffusionPipeline
from jaxdiff.pipelines.imagine import PriorPipeline
from jaxdiff.pipelines.imagined import Imagined, has_prior, split
from jaxdiff.pipelines.model import Model, make_model
from jaxdiff.pipelines.options import of_model
from jaxdiff.pipelines.unclip import UnclipPipeline, VariationsPipeline
from jaxdiff.pretrained import dalle_mini, glide, hub, lora, quantize
from jaxdiff.pretrained import ip_adapter as ip_adapters
from jaxdiff.pretrained.bundle import computing, fused, narrowed, outline_bundle, read_bundle
from jaxdiff.pretrained.files import read_json
from jaxdiff.pretrained.read import Bundle
from jaxdiff.tasks import lora as lora_task
from jaxdiff.tasks import saved, stages
from jaxdiff.typing import Params

DTYPES = ("float32", "bfloat16", "float16")
OTHERS = {"UnCLIPPipeline": UnclipPipeline, "UnCLIPImageVariationPipeline": VariationsPipeline}
"""Classes of the reference that have a pipeline, and a program, of their own."""
Spec = MeshSpec | Literal["pmap"]


def load(
    path: Path | str,
    spec: Spec = MeshSpec(),
    *,
    dtype: str | None = None,
    decode_dtype: str | None = None,
    variant: str | None = None,
    revision: str | None = None,
    tokenizer: Path | str | None = None,
    prediction: str | None = None,
    loras: Sequence[str | Path | tuple[str | Path, float]] | Mapping[str | Path, float] = (),
    fuse: bool = False,
    textual_inversions: Sequence[str | Path] = (),
    controlnets: Sequence[str | Path] = (),
    adapter: str | Path | None = None,
    ip_adapter: str | Path | None = None,
    image_encoder: str | Path | None = None,
    vae: str | Path | None = None,
    clip_skip: int = 0,
    decode: Literal["whole", "sliced", "tiled"] = "whole",
    safety: bool = False,
    then: Sequence[str | Path] = (),
    image: bool = False,
    vqgan: str | Path | None = None,
    devices: Sequence[jax.Device] | None = None,
    programs: Path | None = None,
) -> Any:
    """Reads a model and returns its pipeline.

    Args:
      path: a run of `jaxdiff train` (its last checkpoint is taken), or one of its checkpoints, RUN/checkpoints/STEP; a
        model directory of diffusers; a single .safetensors, .ckpt or .pt file in its authors' layout; or a name on the
        Hugging Face hub, 'stabilityai/sd-turbo', whose files are read from its cache (`pretrained.hub`).
      spec: how devices share a batch.
      dtype: dtype of weights and computation, float32, bfloat16 or float16; int8 or fp8: of large weights, with the
        computation in bfloat16; None: the files' weights, float32 computation; of a run, both as it was trained.
      decode_dtype: dtype of the autoencoder; None: float32 where the model asks for it, else `dtype`.
      variant: `fp16` takes `*.fp16.safetensors` where there is one.
      revision: a branch, a tag or a commit of a name on the hub; None: main, as it is now.
      tokenizer: its directory, for a single file, which has none.
      prediction: what the network of a single file predicts, where the file does not tell.
      loras: files, directories or runs of a LoRA, each as PATH or PATH:WEIGHT or a pair, or a mapping; one given twice
        counts twice.
      fuse: add LoRAs to the weights for good, which saves the work of each call.
      textual_inversions: files of new words for the prompt.
      controlnets: directories or files.
      adapter: directory of a T2I-adapter.
      ip_adapter: file of an IP-adapter.
      image_encoder: directory of CLIP's image encoder, for an IP-adapter.
      vae: directory or file of another autoencoder.
      clip_skip: text states are taken so many blocks earlier than usual.
      decode: whole, sliced (a picture after another), or tiled (squares of a picture): less memory.
      safety: whether the model's safety checker blackens pictures.
      then: directories of later stages, which make the pictures larger (DeepFloyd IF, and Stable Diffusion's upscaler);
        those that read T5 share the first one's; or files of GLIDE's. The pipeline is a `Cascade` then. After a prior
        (Kandinsky), the directory of its decoder; the pipeline is an `Imagined` then. Runs of `jaxdiff train` are
        stages too, and a run that names the one before it brings it along.
      image: whether calls give a picture, which a later stage of a cascade then enlarges by itself.
      vqgan: directory of the VQGAN that makes pictures of DALL-E mini's tokens; None: the folder `vqgan` of the model.
      devices: which share a batch; None: all.
      programs: a folder that keeps traced programs, so that another start traces nothing.

    Raises:
      FileNotFoundError: if `path` is not a model, or has no checkpoint yet.
      ValueError: for classes that are not supported, broken files, and options that do not fit the model.
      MismatchError: if a checkpoint is not of the architecture that its config describes.
    """
    path = hub.local(path, revision, variant=variant, without=() if safety else ("safety_checker",))
    known = {"dtype": (dtype, (*DTYPES, *quantize.KINDS)), "decode_dtype": (decode_dtype, DTYPES)}
    for name, (value, expected) in known.items():
        if value not in (None, *expected):
            raise ValueError(f"unknown {name} {value!r}: expected one of {', '.join(expected)}")
    narrow = dtype if dtype in quantize.KINDS else None
    if narrow and loras and not fuse:
        raise ValueError(f"LoRAs cannot be added to {narrow} weights in each call: pass fuse")
    dtype = "bfloat16" if narrow else dtype
    mesh = make_mesh(MeshSpec() if spec == "pmap" else spec, devices)
    place = lambda shapes: param_shardings(shapes, mesh)
    added: dict[str, Any] = {
        "loras": loras,
        "textual_inversions": textual_inversions,
        "controlnets": controlnets,
        "adapter": adapter,
    }
    added |= {"ip_adapter": ip_adapter, "image_encoder": image_encoder, "vae": vae, "prediction": prediction}
    added |= {"clip_skip": clip_skip, "fuse": fuse, "safety": safety, f"dtype {narrow}": narrow}
    if dalle_mini.find(path) is not None:
        added |= {"then": then, "tokenizer": tokenizer, "variant": variant, "decode": decode != "whole"}
        _refuse(f"{path} is a DALL-E mini, which takes", added | {"programs": programs})
        bundle = dalle_mini.read(path, Path(vqgan) if vqgan else None, dtype=dtype, shardings=place)
        return draws_tokens(computing(bundle, dtype, decode_dtype), spec, devices)
    if vqgan:
        raise ValueError(f"{path} is not a DALL-E mini, and takes no vqgan: leave it out")
    if not then and not is_published(path) and (saved.folder_of(path) / "config.json").is_file():
        path, *then = stages.chain(path, image)
    if then:
        added |= {} if path.is_file() else {"tokenizer": tokenizer}
        _refuse("stages that follow each other take", added, do="leave it out, or then")
        paths = [path, *map(Path, then)]
        bundles = [computing(one, dtype, decode_dtype) for one in _stages(paths, dtype, variant, tokenizer, place)]
        how: dict[str, Any] = {"spec": spec, "devices": devices, "programs": programs, "decode": decode}
        first: list[Any] = []
        if has_prior(bundles[0]) and "unet" not in bundles[0].components:
            first, bundles = [imagined(bundles[0], bundles[1], **how)], bundles[2:]
        pipelines = [*first, *(DiffusionPipeline(one, **how) for one in bundles)]
        pipe = first[0] if first and not bundles else Cascade(pipelines)
        pipe.runs = tuple(map(stages.named, paths))
        return pipe
    more = {"vae": vae, "adapter": adapter, "image_encoder": image_encoder}
    more |= {f"controlnet_{n:02d}": folder for n, folder in enumerate(controlnets)}
    if is_published(path):
        bundle = read_bundle(
            path,
            dtype=dtype,
            variant=variant,
            tokenizer=tokenizer,
            prediction=prediction,
            parts={name: folder for name, folder in more.items() if folder},
            textual_inversions=textual_inversions,
            without=() if safety else ("safety_checker",),
            place=place,
        )
    else:
        added |= {"variant": variant, "tokenizer": tokenizer}
        _refuse(f"{path} is a run of `jaxdiff train`, which takes", added, but=("clip_skip", f"dtype {narrow}"))
        run = experiment.open_run(path, place)
        if not any((dtype, decode_dtype, clip_skip, decode != "whole", devices, programs)):
            return run.config.task.pipeline(run.assets, run.weights, spec)
        bundle = run.config.task.bundle(run.assets, run.weights)
    bundle = computing(bundle, dtype, decode_dtype)
    if bundle.kind in OTHERS:
        _refuse(f"{path} is an {bundle.kind}, which takes", added, but=("textual_inversions", "prediction"))
        return OTHERS[bundle.kind](bundle, spec=spec, devices=devices, programs=programs)
    if has_prior(bundle):
        if "unet" not in bundle.components:
            raise ValueError(f"{path} is a prior, which draws no pictures: give the directory of its decoder as then")
        _refuse(f"{path} has a prior, and takes", added, but=("textual_inversions", "prediction"))
        return imagined(*split(bundle), spec=spec, devices=devices, programs=programs, decode=decode)
    pairs = lora.parse(loras)
    weights = [weight for _, weight in pairs]
    read = [lora_task.read(file, bundle.components) for file, _ in pairs]
    if fuse:
        bundle, read = fused(bundle, read, weights), []
    if narrow:
        bundle = narrowed(bundle, narrow)
    return DiffusionPipeline(
        bundle,
        loras=read,
        lora_weights=() if fuse else weights,
        ip_adapter=ip_adapters.read(
            ip_adapter, bundle.components["unet"], dtype, bundle.components.get("image_encoder")
        )
        if ip_adapter
        else None,
        clip_skip=clip_skip,
        decode=decode,
        safety=safety,
        spec=spec,
        devices=devices,
        programs=programs,
    )


def imagined(prior: Bundle, decoder: Bundle, *, decode: Literal["whole", "sliced", "tiled"], **how: Any) -> Imagined:
    """Returns the pipeline of a prior and the decoder of its embeddings.

    Args:
      prior: the first stage.
      decoder: the second.
      decode: see `load`.
      how: `spec`, `devices` and `programs` of `load`, for both.
    """
    return Imagined(PriorPipeline(prior, **how), DiffusionPipeline(decoder, decode=decode, **how))


def outline(path: Path, **options: Any) -> tuple[Model | None, type]:
    """Returns the static part of a model's pipeline, and the class of its options.

    A pipeline that is not a diffusion model has options alone.

    Args:
      path: as of `load`.
      options: options of `load`.

    Raises:
      ValueError, OSError: see `load`.
    """
    beside = ("then", "controlnets", "adapter", "ip_adapter", "image_encoder", "vae", "loras")
    if not (path / "model_index.json").is_file() or imagines(path) or any(options.get(name) for name in beside):
        pipe: Any = load(path, **options)
        return pipe.model if isinstance(pipe, DiffusionPipeline) else None, pipe.Options
    if not is_diffusion(path):
        return None, OTHERS[read_json(path / "model_index.json")["_class_name"]].Options
    bundle = outline_bundle(path, safety=options.get("safety", False))
    model = make_model(bundle, clip_skip=options.get("clip_skip", 0), safety=options.get("safety", False))
    return model, of_model(model, guidance=bundle.guidance)


def is_diffusion(path: Path) -> bool:
    """Returns whether a model in another library's layout is sampled by `DiffusionPipeline`."""
    file = path / "model_index.json"
    return is_published(path) and not (file.is_file() and read_json(file).get("_class_name") in OTHERS)


def imagines(path: Path) -> bool:
    """Returns whether a directory of the reference's has a prior, and its pipeline the options of one."""
    return is_diffusion(path) and any((path / name).is_dir() for name in ("prior", "prior_prior"))


def is_published(path: Path) -> bool:
    """Returns whether a model is a file or directory in another library's layout, and no run of `jaxdiff train`."""
    return path.is_file() or (path / "model_index.json").is_file()


def _refuse(what: str, options: Mapping[str, Any], but: Sequence[str] = (), do: str = "leave it out") -> None:
    """Refuses options that were given, by their names, but for some."""
    if wrong := [name for name, value in options.items() if value and name not in but]:
        raise ValueError(f"{what} no {', '.join(wrong)}: {do}")


def _stages(
    paths: Sequence[Path],
    dtype: str | None,
    variant: str | None,
    tokenizer: Path | str | None,
    place: Callable[[Params], Any],
) -> list[Bundle]:
    """Reads the bundles of a cascade's stages; T5 is read once, for all that were trained with it."""
    bundles: list[Bundle] = []
    texts = ("text_encoder", "tokenizer")
    for path in paths:
        if (saved.folder_of(path) / "config.json").is_file() and not is_published(path):
            run = experiment.open_run(path, place)
            bundles.append(run.config.task.bundle(run.assets, run.weights))
            continue
        if path.is_file() and glide.found(path):
            words = tokenizer if tokenizer or tokenizer_gpt.found(path.parent) else paths[0].parent
            bundles.append(read_bundle(path, dtype=dtype, variant=variant, tokenizer=words, place=place))
            continue
        if not (path / "model_index.json").is_file():
            raise FileNotFoundError(
                f"{path} is not a stage of a cascade: expected a directory with model_index.json, a file of "
                "GLIDE's, or a run of `jaxdiff train`"
            )
        shares = (
            bundles
            and bundles[0].kind.startswith("IF")
            and str(read_json(path / "model_index.json").get("_class_name"))
        )
        without = ["safety_checker", *(texts if shares and shares.startswith("IF") else ())]
        bundle = read_bundle(path, dtype=dtype, variant=variant, without=without, place=place)
        if texts[0] in without:
            parts = {**bundle.components, texts[0]: bundles[0].components[texts[0]]}
            bundle = dataclasses.replace(bundle, components=parts, tokenizers=dict(bundles[0].tokenizers))
        bundles.append(bundle)
    return bundles
