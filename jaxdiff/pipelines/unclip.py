"""unCLIP (Karlo): a prior imagines CLIP's embedding of a picture, a decoder draws it, and a third network enlarges it.

    text -> CLIP -> prior -> embedding -> decoder at 64 pixels -> larger picture -> uint8

All of it is one compiled function of weights, tables, tokens and keys. The decoder takes the embedding as tokens
beside the text's states and as a vector beside the time (`models.prior.TextProjection`); without guidance a learned
vector stands for the embedding. Of the two networks that enlarge, the second makes the last call alone.

A model of variations has CLIP's image encoder in the place of the prior, and draws a picture's embedding (`vary`). It
may begin at the noise that the picture comes from, by DDIM both ways, so that its composition stays (section 2.1).

Source: Ramesh et al. 2022, arXiv 2204.06125; Lee et al. 2022, Karlo-v1.0.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxdiff import __version__
from jaxdiff.data import prompt as prompt_text
from jaxdiff.diffusion import denoiser, prediction
from jaxdiff.models.prior import TextProjection, denormalised
from jaxdiff.models.unet import UNet
from jaxdiff.parallel import MeshSpec, param_shardings
from jaxdiff.parallel.spread import Spread
from jaxdiff.pipelines import canvas, imagine, inputs
from jaxdiff.pipelines.prior_options import check_count, check_number
from jaxdiff.pipelines.program import FIRST, to_pixels, unit_noise
from jaxdiff.pipelines.vary import VaryOptions, make_look
from jaxdiff.pretrained import scheduler
from jaxdiff.pretrained.read import Bundle
from jaxdiff.pretrained.scheduler import Placing, Process
from jaxdiff.sampling.kernel import drive
from jaxdiff.sampling.table import table_kernel, with_aux
from jaxdiff.typing import Cond, Network, Params

STEPS = ("prior", "decoder", "super_res")
DRAWS = ("decoder", "text_encoder", "text_proj", "super_res_first", "super_res_last")


@dataclasses.dataclass(frozen=True)
class Options:
    """Lists what a call of an unCLIP model may be given.

    Attributes:
      prior_steps: steps of the prior's sampler.
      prior_guidance: how closely the embedding follows the prompt; 1 is off.
      prior_draws: embeddings drawn for each picture, of which the one nearest the text is kept.
      decoder_steps: steps of the decoder's sampler.
      decoder_guidance: how closely the picture follows embedding and prompt; 1 is off.
      larger_steps: steps of the sampler that makes the picture larger; at least 2.
    """

    prior_steps: int = 25
    prior_guidance: float = 4.0
    prior_draws: int = 1
    decoder_steps: int = 25
    decoder_guidance: float = 8.0
    larger_steps: int = 7


@dataclasses.dataclass(frozen=True)
class VariationOptions(VaryOptions):
    """Lists what a call of an unCLIP model of variations may be given.

    Attributes:
      picture: uint8 [b h w 3] whose embedding is drawn again.
      towards: uint8 [b h w 3], to whose embedding `mix` leads.
      described: what the picture shows, in words; `mix` leads from there to the prompt.
      mix: how far, from 0 to 1.
      straight: lead along the straight line to the embedding of `towards`, as Kandinsky does, not on the sphere.
      keep: start from the noise that the picture comes from (DDIM inversion), so that its composition stays.
      decoder_steps: steps of the decoder's sampler.
      decoder_guidance: how closely the picture follows embedding and prompt; 1 is off.
      larger_steps: steps of the sampler that makes the picture larger; at least 2.
    """

    decoder_steps: int = 25
    decoder_guidance: float = 8.0
    larger_steps: int = 7


class UnclipPipeline:
    """An unCLIP model of a directory, ready to sample; another prompt, seed or guidance compiles nothing.

    Attributes:
      Options: the class of what a call may be given.
      embeds: the part that makes embeddings.
    """

    Options: type = Options
    embeds = "prior"

    def __init__(
        self,
        bundle: Bundle,
        *,
        spec: MeshSpec | Literal["pmap"] = MeshSpec(),
        devices: Sequence[jax.Device] | None = None,
        programs: Path | None = None,
    ):
        """Takes a model and compiles nothing yet; see `DiffusionPipeline`.

        Raises:
          ValueError: if parts are missing, or their widths do not fit each other.
        """
        parts, own = bundle.components, (self.embeds, *DRAWS)
        imagine.check_parts(bundle, own)
        self.nets = {name: parts[name].config for name in own}
        widths = {name: self.nets[name].embed for name in (self.embeds, "text_proj") if name != "image_encoder"}
        widths |= {name: net.projection for name, net in self.nets.items() if name in ("text_encoder", "image_encoder")}
        imagine.check_widths(bundle, widths)
        steps = [name for name in STEPS if f"{name}_scheduler" in bundle.schedulers]
        self.processes = {name: scheduler.process(bundle.schedulers[f"{name}_scheduler"]) for name in steps}
        self.tokenizer = bundle.tokenizers["tokenizer"]
        self.sizes = {name: parts[name].json["sample_size"] for name in ("decoder", "super_res_first")}
        self.params: dict[str, Any] = {name: parts[name].params for name in own}
        program = make_program(self.nets, self.processes, self.sizes)
        identity = repr((__version__, self.nets, self.sizes, [parts[name].json for name in own]))
        self._run = Spread(program, spec, devices, programs=programs, identity=identity)
        if spec != "pmap":
            self.params = jax.device_put(self.params, param_shardings(self.params, self._run.mesh))

    def __call__(
        self, prompts: str | Sequence[str], *, key: Any, options: Any = None, latents: bool = False, **fields: Any
    ) -> Any:
        """Returns pictures uint8 [b h w 3], one for each prompt.

        With `latents` also the embeddings that were drawn.

        Raises:
          ValueError: for a key or an option that makes no sense; nothing has been compiled then.
          FloatingPointError: if pictures are not finite.
        """
        o = self._options({**({} if options is None else vars(options)), **fields})
        prompts, keys = inputs.prompts(prompts), inputs.check_key(key)
        several = [keys if keys.ndim else None, getattr(o, "picture", None), getattr(o, "towards", None)]
        if len(prompts) == 1:
            prompts *= max((len(x) for x in several if x is not None), default=1)
        if keys.ndim and len(keys) != len(prompts):
            raise ValueError(f"there are {len(keys)} keys for {len(prompts)} pictures: pass one, or one for each")
        inputs.warn_of_cut(prompts, self.cut)
        keys = keys if keys.ndim else jax.random.split(keys, len(prompts))
        batch = {"keys": keys, "text": self._tokens(prompts), "no_text": self._tokens([""] * len(prompts))}
        batch |= self._batch(o, keys)
        tables = self._tables(o)
        out = self._run((self.params, tables), batch)
        if not np.isfinite(out["picture"]).all():
            raise FloatingPointError("pictures are not finite: the weights are damaged, or dtype is too narrow")
        return (out["pixels"], out["embed"]) if latents else out["pixels"]

    def _options(self, given: Mapping[str, Any]) -> Any:
        """Returns the options of a call, checked; those that are not given have their defaults."""
        known = {field.name: field.default for field in dataclasses.fields(self.Options)}
        if unknown := [name for name in given if name not in known]:
            raise ValueError(f"this model takes no {unknown[0]}: expected {', '.join(known)}")
        values = {**known, **given}
        for name in (name for name in known if name.endswith("_steps")):
            check_count(name, values[name], 2, 1000)
        for name in (name for name in known if name.endswith("_guidance")):
            check_number(name, values[name])
        return self.Options(**values)

    def _batch(self, options: Any, keys: Any) -> dict[str, Any]:
        """Returns what the part that makes embeddings is given."""
        check_count("prior_draws", options.prior_draws, 1, 64)
        parts = [len(STEPS) * n for n in range(options.prior_draws)]
        return {"prior_keys": jnp.stack([imagine.folded(keys, part) for part in parts], 1)}

    def _tables(self, options: Any) -> dict[str, Any]:
        """Returns the tables of `make_program`, by the walk."""
        return {name: self._table(name, process, options) for name, process in self.processes.items()}

    def _table(self, name: str, process: Process, options: Any) -> Any:
        steps = getattr(options, "larger_steps" if name == "super_res" else f"{name}_steps")
        table = process.table(process.calls(steps).times, steps)
        table = table if name == "super_res" else with_aux(table, guidance=getattr(options, f"{name}_guidance"))
        return jax.tree.map(lambda x: np.asarray(x, np.float32), table)

    def compiled(self) -> int:
        """Counts the programs that have been compiled for this pipeline."""
        return self._run.compiled()

    def cut(self, prompt: str) -> str:
        """Returns the end of a prompt that is too long for the model and is not seen by it; '' if all is."""
        return prompt_text.cut(self.tokenizer, prompt, 1, self.nets["text_encoder"].length)

    def _tokens(self, prompts: Sequence[str]) -> Any:
        rows = [prompt_text.encode(self.tokenizer, text, 1, self.nets["text_encoder"].length)[0] for text in prompts]
        return np.stack(rows)[:, 0]


class VariationsPipeline(UnclipPipeline):
    """Karlo's model of variations: it draws embeddings of pictures that are given, and reads a prompt beside them."""

    Options = VariationOptions
    embeds = "image_encoder"

    def _batch(self, options: Any, keys: Any) -> dict[str, Any]:
        options.check()
        if options.picture is None:
            raise ValueError("this model makes variations of a picture: pass picture")
        batch = dict(options.batch(len(keys), lambda text: self._tokens([text])[0]))
        if options.keep:
            (height, width), side = batch["picture"].shape[1:3], self.sizes["decoder"]
            short = min(height, width)
            top, left = (height - short) // 2, (width - short) // 2
            batch["reduced"] = canvas.resize(batch["picture"][:, top : top + short, left : left + short], side, side)
        return batch

    def _tables(self, options: Any) -> dict[str, Any]:
        tables, decoder = super()._tables(options), self.processes["decoder"]
        if options.keep:
            # DDIM's own steps: at the last trained one all is noise, and what comes back from it depends on rounding;
            # on the way back estimates are not clipped, for the network sees less noise than its timestep says
            ways = (("decoder", "ddim", decoder.clip), ("back", "ddim_inverse", None))
            for name, sampler, clip in ways:
                process = dataclasses.replace(decoder, sampler=sampler, grid=Placing(), options={}, clip=clip)
                tables[name] = self._table("decoder", process, options)
        return tables


def make_program(
    nets: Mapping[str, Any], processes: Mapping[str, Process], sizes: Mapping[str, int]
) -> Callable[[Any, Any], dict[str, Array]]:
    """Returns the function ((params, tables by `STEPS`), batch) -> {pixels, picture, embed}.

    `batch` has `keys` [b], the ids [b l] of `text` and of `no_text`, and what the part that makes embeddings is given:
    `prior_keys` [b n], one for each embedding of which the best is drawn, or what `vary.make_look` takes.
    Where it has pictures `reduced` to the decoder's size, uint8, the decoder begins at what table `back` makes of them.
    """

    def program(arguments: tuple[Params, Mapping[str, Any]], batch: Any) -> dict[str, Array]:
        params, tables = arguments
        encode = functools.partial(imagine.read, nets["text_encoder"], params["text_encoder"])
        text_states, away = (encode(batch[name]) for name in ("text", "no_text"))

        def walk(
            name: str, network: Network, conds: tuple[Cond, Cond | None], keys: Any, start: Array, back: bool = False
        ) -> Any:
            process, table = processes[name], tables["back" if back else name]
            denoise = denoiser.make(network, params[name], *conds, process.schedule, process.kind, process.says)
            return drive(table_kernel(denoise, table.b.shape[1]), table, start, keys)

        def imagined() -> Array:
            prior, embeds = imagine.network(nets["prior"]), list[Array]()
            for n in range(batch["prior_keys"].shape[1]):
                keys = batch["prior_keys"][:, n]
                start = unit_noise(keys, FIRST, (nets["prior"].embed,))
                embeds.append(denormalised(params["prior"], walk("prior", prior, (text_states, away), keys, start)))
            assert text_states.pooled is not None
            return imagine.nearest(jnp.stack(embeds), text_states.pooled)

        looked = {} if "prior" in nets else make_look(nets)(params, batch)
        embed = looked["embed"] if looked else imagined()
        none = jnp.broadcast_to(params["text_proj"]["no_embed"].astype(jnp.float32)[None], embed.shape)
        cond = functools.partial(decoder_cond, nets["text_proj"], params["text_proj"])
        keys, side = imagine.folded(batch["keys"], STEPS.index("decoder")), sizes["decoder"]
        draw = functools.partial(walk, "decoder", _unet(nets["decoder"]), keys=keys)
        if "reduced" in batch:
            picture = batch["reduced"].astype(jnp.float32) / 127.5 - 1
            start = draw((cond(looked["seen"], text_states), None), start=picture, back=True)
        else:
            start = unit_noise(keys, FIRST, (side, side, 3))
        small = draw((cond(embed, text_states), cond(none, away)), start=start)
        picture = larger(
            nets, processes["super_res"], params, tables["super_res"], jnp.clip(small, -1, 1), sizes, batch
        )
        return {"pixels": to_pixels(picture), "picture": picture, "embed": embed}

    return program


def decoder_cond(net: Any, params: Params, embed: Float[Array, "b e"], text: Cond) -> Cond:
    """Returns the decoder's condition on an embedding and a text."""
    projected: Any = TextProjection(net).apply({"params": params}, embed, text.pooled, text.context)
    assert text.context_mask is not None
    mask = jnp.pad(text.context_mask, ((0, 0), (net.tokens, 0)), constant_values=True)
    return Cond(context=projected[0], context_mask=mask, pooled=projected[1])


def larger(
    nets: Mapping[str, Any],
    process: Process,
    params: Params,
    table: Any,
    small: Float[Array, "b i j 3"],
    sizes: Mapping[str, int],
    batch: Any,
) -> Any:
    """Returns the picture made larger: all calls but the last by one network, the last by another."""
    side, keys = sizes["super_res_first"], imagine.folded(batch["keys"], STEPS.index("super_res"))
    cond = Cond(image=jax.image.resize(small, (len(small), side, side, 3), "cubic"))
    x: Any = unit_noise(keys, FIRST, (side, side, 3))
    for name, rows in (("super_res_first", slice(None, -1)), ("super_res_last", slice(-1, None))):
        network = _unet(nets[name])
        denoise = prediction.denoiser(network, params[name], cond, process.schedule, process.kind)
        x = drive(table_kernel(denoise, table.b.shape[1]), jax.tree.map(lambda a, rows=rows: a[rows], table), x, keys)
    return x


def _unet(net: Any) -> Network:
    def network(params: Params, x: Array, t: Array, cond: Cond) -> Any:
        return UNet(net).apply({"params": params}, x, t, cond)

    return network
