"""DALL-E mini's published code and its VQGAN's, run on tiny weights by formula: dalle_mini.npz.

    python tests/reference/dalle_mini.py FOLDER

FOLDER holds modeling.py, configuration.py and text.py of github.com/borisdayma/dalle-mini (src/dalle_mini/model) and
modeling_flax_vqgan.py and configuration_vqgan.py of github.com/patil-suraj/vqgan-jax. They import Flax classes that
transformers 5 has no more: stand-ins below have what is used of them, as transformers 4.19 has it.
"""

import importlib
import inspect
import io
import json
import pathlib
import re
import sys
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.serialization import msgpack_serialize
from flax.traverse_util import flatten_dict, unflatten_dict
from sd_weights import noise
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

HERE = pathlib.Path(__file__)
CONFIG = {
    "encoder_vocab_size": 320,
    "image_vocab_size": 21,
    "image_length": 4,
    "max_text_length": 12,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "d_model": 16,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 20,
    "decoder_start_token_id": 18,
    "normalize_text": True,
}
VQGAN = {
    "ch": 32,
    "ch_mult": [1, 1, 2],
    "num_res_blocks": 1,
    "resolution": 8,
    "z_channels": 8,
    "embed_dim": 6,
    "n_embed": 18,
    "attn_resolutions": [2],
}
PROMPTS = (
    "a red heart",
    "The cat's hat, 3/4 full -- really?",
    "1,234.5 cats & dogs!!! [2]",
    "WELL-known <b>bold</b> 'quoted' aaaaaah http://a.b/c yes",
    "it's 5:30, #sunset (blue); a_b",
)


class Attention(nn.Module):
    config: object
    embed_dim: int
    num_heads: int
    dropout: float = 0.0
    causal: bool = False
    bias: bool = True
    dtype: object = jnp.float32

    def _split_heads(self, x):
        return x.reshape((*x.shape[:2], self.num_heads, self.head_dim))

    def _merge_heads(self, x):
        return x.reshape((*x.shape[:2], self.embed_dim))


class Whole(nn.Module):
    config: object
    dtype: object = jnp.float32

    def __call__(self, input_ids, attention_mask, decoder_input_ids, decoder_attention_mask, position_ids,
                 decoder_position_ids, output_attentions=False, output_hidden_states=False, return_dict=True,
                 deterministic=True):  # fmt: skip
        text = self.encoder(input_ids, attention_mask, position_ids, deterministic=deterministic)
        return self.decoder(
            decoder_input_ids, decoder_attention_mask, decoder_position_ids, text[0], attention_mask,
            deterministic=deterministic,
        )  # fmt: skip


class Head(nn.Module):
    config: object
    dtype: object = jnp.float32


class Out(dict):
    def __init__(self, **fields):
        super().__init__({name: x for name, x in fields.items() if x is not None})

    def __getattr__(self, name):
        return self.get(name)

    def __getitem__(self, key):
        return list(self.values())[key] if isinstance(key, int) else super().__getitem__(key)


class Pretrained:
    def __init__(self, **fields):
        self.__dict__.update({"forced_bos_token_id": None, **fields})


def stand_in(name, **fields):
    module = types.ModuleType(name)
    module.__dict__.update(fields)
    sys.modules[name] = module


def load(folder):
    outputs = ("BaseModelOutput", "BaseModelOutputWithPastAndCrossAttentions", "CausalLMOutputWithCrossAttentions")
    stand_in("transformers", PretrainedConfig=Pretrained)
    stand_in("transformers.configuration_utils", PretrainedConfig=Pretrained)
    stand_in("transformers.modeling_flax_outputs", **{f"Flax{name}": Out for name in (*outputs, "Seq2SeqLMOutput")})
    gelu = lambda x: nn.gelu(x, approximate=False)
    stand_in("transformers.modeling_flax_utils", ACT2FN={"gelu": gelu}, FlaxPreTrainedModel=object)
    stand_in(
        "transformers.models.bart.modeling_flax_bart", FlaxBartAttention=Attention, FlaxBartModule=Whole,
        FlaxBartForConditionalGeneration=type("Model", (), {}), FlaxBartForConditionalGenerationModule=Head,
    )  # fmt: skip
    logging = types.SimpleNamespace(get_logger=lambda name: None)
    stand_in("transformers.utils", ModelOutput=object, logging=logging, PushToHubMixin=object)
    stand_in("ftfy", fix_text=lambda text: text)
    stand_in("unidecode", unidecode=lambda text: text)
    stand_in("huggingface_hub", hf_hub_download=None)
    stand_in("ours.utils", PretrainedFromWandbMixin=type("Mixin", (), {}))
    package = types.ModuleType("ours")
    package.__path__ = []
    sys.modules["ours"] = package
    found = {}
    for name in ("configuration", "modeling", "text", "configuration_vqgan", "modeling_flax_vqgan"):
        code = (folder / f"{name}.py").read_text().replace("jnp.DeviceArray", "object")
        module = found[name] = sys.modules[f"ours.{name}"] = types.ModuleType(f"ours.{name}")
        module.__package__ = "ours"
        exec(compile(re.sub(r"@flax.struct.dataclass\n", "", code), name, "exec"), module.__dict__)
    return found


def by_formula(tree):
    """Weights that keep an input's size; what is one number a channel lies near 1 (scale) or 0 (bias)."""
    flat = flatten_dict(tree)
    made = {}
    for path, x in flat.items():
        name, last = ".".join(path), path[-1]
        scale = 0.1 if last in ("bias", "scale") else (3 / np.prod(x.shape[:-1])) ** 0.5
        scale = 1.0 if last == "embedding" else scale
        made[path] = np.float32(last == "scale") + np.float32(scale) * noise(name, x.shape)
    return unflatten_dict(made)


def tokenizer():
    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=310, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    words.train_from_iterator([" a red heart, the cat's hat and the red car"] * 3, trainer)
    words.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return words


def main(folder):
    found, arrays, index = load(folder), {}, {"config": CONFIG, "vqgan": VQGAN, "prompts": PROMPTS}
    classes = {"DalleBart": found["configuration"].DalleBartConfig, "VQGAN": found["configuration_vqgan"].VQGANConfig}
    index["fields"] = {
        name: {field: one.default for field, one in inspect.signature(kind).parameters.items() if field != "kwargs"}
        for name, kind in classes.items()
    }
    normaliser = object.__new__(found["text"].TextNormalizer)
    normaliser._hashtag_processor = lambda word: word  # without its list of words
    index["normalised"] = [normaliser(text) for text in PROMPTS]
    words = tokenizer()
    index["tokens"] = [words.encode(text).ids for text in index["normalised"]]
    odd = ["  two  spaces\n\n end ", "it's I'LL x²y 12ab", "", " ", "\u00e9\u4e2d!?  "]
    index["odd"] = [[text, words.encode(text).ids] for text in odd]
    arrays["tokenizer"] = np.frombuffer(words.to_str().encode(), np.uint8)
    for stacked in (False, True):
        config = found["configuration"].DalleBartConfig(**CONFIG, use_scan=stacked, gradient_checkpointing=False)
        module = found["modeling"].FlaxBartForConditionalGenerationModule(config)
        ids = np.full((2, 12), 1)
        for row, tokens in zip(ids, index["tokens"], strict=False):
            row[: len(tokens[:12])] = tokens[:12]
        given = np.array([[18, 3, 17, 0], [18, 5, 5, 9]])
        places = lambda x: np.broadcast_to(np.arange(x.shape[1]), x.shape)
        call = (ids, (ids != 1).astype(int), given, np.ones_like(given), places(ids), places(given))
        shapes = jax.eval_shape(module.init, jax.random.key(0), *call)["params"]
        params = by_formula(shapes)
        name = "stacked" if stacked else "apart"
        arrays[f"{name}/logits"] = np.asarray(module.apply({"params": params}, *call).logits)
        index[f"{name}/shapes"] = {".".join(path): list(x.shape) for path, x in flatten_dict(shapes).items()}
        print(name, arrays[f"{name}/logits"].std())
    arrays |= {"ids": ids, "given": given}
    config = found["configuration_vqgan"].VQGANConfig(**VQGAN)
    module = found["modeling_flax_vqgan"].VQModule(config)
    pixels = noise("pixels", (1, 8, 8, 3))
    params = by_formula(jax.eval_shape(module.init, jax.random.key(0), pixels)["params"])
    index["vqgan/shapes"] = {".".join(path): list(x.shape) for path, x in flatten_dict(params).items()}
    codes = np.array([[3, 17, 0, 9]])
    arrays["vqgan/codes"] = codes
    arrays["vqgan/picture"] = np.asarray(module.apply({"params": params}, codes, method=module.decode_code))
    arrays["vqgan/index"] = np.asarray(module.apply({"params": params}, pixels, method=module.encode)[1])
    print("vqgan", arrays["vqgan/picture"].std(), arrays["vqgan/index"])
    small = {
        "a": {"kernel": noise("k", (2, 3)), "scale": noise("s", (3,))},
        "b": jnp.asarray(noise("b", (2,)), "bfloat16"),
    }
    arrays["msgpack"] = np.frombuffer(msgpack_serialize(jax.tree.map(np.asarray, small)), np.uint8)
    file = io.BytesIO()
    np.savez_compressed(file, index=np.frombuffer(json.dumps(index).encode(), np.uint8), **arrays)
    HERE.with_suffix(".npz").write_bytes(file.getvalue())
    print(len(file.getvalue()), "bytes")


if __name__ == "__main__":
    importlib.invalidate_caches()
    main(pathlib.Path(sys.argv[1]))
