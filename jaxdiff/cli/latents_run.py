"""The work of `jaxdiff latents`: reads its options, and encodes what is not there yet."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import jax
import tyro

from jaxdiff.cli.config import SMALL, read_config
from jaxdiff.cli.main import compilation_cache
from jaxdiff.cli.progress import counting
from jaxdiff.data.config import check as check_data
from jaxdiff.experiment import Experiment
from jaxdiff.pipelines import encode, first_stage
from jaxdiff.pretrained import clip_tokenizer
from jaxdiff.pretrained.read import read_component
from jaxdiff.tasks import saved


@dataclasses.dataclass(frozen=True)
class Args:
    """Encodes pictures with an autoencoder, and captions with a text encoder, once.

    Attributes:
      autoencoder: a run of `jaxdiff train`; or a directory: an autoencoder's as diffusers writes it, or a model's with
        one in it.
      out: the directory that gets the latents; one with some of them is completed.
      text_encoder: directory of a model whose CLIP text encoder and tokenizer make states of the captions.
      dtype: dtype of what is stored.
      buckets: shapes of about the same area for pictures of many shapes, each one compiled program; 1: squares.
      shard_rows: most rows of a file.
      batch: pictures encoded at once by the devices of this process.
      process: which of `processes` this is, from 0; by default that of `jax.distributed`.
      processes: how many share the work, at once or one after another.
      experiment: whose data they are.
    """

    autoencoder: Path | None
    out: Path | None
    experiment: Annotated[Experiment, tyro.conf.arg(name="")]
    text_encoder: Path | None = None
    dtype: Literal["float16", "float32"] = "float16"
    buckets: int = 1
    shard_rows: int = 1024
    batch: int = 32
    process: int | None = None
    processes: int | None = None


def run(argv: list[str]) -> None:
    """Encodes what is not there yet; the first of `argv` is a config file."""
    path, options = Path(argv[0]), [word for word in argv[1:] if word != SMALL]
    types = tyro.conf.AvoidSubcommands[Args]
    default = Args(None, None, read_config(path, small=SMALL in argv[1:]))
    args = tyro.cli(types, args=options, default=default, prog=f"jaxdiff latents {path}")
    if args.autoencoder is None or args.out is None:
        raise ValueError(f"--{'out' if args.autoencoder else 'autoencoder'} is missing: it is always needed")
    config = encode.EncodeConfig(
        args.dtype,
        args.buckets,
        args.shard_rows,
        args.batch,
        jax.process_index() if args.process is None else args.process,
        jax.process_count() if args.processes is None else args.processes,
    )
    config.check()
    data, held_out = args.experiment.data, args.experiment.held_out
    check_data(data)
    compilation_cache()
    text = None
    if args.text_encoder:
        encoder, words = first_stage.find_text(args.text_encoder)
        text = encode.Text(read_component(encoder), clip_tokenizer.read(words))
    manifests = encode.encode(
        data,
        [data.split, *([held_out] if held_out and held_out != data.split else [])],
        saved.read_autoencoder(args.autoencoder),
        args.out,
        text=text,
        config=config,
        say=lambda text: print(text, flush=True),
        counting=lambda what, total: counting(what, total, waiting="compiling"),
    )
    for split, manifest in manifests.items():
        state = "shards of other processes are missing"
        if manifest:
            rows = sum(shard.rows for shard in manifest.shards)
            state = f"complete: {rows} rows, latents of standard deviation {manifest.deviation:.4g}"
        print(f"{args.out / split}: {state}", flush=True)
