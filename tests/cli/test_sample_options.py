"""What `jaxdiff sample` is given, what runs, what the picture says of it, and what is refused; nothing is compiled."""

import dataclasses
import json
import random
import re
import subprocess
import sys

import numpy as np
import pytest
from cli import sampling as helper
from PIL import Image

from jaxdiff import loading, sampling
from jaxdiff.cli import main as cli
from jaxdiff.cli import out as files
from jaxdiff.cli import sample as program
from jaxdiff.cli import sample_args
from jaxdiff.cli.main import main
from jaxdiff.cli.sample_inputs import blended
from jaxdiff.parallel import MeshSpec
from jaxdiff.pipelines.inputs import root_key


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return helper.make_place(tmp_path_factory.mktemp("options"))


@pytest.fixture(autouse=True)
def plans(place, monkeypatch):
    monkeypatch.chdir(place)
    return helper.without_programs(monkeypatch)


def status(argv):
    try:
        main(argv)
    except SystemExit as error:
        return error.code
    return 0


def failure(capsys, *argv):
    with pytest.raises(SystemExit) as error:
        main(["sample", *argv])
    printed = capsys.readouterr()
    return error.value.code, printed.err


TASKS = [
    ("sd", ""),
    ("sd", "--steps 20 --guidance 7.5 --rescale 0.5 --eta 0.3"),
    ("sd", "--image image.png --steps 6 --strength 0.5"),
    ("sd", "--image image.png --mask mask.png --sampler dpmpp_2m --grid karras"),
    ("sd", "--image image.png --outpaint 2 6 0 0 --guidance 1"),
    ("sd", "--image image.png --source-prompt dog --prompt cat"),
    ("sd", "--image image.png --source-prompt dog --steps 3 --sampler euler --grid leading"),
    ("sd", "--upscale 1.5 --steps 7 --prompt cat"),
    ("sd", "--upscale 1.5 --image image.png --strength 0.4 --upscale-strength 0.7"),
    ("sd", "--interpolate 5 --steps 4"),
    ("sd", "--controlnet control --hint image.png --hint-weight 0.5"),
    ("inpaint", "--image image.png --mask mask.png --strength 0.9"),
    ("upscale", "--image small.png --noise-level 10 --eta 0.5"),
    ("edit", "--image image.png --picture-guidance 2 --guidance 4"),
    ("runs/text", "--prompt red --guidance 2"),
    ("runs/class", "--prompt dog --negative-prompt cat --steps 5"),
    ("runs/nothing", "--sampler dpmpp_2m --steps 4"),
    ("runs/nothing", "--init-noise noise.npy"),
    ("runs/class", "--image small.png --strength 0.3 --prompt cat"),
]


@pytest.mark.parametrize(("model", "args"), TASKS)
def test_what_the_picture_says_ran_ran(plans, tmp_path, model, args):
    said = helper.run(tmp_path / "a.png", model, ["--num", "2", *args.split()])
    ran = plans[-1] if "--upscale" not in args else plans[0]
    assert ran["steps"] == said["steps"] == int(re.search(r"--steps (\d+)", args + " --steps 20")[1])
    for name in ("sampler", "grid", "eta", "strength", "guidance", "rescale", "picture_guidance"):
        if name in said:
            assert said[name] == ran[name], name
        else:
            assert f"--{name.replace('_', '-')}" not in args
    if "--upscale" in args:
        assert plans[1]["strength"] == (said["upscale_strength"] or 0.6)
        assert (plans[1]["steps"], plans[1]["sampler"]) == (said["steps"], said["sampler"])
    if "--source-prompt" in args:
        assert plans[0]["sampler"] == "ddim_inverse"
        assert (plans[0]["steps"], plans[0]["grid"]) == (said["steps"], said["grid"])
    for flag, value in re.findall(r"--(sampler|grid) (\S+)", args):
        assert said[flag] == value
    for flag, value in re.findall(r"--(strength|picture-guidance|eta|guidance|rescale|noise-level) (\S+)", args):
        assert said[flag.replace("-", "_")] == float(value)


def test_two_models_share_a_walk(plans, tmp_path, monkeypatch):
    """What one leaves after a part of the steps is where another begins, each picture from its own latents."""
    first = ["--num", "2", "--denoising-end", "0.8", "--save-latents", str(tmp_path / "left.npy")]
    assert helper.run(tmp_path / "a.png", "xl", first)["denoising_end"] == 0.8
    assert plans[-1]["part"] == (None, 0.8)
    assert np.load(tmp_path / "left.npy").shape == (2, 8, 8, 4)
    seen, grey = [], helper.grey
    monkeypatch.setattr(helper, "grey", lambda *args, **how: (seen.append(args[2]), grey(*args, **how))[1])
    np.save(tmp_path / "left.npy", np.arange(2)[:, None, None, None] * np.ones((2, 8, 8, 4), np.float32))
    then = ["--num", "2", "--batch-size", "1", "--denoising-start", "0.8", "--image", str(tmp_path / "left.npy")]
    assert helper.run(tmp_path / "b.png", "xl", then)["denoising_start"] == 0.8
    assert plans[-1]["part"] == (0.8, None)
    assert [float(batch["image"].mean()) for batch in seen] == [0.0, 1.0]


@pytest.mark.parametrize(
    ("model", "args", "words"),
    [
        ("xl", "--denoising-start 0.5", "pass its latents as image"),
        ("xl", "--image latents.npy --denoising-start 0.5 --num 3", "latents of 2 pictures, and 3 are wanted"),
        ("xl", "--image noise.npy --num 2", "image is float64 of shape (2, 8, 8, 3)"),
        ("sd", "--image latents.npy --outpaint 1 1 1 1", "--outpaint extends a picture, and latents.npy is a file"),
        ("sd", "--denoising-start 0.5 --image latents.npy --num 2", "only models that share a grid"),
    ],
)
def test_latents_that_do_not_fit_are_refused(capsys, tmp_path, model, args, words):
    code, told = failure(capsys, "--model", model, "--out", str(tmp_path / "a.png"), *args.split())
    assert code == 1
    assert words in told


def test_a_lora_given_twice_counts_twice(plans, tmp_path):
    helper.run(tmp_path / "a.png", "sd", ["--lora", "lora.safetensors:0.5", "lora.safetensors"])
    np.testing.assert_array_equal(plans[0]["weights"]["lora"], [1.5])


@pytest.mark.parametrize("ending", files.SIDES)
def test_every_format_carries_its_settings(tmp_path, capsys, ending):
    path = tmp_path / "new" / f"a{ending}"
    for _ in range(2):
        main(["sample", "--model", "runs/nothing", "--num", "1", "--seed", "7", "--out", str(path)])
    assert (files.read(path)["seed"], files.read(path)["model"]) == (7, "runs/nothing")
    kinds = {".jpg": "JPEG", ".jpeg": "JPEG"}
    assert Image.open(path).format == kinds.get(ending, ending[1:].upper())
    text = capsys.readouterr().out
    assert text.count(f"replaces {path}") == 1
    assert "1 picture: " in text
    assert "compiling" in text


SOME = ["--model", "sd", "--num", "2"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ("--seed -1", "seed is -1: expected 0 to 2^64 - 1"),
        (f"--seed {2**64}", "expected 0 to 2^64 - 1"),
        ("--interpolate -3", "interpolate is -3"),
        ("--num 0", "num is 0"),
        ("--num 1000000000", "and this machine has"),
        ("--batch-size 0", "batch_size is 0"),
        ("--clip-skip -1", "clip_skip is -1"),
        ("--guidance nan", "guidance is nan: expected a finite number"),
        ("--guidance inf", "guidance is inf"),
        ("--eta nan", "eta is nan"),
        ("--rescale nan", "rescale is nan"),
        ("--rescale 1.5", "rescale is 1.5: expected 0 to 1"),
        ("--image image.png --strength nan", "strength is nan"),
        ("--image image.png --strength 0", "strength"),
        ("--upscale inf", "upscale is inf"),
        ("--upscale 2000", "expected sides from 1 to 16384"),
        ("--upscale 2 --upscale-strength nan", "upscale_strength is nan"),
        ("--upscale-strength 0.5", "give --upscale too"),
        ("--steps 0", "steps is 0"),
        ("--steps 100000", "1 to 1000 work"),
        ("--height 100000", "expected sides from 1 to 16384"),
        ("--height -8", "height is -8"),
        ("--chunks 0", "chunks is 0"),
        ("--image image.png --outpaint 200000 0 0 0", "expected sides from 1 to 16384"),
        ("--image image.png --outpaint -4 0 0 0", "expected 0 or more"),
        ("--image missing.png", "missing.png"),
        ("--image folder", "folder"),
        ("--image image.png --source-prompt a --strength 0.5", "go with --strength"),
        ("--image image.png --source-prompt a --init-noise noise.npy", "go with --init-noise"),
        ("--init-noise noise.npz", "is a .npz archive"),
        ("--init-noise image.png", "not a .npy file"),
        ("--init-noise missing.npy", "missing.npy"),
        ("--out folder", "is a folder: give a file in it"),
        ("--out a.gif", "ends in .gif: expected one of .png"),
        ("--out a", "ends in nothing"),
        ("--out image.png/a.png", "is a file, not a folder"),
        ("--out a.webp --num 200 --prompt a b c", "files have at most 16383 a side"),
        ("--save-latents folder", "is a folder"),
        ("--lora lora.safetensors:nan", "expected a finite number"),
        ("--lora lora.safetensors --lora lora.safetensors", "--lora is given twice"),
        ("--prompt a --prompt=b", "--prompt is given twice"),
        ("--controlnet control --hint image.png --hint-weight nan", "hint_weights[0] is nan"),
        ("--picture image.png", "looks at no picture"),
        ("--picture-weight 2", "takes no picture_weight"),
        ("--noise-level 3", "takes no noise_level"),
        ("--picture-guidance 3", "takes no picture_guidance"),
        ("--hint image.png", "load the model with a ControlNet"),
        ("--negative-prompt a --model runs/nothing", "takes no negative: it reads no prompt"),
        ("--rescale 0.5 --model runs/nothing", "takes no rescale"),
        ("--prompt bird --model runs/class", "'bird' is not a class of this model: expected one of"),
        ("--init-noise whole.npy --model runs/nothing", "init_noise is of int64"),
        ("--init-noise nan.npy --model runs/nothing", "init_noise is not finite"),
        ("--init-noise noise.npy --num 3 --model runs/nothing", "has noise for 2 pictures, and 3 are wanted"),
        ("--lora lora.safetensors --model runs/text", "is a run of `jaxdiff train`, which takes no loras"),
        ("--vae sd/vae --variant fp16 --model runs/text", "which takes no vae, variant"),
        ("--clip-skip 1 --model runs/text", "clip_skip is for CLIP's text encoders"),
        ("--strength 0.5 --image image.png --model edit", "takes no strength"),
        ("--mask mask.png --image image.png --model upscale", "takes no mask"),
        ("--upscale 2 --image image.png --model edit", "is of models that take noise alone: edit takes pictures"),
    ],
)
def test_what_cannot_be_is_told_on_one_line(plans, capsys, tmp_path, args, words):
    argv = [*SOME, "--out", str(tmp_path / "a.png"), *args.split()]
    for flag in ("--model", "--out", "--num"):  # the last one counts
        while argv.count(flag) > 1:
            del argv[argv.index(flag) : argv.index(flag) + 2]
    code, text = failure(capsys, *argv)
    assert code == 1
    assert words in text
    assert text.count("\n") == 1
    assert not (tmp_path / "a.png").exists()


VALUES = {
    "--steps": ["0", "-1", "1", "2.5", "nan", "10000000000000000000", "three"],
    "--num": ["0", "1", "-5", "1e9", "99999999999999999999"],
    "--seed": ["-1", "1.5", "18446744073709551616", "18446744073709551615", "0x10"],
    "--guidance": ["nan", "-inf", "1", "-3", "1e39", "None", "a"],
    "--eta": ["nan", "2", "0.5", "-1"],
    "--strength": ["0", "1", "nan", "2"],
    "--rescale": ["-0.1", "nan", "1"],
    "--sampler": ["", "ddmi", "heun", "ddim_inverse", "pndm"],
    "--grid": ["", "karas", "karras"],
    "--height": ["0", "-8", "1", "17", "16385", "1e3"],
    "--width": ["999999999999", "9"],
    "--image": ["", ".", "image.png", "noise.npy", "sd/unet/diffusion_pytorch_model.safetensors", "small.png"],
    "--mask": ["mask.png", "small.png", "nothing"],
    "--outpaint": ["1", "1 1 1 1", "0 0 0 99999999999"],
    "--prompt": ["", "a " * 500, "(a:1e99)", "(((", "\x00", "\ud800"],
    "--negative-prompt": ["dog", "(a:nan)"],
    "--init-noise": ["noise.npy", "noise.npz", "lora.safetensors", "."],
    "--batch-size": ["0", "1", "-1"],
    "--mesh.data": ["0", "-1", "-2", "3", "1000000"],
    "--upscale": ["0", "-1", "nan", "1.5", "1e308"],
    "--interpolate": ["-1", "3"],
    "--source-prompt": ["", "a"],
    "--lora": ["", ":", "lora.safetensors:", "lora.safetensors:inf", ".:1"],
    "--controlnet": ["sd", "control", ""],
    "--hint": ["", "image.png"],
    "--dtype": ["float16", "float64", "int8"],
    "--decode": ["half", "tiled"],
    "--chunks": ["-1", "2", "1000000"],
    "--clip-skip": ["-1", "1", "99"],
    "--out": ["", ".", "a.tiff", "/proc/none/a.png"],
    "--picture": ["image.png"],
    "--noise-level": ["-1", "5"],
    "--save-latents": [".", ""],
    "--strategy": ["pmap", "both"],
    "--variant": ["fp16", "../x"],
    "--tokenizer": ["."],
    "--unknown": ["1"],
}


def combinations():
    """Two or three options at a time, among them one value of each."""
    rng = random.Random(0)
    every = [(flag, value) for flag, values in VALUES.items() for value in values]
    rng.shuffle(every)
    for n in range(0, len(every), 2):
        chosen = dict([every[n], *every[n + 1 : n + 2]])
        yield rng.choice(["sd", "runs/nothing", "runs/text"]), chosen


@pytest.mark.parametrize(("model", "chosen"), combinations())
def test_nothing_that_is_given_ends_in_a_traceback(capsys, tmp_path, model, chosen):
    words = {"--out": str(tmp_path / "a.png"), "--num": "2", **chosen}
    argv = ["sample", "--model", model]
    for flag, value in words.items():
        argv += [flag, *(value.split(" ") if flag == "--outpaint" else [value])]
    code = status(argv)
    text = capsys.readouterr().err
    assert code in (0, 1, 2), chosen
    assert "Traceback" not in text
    error = [line for line in text.splitlines() if not line.startswith("warning: ")]
    assert code != 1 or (len(error) == 1 and len(error[0]) < 1200), text


def test_a_seed_has_64_bits():
    import jax

    same = lambda a, b: (jax.random.key_data(a) == jax.random.key_data(b)).all()
    assert same(root_key(2**32 - 1), jax.random.key(2**32 - 1))
    assert not same(root_key(2**32), jax.random.key(0))
    assert len({tuple(jax.random.key_data(root_key(seed)).tolist()) for seed in (0, 1, 2**32, 2**40, 2**64 - 1)}) == 5


def shown(capsys, *argv):
    with pytest.raises(SystemExit) as error:
        main(["sample", *argv])
    assert error.value.code == 0
    return capsys.readouterr().out


def listed(text):
    return set(re.findall(r"^\W*--([a-z][a-z-]+)", text, re.MULTILINE))


EVERYTHING = {name.replace("_", "-") for name in sample_args.Args.__annotations__}


def test_help_lists_what_there_is(capsys):
    text = shown(capsys, "--help")
    assert listed(text) == EVERYTHING
    words = set(re.findall(r"\w+", text))
    assert not {*sampling.SAMPLERS} - words
    assert not {*sampling.grid.GRIDS} - words


@pytest.mark.parametrize(
    ("model", "there", "missing"),
    [
        ("runs/nothing", "steps image strength mask upscale", "prompt guidance negative-prompt lora decode hint"),
        ("runs/class", "prompt guidance negative-prompt", "chunks clip-skip lora decode noise-level picture"),
        ("runs/text", "prompt guidance negative-prompt", "chunks clip-skip textual-inversion picture-guidance variant"),
        ("sd", "prompt chunks clip-skip lora decode variant mask", "noise-level picture hint prediction"),
        ("edit", "picture-guidance image", "mask strength rescale noise-level outpaint upscale"),
        ("upscale", "noise-level image", "mask strength picture-guidance source-prompt"),
        ("inpaint", "mask strength outpaint", "upscale source-prompt noise-level"),
    ],
)  # fmt: skip
def test_help_of_a_model_lists_exactly_what_it_takes(capsys, model, there, missing):
    names = listed(shown(capsys, "--model", model, "--help"))
    assert names >= {*there.split(), "model", "num", "out", "seed"}
    assert not names & {*missing.split()}
    assert names < EVERYTHING
    pipe = loading.load(model)
    options = {sample_args.OPTIONS.get(name.replace("-", "_"), name.replace("-", "_")) for name in names}
    taken = {name for name in pipe.Options.__annotations__ if name != "lora_weights"}
    assert taken <= options


def test_help_of_a_model_says_its_own_defaults(capsys):
    assert re.search(r"--guidance.*?default:\W+3\.0", shown(capsys, "--model", "runs/text", "--help"), re.DOTALL)
    text = shown(capsys, "--model", "sd", "--controlnet", "control", "--help")
    assert {"hint", "hint-weight"} <= listed(text)
    assert re.search(r"--guidance.*?default:\W+7\.5", text, re.DOTALL)


def test_the_mesh_is_that_of_the_library():
    assert vars(sample_args.Mesh()) == vars(MeshSpec())
    assert program._spec(sample_args.Args("m", mesh=sample_args.Mesh(2, 3, 4))) == MeshSpec(2, 3, 4)


@pytest.mark.parametrize(
    ("error", "words", "code"),
    [
        (MemoryError(), "memory ran out", 1),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 1 bytes.\nAt:"), "memory ran out", 1),
        (ValueError("two\nlines"), "two lines (--debug shows where)", 1),
        (FloatingPointError("not finite"), "not finite", 1),
        (KeyboardInterrupt(), "", 130),
    ],
)
def test_errors_are_one_line_and_debug_shows_where(monkeypatch, capsys, error, words, code):
    def fail(argv):
        assert "--debug" not in argv
        raise error

    monkeypatch.setattr(program, "main", fail)
    got, text = failure(capsys)
    assert got == code
    assert words in text
    assert text.count("\n") == 1
    with pytest.raises(type(error)):
        main(["sample", "--debug"])


def test_a_fault_of_the_program_keeps_its_traceback(monkeypatch):
    def fail(argv):
        raise RuntimeError("a fault")

    monkeypatch.setattr(program, "main", fail)
    with pytest.raises(RuntimeError, match="a fault"):
        main(["sample"])


def test_usage_goes_where_it_was_asked_for(capsys):
    for argv in (["--help"], ["--version"]):
        assert status(argv) == 0
        printed = capsys.readouterr()
        assert printed.out.startswith(("usage: jaxdiff", "jaxdiff 0"))
        assert not printed.err
    with pytest.raises(SystemExit):
        main(["nothing"])
    assert "no program 'nothing'" in capsys.readouterr().err
    assert cli.USAGE.count("\n") > len(cli.PROGRAMS)
    done = subprocess.run([sys.executable, "-m", "jaxdiff", "--version"], check=True, capture_output=True, text=True)
    assert done.stdout.startswith("jaxdiff 0")


def test_settings_survive_json(tmp_path):
    said = helper.run(tmp_path / "a.png", "runs/text", ["--prompt", "red", "--num", "1"])
    assert json.loads(json.dumps(said)) == said
    assert (said["guidance"], said["prompt"], said["height"]) == (3.0, ["red"], 8)
    assert not {"picture_weight", "noise_level", "hint_weight", "chunks"} & said.keys()


def test_a_part_of_a_blend_is_a_picture_or_a_text(tmp_path):
    Image.new("RGB", (6, 4), "red").save(tmp_path / "cat.png")
    picture, weight = blended(f"{tmp_path / 'cat.png'}:-0.5")
    assert (picture.shape, picture[0, 0, 0].tolist(), weight) == ((1, 4, 6, 3), [255, 0, 0], -0.5)
    assert blended("a hat: red:2") == ("a hat: red", 2.0)
    for word in ("a hat", "a hat:much", ":1", "a hat:nan", ""):
        with pytest.raises(ValueError, match="has no weight: expected FILE:WEIGHT or TEXT:WEIGHT"):
            blended(word)
    with pytest.raises(FileNotFoundError, match=r"dog\.jpg"):
        blended("dog.jpg:1")


def test_help_is_read_with_the_indentation_of_a_class_and_without():
    """Which Python leaves out from 3.13 on."""
    options = dataclasses.make_dataclass("Options", [("shade", float, 1.0)])
    docs = set()
    for indent in ("", "    "):
        options.__doc__ = f"What a call may be given.\n\n{indent}Attributes:\n{indent}  shade: how bright.\n{indent}"
        docs.add(sample_args.narrowed(("seed",), {}, options).__doc__)
    (doc,) = docs
    assert "\n  seed: " in doc
    assert doc.endswith("\n  shade: how bright.\n")
