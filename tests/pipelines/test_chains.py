"""Every chain of stages: one program a stage, which asks nothing of the host, and the same ones for another call.

Nothing is compiled: programs are traced where a call first reaches them, and give ones in the shapes of their results.
A program that asks the host for something has a primitive that says so. Another prompt, seed, scale or level compiles
nothing if the names, shapes and dtypes of all arguments stay, for `jax.jit` goes by nothing else. What a stage hands to
the next has stayed on the devices if it comes as a JAX array: what goes through the host comes as NumPy's.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pipelines import small, test_cascade, test_imagen, test_unclip
from pipelines import test_kandinsky as kandinsky
from pipelines import test_kandinsky_text as kandinsky_text
from pretrained import glide_files, test_dalle_mini
from pretrained.test_dalle_mini import INDEX as DALLE

from jaxdiff.loading import load
from jaxdiff.parallel.spread import Spread
from jaxdiff.pipelines.cascade import Cascade
from jaxdiff.pipelines.diffusion import DiffusionPipeline
from jaxdiff.pipelines.imagine import PriorPipeline
from jaxdiff.pipelines.imagined import Imagined, split
from jaxdiff.pipelines.unclip import UnclipPipeline, VariationsPipeline
from jaxdiff.pretrained import glide

ASKS = ("callback", "infeed", "outfeed", "debug_print")
"""Parts of the names of primitives that wait for the host, or tell it something."""


def primitives(jaxpr):
    for eqn in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        yield eqn.primitive.name
        inner = lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")
        for x in jax.tree.leaves(list(eqn.params.values()), is_leaf=inner):
            yield from primitives(x) if inner(x) else ()


@pytest.fixture
def reached(monkeypatch):
    """Programs that are reached, in their order: the signature of their arguments, and what came from the devices."""
    programs, traced = [], {}

    def call(self, whole, batch, host=True):
        leaves, tree = jax.tree.flatten((whole, batch))
        signature = self, tree, tuple((x.shape, x.dtype, getattr(x, "weak_type", False)) for x in leaves)
        if signature not in traced:
            jaxpr, traced[signature] = jax.make_jaxpr(self._function, return_shape=True)(whole, batch)
            assert [name for name in primitives(jaxpr) if any(part in name for part in ASKS)] == []
        rows = jax.tree_util.tree_leaves_with_path(batch)
        is_key = lambda x: jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        name = lambda path: getattr(path[0], "key", "") if path else ""
        handed = {name(path) for path, x in rows if isinstance(x, jax.Array) and not is_key(x)}
        programs.append((signature, handed))
        out = jax.tree.map(lambda x: (np if host else jnp).ones(x.shape, x.dtype), traced[signature])
        return {**out, "bad": np.zeros(1, bool)} if isinstance(out, dict) else out

    monkeypatch.setattr(Spread, "__call__", call)
    return programs


def test_a_program_that_asks_the_host_is_found(reached):
    asks = Spread(lambda _, x: jax.pure_callback(lambda x: x, jax.ShapeDtypeStruct(x.shape, x.dtype), x))
    inside = Spread(lambda _, x: jax.lax.scan(lambda y, _: (jax.debug.print("{}", y) or y, None), x, length=2)[0])
    for program in (asks, inside):
        with pytest.raises(AssertionError):
            program(None, np.zeros(3, np.float32))


DEVICE = {"devices": jax.devices()[:1]}
diffusion = functools.partial(DiffusionPipeline, **DEVICE)
prior = functools.partial(PriorPipeline, **DEVICE)
SEEN = {"picture": kandinsky.picture("seen", 16)}
OTHER = {"picture": kandinsky.picture("other", 16)}
SMALL = {"steps": 5, "height": 16, "width": 16}
FEW = {"prior_steps": 4, **SMALL}
EMBED = {"embed", "no_embed"}


def imagined(folder):
    return Imagined(prior(kandinsky.prior_bundle()), diffusion(kandinsky.decoder_bundle()))


def reading(folder):
    (folder / "tokenizer.json").write_bytes(bytes(kandinsky_text.ARRAYS["json"]))
    words = kandinsky_text.unigram_tokenizer.read(folder, "XLMRobertaTokenizer")
    return Imagined(prior(kandinsky_text.prior_of_kandinsky()), diffusion(kandinsky_text.kandinsky(words)))


def stable(folder):
    first, decoder = split(kandinsky_text.stable(prior=True))
    return Imagined(prior(first), diffusion(decoder))


def imagen(folder):
    (folder / "tokenizer.json").write_bytes(bytes(np.load(test_imagen.REFERENCE / "t5.npz")["json"]))
    words = test_imagen.tokenizer_unigram.read(folder)
    larger = small.pipeline({**small.TINY, "unet": "tiny unet_upscale"}, index={"max_noise_level": 400})
    return Cascade([*(diffusion(test_imagen.bundle(words, stage)) for stage in ("if one", "if two")), larger])


def glides(folder):
    return Cascade([diffusion(glide.read(path)) for path in glide_files.write(folder, "base", "upsample")])


def dalle(folder):
    test_dalle_mini.save(folder, "stacked", {"model_type": "dallebart", **DALLE["config"]})
    (folder / "tokenizer.json").write_bytes(bytes(test_dalle_mini.ARRAYS["tokenizer"]))
    test_dalle_mini.save(folder / "vqgan", "vqgan", {"model_type": "vqgan", **DALLE["vqgan"]})
    return load(folder, **DEVICE)


def own(folder):
    return Cascade([test_cascade.stage(), test_cascade.stage(size=12, low=8)])


def karlo(kind):
    one = {"UnCLIPPipeline": UnclipPipeline, "UnCLIPImageVariationPipeline": VariationsPipeline}[kind]
    return lambda folder: one(test_unclip.bundle(kind), **DEVICE)


vary = karlo("UnCLIPImageVariationPipeline")
# chain -> the pipeline, one call and another, and what each of its programs is handed by those before it
CHAINS = {
    "Karlo": (karlo("UnCLIPPipeline"), {}, {"prior_guidance": 1.0, "decoder_guidance": 2.0}, [set()]),
    "Karlo, varied": (vary, SEEN, {**OTHER, "decoder_guidance": 3.0}, [set()]),
    "Karlo, kept": (vary, {**SEEN, "keep": True}, {**OTHER, "keep": True, "decoder_guidance": 3.0}, [set()]),
    "Kandinsky 2.2": (imagined, FEW, {**FEW, "guidance": 2.0, "prior_guidance": 3.0}, [set(), EMBED]),
    "Kandinsky 2.2, away": (imagined, {**FEW, "negative": "a"}, {**FEW, "negative": "b"}, [set(), EMBED]),
    "Kandinsky 2.2, varied": (
        imagined,
        {**SEEN, "prior_strength": 0.5, **FEW},
        {**OTHER, "prior_strength": 0.6, **FEW, "guidance": 2.0},
        [set(), {"start"}, EMBED],
    ),
    "Kandinsky 2.1": (reading, FEW, {**FEW, "guidance": 2.0, "prior_guidance": 3.0}, [set(), EMBED]),
    "Stable unCLIP": (stable, {**FEW, "noise_level": 20}, {**FEW, "noise_level": 300}, [set(), EMBED]),
    "DeepFloyd IF": (
        imagen,
        {"steps": 5, "noise_level": 20},
        {"steps": 5, "noise_level": 300, "guidance": 3.0},
        [set(), {"image"}, {"image"}],
    ),
    "GLIDE": (glides, {"steps": 5}, {"steps": 5, "guidance": 2.0}, [set(), {"image"}]),
    "DALL-E mini": (dalle, {}, {"guidance": 4.0, "top_k": 3, "temperature": 0.8}, [set()]),
    "own": (own, {"steps": 3}, {"steps": 3, "noise_level": 9}, [set(), {"image"}]),
    "own, truncated": (own, {"steps": 9, "truncate": True}, {"steps": 9, "truncate": True}, [set(), {"image"}]),
}
TEXTS = {"own": ["", ""], "own, truncated": ["", ""]}


LONG = ("Karlo, kept", "Kandinsky 2.1", "Stable unCLIP", "GLIDE")
"""Chains that take seconds to trace, and whose parts others have too."""


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.heavy] if n in LONG else []) for n in CHAINS])
def test_a_stage_is_one_program_and_another_call_compiles_nothing(reached, tmp_path, name):
    make, one, other, handed = CHAINS[name]
    pipe = make(tmp_path)
    pipe(TEXTS.get(name, ["a cat", "b"]), key=jax.random.key(0), **one)
    first = list(reached)
    pipe(TEXTS.get(name, ["two", "fish"]), key=jax.random.key(1), **other)
    assert [signature for signature, _ in reached] == [signature for signature, _ in first] * 2
    assert [came for _, came in first] == handed


def test_a_blend_takes_one_program_for_each_part(reached, tmp_path):
    pipe = imagined(tmp_path)
    blend = lambda text, picture, weight: ((text, weight), (picture["picture"], 0.5))
    pipe("", key=jax.random.key(0), blend=blend("a cat", SEEN, 0.5), **FEW)
    first = [signature for signature, _ in reached]
    pipe("", key=jax.random.key(1), blend=blend("fish", OTHER, -0.1), **FEW)
    assert [signature for signature, _ in reached] == first * 2
    assert len(first) == 5  # the prior's, the picture's, their sum, what stands for no picture, the decoder's


def test_a_chain_for_another_number_of_steps_is_told_apart(reached, tmp_path):
    pipe = own(tmp_path)
    pipe("", key=jax.random.key(0), steps=3)
    pipe("", key=jax.random.key(0), steps=4)
    assert reached[0][0] != reached[2][0]
