"""DALL-E mini beside its published code (tests/reference/dalle_mini.py made the fixture); drawn, written, refused."""

import functools
import json
import pathlib
import shutil
import time

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import keys, randomised
from reference.sd_weights import load as fixture
from reference.sd_weights import noise

from jaxdiff.cli.main import main
from jaxdiff.data import dalle_text, tokenizer_bytes
from jaxdiff.loading import load
from jaxdiff.metrics import speed
from jaxdiff.models import bart
from jaxdiff.models.autoencoder_vq import AutoencoderVQ
from jaxdiff.pretrained import dalle_mini
from jaxdiff.pretrained.rules import dalle_mini as rules
from jaxdiff.pretrained.rules import unflatten
from jaxdiff.pretrained.write import write_directory
from jaxdiff.sampling import tokens
from jaxdiff.sampling.tokens import Numbers

INDEX, ARRAYS = fixture(pathlib.Path(__file__).parents[1] / "reference" / "dalle_mini.npz")
PLAIN = Numbers(np.float32(1), np.int32(99), np.float32(1), np.float32(1))


def save(folder, name, config):
    """A directory with weights by the fixture's formula."""
    tree = {}
    for path, shape in INDEX[f"{name}/shapes"].items():
        last = path.rpartition(".")[2]
        scale = 1.0 if last == "embedding" else 0.1 if last in ("bias", "scale") else (3 / np.prod(shape[:-1])) ** 0.5
        tree[path.replace(".", "/")] = np.float32(last == "scale") + np.float32(scale) * noise(path, tuple(shape))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "flax_model.msgpack").write_bytes(flax.serialization.msgpack_serialize(unflatten(tree)))
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """How layers lie -> a model with its VQGAN in it."""

    @functools.cache
    def make(name):
        at = tmp_path_factory.mktemp(name)
        save(at, name, {"model_type": "dallebart", "architectures": ["DalleBart"], **INDEX["config"]})
        (at / "tokenizer.json").write_bytes(bytes(ARRAYS["tokenizer"]))
        save(at / "vqgan", "vqgan", {"model_type": "vqgan", **INDEX["vqgan"]})
        return at

    return make


@pytest.fixture
def folder(model):
    return model("stacked")


@pytest.mark.parametrize("name", ["stacked", "apart"])
def test_logits_are_those_of_the_published_code(model, name):
    part = dalle_mini.read(model(name)).components["transformer"]
    assert part.json["use_scan"] == (name == "stacked")
    ids = jnp.asarray(ARRAYS["ids"])
    call = jax.jit(lambda params, *args: bart.Bart(part.config).apply({"params": params}, *args))
    logits = call(part.params, ids, ids != 1, jnp.asarray(ARRAYS["given"]))
    theirs = ARRAYS[f"{name}/logits"]
    np.testing.assert_allclose(logits, theirs, atol=1e-5 * np.abs(theirs).max(), rtol=1e-5)


def test_the_vqgan_is_the_published_one(folder):
    part = dalle_mini.read(folder).components["vqgan"]
    run = lambda method, x: jax.jit(lambda p, x: AutoencoderVQ(part.config).apply({"params": p}, x, method=method))(
        part.params, x
    )
    picture = run("picture", jnp.asarray(ARRAYS["vqgan/codes"]).reshape(1, 2, 2))
    np.testing.assert_allclose(picture, ARRAYS["vqgan/picture"], atol=2e-5)
    index = run("index", jnp.asarray(noise("pixels", (1, 8, 8, 3))))
    np.testing.assert_array_equal(np.asarray(index).reshape(1, -1), ARRAYS["vqgan/index"])


def test_texts_and_their_tokens_are_the_published_codes(folder):
    tokenizer = tokenizer_bytes.read(folder)
    for text, plain, ids in zip(INDEX["prompts"], INDEX["normalised"], INDEX["tokens"], strict=True):
        assert dalle_text.normalise(text) == plain
        assert [0, *tokenizer.tokens(plain), 2] == ids
    for text, ids in INDEX["odd"]:
        assert [0, *tokenizer.tokens(text), 2] == ids, text
    assert tokenizer.encode("a", 5).tolist() == [0, *tokenizer.tokens("a"), 2, 1, 1]
    assert tokenizer.cut(" a red heart", 2) == "a red heart"
    assert tokenizer.cut(" a red heart", 64) == ""


def test_accents_and_emoji_become_plain_letters():
    assert dalle_text.normalise("Caf\u00e9 \U0001f408 \u201cna\u00efve\u201d") == ' cafe, cat, " naive "'


def test_codes_are_drawn_with_the_cache_as_without(folder):
    """Top one of guided logits, each against a whole call with all before it."""
    part = dalle_mini.read(folder).components["transformer"]
    ids, away = jnp.asarray(ARRAYS["ids"], jnp.int32), jnp.asarray([0, 2, *[1] * 10], jnp.int32)
    numbers = PLAIN._replace(top_k=np.int32(1), guidance=np.float32(3))
    index = jax.jit(lambda p, k: bart.sample(part.config, p, ids, away, 1, k, numbers))(part.params, keys(2))
    given = jnp.concatenate([jnp.full((2, 1), part.config.start), index[:, :-1]], 1)
    whole = jax.jit(lambda p, t: bart.Bart(part.config).apply({"params": p}, t, t != 1, given))
    told, untold = (whole(part.params, t) for t in (ids, jnp.stack([away] * 2)))
    guided = (untold + 3 * (told - untold))[..., : part.config.codes]
    np.testing.assert_array_equal(index, guided.argmax(-1))


def drawn_both_ways(places):
    """Programs (params, keys) -> likeliest codes: with what is kept, and by the whole network for each; and params."""
    encoder = {"encoder_layers": 1, "encoder_heads": 4, "encoder_hidden": 1024}
    decoder = {"decoder_layers": 2, "decoder_heads": 4, "decoder_hidden": 1024}
    sizes = {"vocabulary": 16, "values": 32, "codes": 31, "start": 31, "length": 8, "width": 256}
    net = bart.BartConfig(**sizes, **encoder, **decoder, places=places)
    ids, numbers = jnp.arange(3, 11, dtype=jnp.int32)[None], PLAIN._replace(top_k=np.int32(1))
    blank = ids, ids != 1, jnp.zeros((1, places), jnp.int32)
    params = randomised(jax.eval_shape(lambda: bart.Bart(net).init(jax.random.key(0), *blank))["params"], 0.1)

    def whole(params, keys):
        def step(given, at):
            logits = bart.Bart(net).apply({"params": params}, ids, ids != 1, given)
            code = logits[:, at, : net.codes].argmax(-1)
            return given.at[:, at + 1].set(code, mode="drop"), code

        first = jnp.zeros((1, places), jnp.int32).at[:, 0].set(net.start)
        return jax.lax.scan(step, first, jnp.arange(places))[1].T

    kept = lambda params, keys: bart.sample(net, params, ids, None, 1, keys, numbers)
    return jax.jit(kept), jax.jit(whole), params


def test_the_work_of_drawing_is_linear_in_length_with_the_cache():
    """Of all products of matrices; every step without the cache computes all places again."""
    work, without = {}, {}
    for places in (64, 128, 256):
        kept, whole, params = drawn_both_ways(places)
        for made, run in ((work, kept), (without, whole)):
            made[places] = speed.work(jax.make_jaxpr(run)(params, keys(1))).flops
    assert work[256] - work[128] == 2 * (work[128] - work[64])
    assert without[256] > 100 * work[256]


@pytest.mark.heavy
def test_long_draws_with_the_cache_are_as_without():
    kept, whole, params = drawn_both_ways(64)
    np.testing.assert_array_equal(kept(params, keys(1)), whole(params, keys(1)))


@pytest.mark.heavy
def test_a_picture_takes_a_tenth_of_the_time_with_the_cache():
    """Blocks and codes of DALL-E mini's sizes, guided, in CPU time and in turns; two blocks in place of its twelve.

    Every step without the cache is a call with all places, so a few of them tell the time of all; it makes the logits
    of the one place alone.
    """
    sizes = {"vocabulary": 50, "values": 16385, "codes": 16384, "start": 16384, "length": 64, "width": 1024}
    sizes |= {"encoder_layers": 1, "encoder_heads": 16, "encoder_hidden": 2730}
    sizes |= {"decoder_layers": 2, "decoder_heads": 16, "decoder_hidden": 2730}
    ids = jnp.arange(3, 67, dtype=jnp.int32)[None] % 50
    away = jnp.full(64, 1, jnp.int32).at[:2].set(2)
    numbers, few = PLAIN._replace(guidance=np.float32(3)), 4

    def programs(places):
        net = bart.BartConfig(**sizes, places=places)
        blank = ids, ids != 1, jnp.zeros((1, places), jnp.int32)
        params = randomised(jax.eval_shape(lambda: bart.Bart(net).init(jax.random.key(0), *blank))["params"], 0.1)
        both = jnp.concatenate([ids, away[None]])

        def logits(module, text, given, at):
            states = module.decoder(jnp.tile(given, (2, 1)), None, text, both != 1)
            return module.says(jax.lax.dynamic_slice_in_dim(states, at, 1, 1))[:, 0]

        def whole(params, keys):
            call = lambda *args, method: bart.Bart(net).apply({"params": params}, *args, method=method)
            text = call(method=lambda module: module.encoder(both, both != 1))

            def step(given, at):
                guided = tokens.guided(call(text, given, at, method=logits), numbers.guidance)
                own = jax.vmap(lambda key: jax.random.fold_in(key, at))(keys)
                code = tokens.draw(own, guided[:, : net.codes], numbers)
                return given.at[:, at + 1].set(code, mode="drop"), code

            first = jnp.zeros((1, places), jnp.int32).at[:, 0].set(net.start)
            return jax.lax.scan(step, first, jnp.arange(few))[1].T

        kept = jax.jit(lambda params, keys: bart.sample(net, params, ids, away, 1, keys, numbers))
        programs = {"kept": kept, "whole": jax.jit(whole)}
        return {name: functools.partial(run, params, keys(1)) for name, run in programs.items()}

    def seconds(run):
        start = time.process_time()
        jax.block_until_ready(run())
        return time.process_time() - start

    half, full = programs(128), programs(256)
    np.testing.assert_array_equal(full["kept"]()[:, :few], full["whole"]())
    half["kept"]()
    rounds = [(seconds(half["kept"]), seconds(full["kept"]), seconds(full["whole"]) * 256 / few) for _ in range(3)]
    longer = np.median([long / short for short, long, _ in rounds])
    faster = np.median([without / long for _, long, without in rounds])
    print(f"256 codes take {longer:.2f} of the time of 128, and {faster:.1f} times as long without the cache")
    assert longer < 2.2
    assert faster >= 10


@pytest.mark.parametrize("name", ["stacked", "apart"])
def test_what_was_read_is_written_back(model, name, tmp_path):
    folder = model(name)
    bundle = dalle_mini.read(folder)
    write_directory(bundle, tmp_path / "out")
    restore = lambda at: flax.serialization.msgpack_restore((at / "flax_model.msgpack").read_bytes())
    for theirs, ours in ((folder, "transformer"), (folder / "vqgan", "vqgan")):
        jax.tree.map(np.testing.assert_array_equal, restore(theirs), restore(tmp_path / "out" / ours))
    again = dalle_mini.read(tmp_path / "out")
    assert again.tokenizers["tokenizer"] == bundle.tokenizers["tokenizer"]
    assert {n: c.config for n, c in again.components.items()} == {n: c.config for n, c in bundle.components.items()}


def test_pictures_are_drawn_and_another_call_compiles_nothing(folder):
    pipe = load(folder)
    first = pipe(["a red heart", "a cat"], key=jax.random.key(0))
    assert first.shape == (2, 8, 8, 3)
    again = pipe(["a red car", "a cat"], key=jax.random.key(1), guidance=4.0, top_k=3, top_p=0.9, temperature=0.8)
    assert pipe.compiled() == 1
    assert (first != again).any()


def test_the_command_draws_with_a_vqgan_of_another_place_and_converts(folder, tmp_path, capsys):
    alone = tmp_path / "alone"
    shutil.copytree(folder, alone, ignore=shutil.ignore_patterns("vqgan"))
    words = ["sample", "--model", str(alone), "--prompt", "a cat", "--num", "1", "--out", str(tmp_path / "a.png")]
    with pytest.raises(SystemExit):
        main(words)
    assert "give its directory as --vqgan" in capsys.readouterr().err
    main([*words, "--vqgan", str(folder / "vqgan"), "--top-k", "4"])
    assert (tmp_path / "a.png").is_file()
    with pytest.raises(SystemExit):
        main(["sample", "--model", str(folder), "--help"])
    told = capsys.readouterr().out
    assert "--top-k" in told
    assert "--steps" not in told
    main(["convert", "--model", str(folder), "--out", str(tmp_path / "out")])
    assert (tmp_path / "out" / "vqgan" / "flax_model.msgpack").is_file()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ln_positions": "swinv2"}, "ln_positions='swinv2' is not supported"),
        ({"use_alibi": True}, "use_alibi=True"),
        ({"use_cosine_attention": True}, "use_cosine_attention"),
        ({"encoder_attention_heads": 3}, "do not divide d_model"),
        ({"decoder_start_token_id": 99}, "decoder_start_token_id=99 is above"),
        ({"nonsense": 3}, "nonsense=3 is a field unknown"),
    ],
)
def test_a_config_that_is_not_served_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        rules.config({**INDEX["config"], **fields})


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"double_z": True}, "double_z"), ({"resamp_with_conv": False}, "resamp_with_conv"), ({"ch": 30}, "groups 32")],
)
def test_a_vqgan_that_is_not_served_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        rules.vq_config({**INDEX["vqgan"], **fields})


def test_parts_that_do_not_fit_are_refused(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "m")
    at = tmp_path / "m" / "tokenizer.json"
    told = json.loads(at.read_text())
    at.write_text(json.dumps({**told, "added_tokens": [{"content": "x y", "id": 999}]}))
    with pytest.raises(ValueError, match="the tokenizer has the id 999, and the encoder knows 320"):
        dalle_mini.read(tmp_path / "m")
    at.write_text(json.dumps({**told, "model": {"type": "Unigram"}}))
    with pytest.raises(ValueError, match="is not a tokenizer of GPT-2"):
        dalle_mini.read(tmp_path / "m")
    net = dalle_mini.read(folder).components["transformer"].config
    vq = dalle_mini.read(folder).components["vqgan"].config
    with pytest.raises(ValueError, match="says 21 tokens, and the VQGAN has 99 codes"):
        dalle_mini._fitting(net, type(vq)(codes=99), folder)
    with pytest.raises(ValueError, match="is a DALL-E mini, which takes no vae"):
        load(folder, vae="x")
