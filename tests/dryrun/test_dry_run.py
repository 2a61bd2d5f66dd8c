"""A dry run of training and of sampling on devices that are not here, and a step that was compiled beforehand."""

import dataclasses
import importlib.util
import json
import re
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxdiff import parallel
from jaxdiff.cli import sample as sample_command
from jaxdiff.cli import train as command
from jaxdiff.cli.config import read_config
from jaxdiff.dryrun import compiled, estimate, figures, sampling, subject, training
from jaxdiff.experiment import to_json
from jaxdiff.metrics import chips, speed
from jaxdiff.models.unet import UNetConfig
from jaxdiff.parallel import MeshSpec, executable
from jaxdiff.parallel.spread import jit_forward
from jaxdiff.trainer import executable_key, make_step
from jaxdiff.training import Known, make_init_state

CONFIG = "configs/quickstart.py"


@pytest.fixture(scope="module")
def small():
    """The small quickstart without its words, whose weights fsdp can split."""
    config = read_config(Path(CONFIG), small=True)
    net = dataclasses.replace(config.task.net, channels=(64,), pooled=False, attention=("none",))
    task = dataclasses.replace(config.task, condition="none", net=net)
    return dataclasses.replace(config, task=task, mesh=MeshSpec(data=2, fsdp=4))


@pytest.fixture(scope="module")
def found(small):
    said = []
    return training.run(small, say=said.append), said


def test_state_bytes_are_those_of_a_run(found, small):
    """The state that eight devices hold, to the byte."""
    described = subject.describe(small, parallel.make_mesh(small.mesh))
    optimizer, _ = make_step(small, described.task)
    batch = {name: np.repeat(x, 8, 0) for name, x in described.row.items()}
    real = parallel.compile(
        lambda reduce: described.step, make_init_state(described.task, optimizer), {}, batch, small.mesh
    )
    state = real.init(jax.random.key(0))
    on_first = lambda x: x.addressable_shards[0].data.nbytes
    held = sum(on_first(x) for x in jax.tree.leaves((state, real.put(batch))))
    keys = on_first(jax.random.key_data(real.keys(jax.random.key(0), 0, 8)))
    assert found[0].held == held + keys
    assert found[0].held < found[0].state / 2, "fsdp splits it"


def test_the_report_says_what_a_user_asks(found):
    text = "\n".join(found[1])
    for wanted in (
        "parameters: ",
        "state: ",
        "activations: ",
        "estimated",
        "counted",
        "collectives",
        "split over fsdp",
    ):
        assert wanted in text


def test_work_is_that_of_three_forward_passes(found, small):
    """The gradient of a product is two products; the first layer's input needs none."""
    described = subject.describe(small, subject.abstract_mesh(small.mesh, 8, chips.parse("v5e:2x4").device))
    state, batch, keys = described.arguments(8)
    known = Known(state.frozen, state.extra, state.ema_params, state.step)
    loss = lambda params, batch, keys: described.task.loss(params, known, batch, keys)[0]
    forward = speed.work(speed.trace(loss, (state.params, batch, keys), described.mesh, "none")).flops
    assert 2.9 * forward < found[0].flops <= 3 * forward


def test_what_does_not_fit_says_what_would(small):
    tiny = dataclasses.replace(chips.CHIPS["v5e"], memory=2.0 * 2**20)
    topology = chips.Topology("tiny", tiny, 8)
    config = dataclasses.replace(small, mesh=MeshSpec())
    with pytest.raises(compiled.TooLargeError, match=r"needs [\d.]+ of 0.00195\d* GiB .*: "):
        training.run(config, topology, say=lambda line: None)


def test_a_config_that_does_not_fit_the_chips_is_refused(small):
    with pytest.raises(ValueError, match="batch_size is 8, which does not divide by 256"):
        training.run(dataclasses.replace(small, mesh=MeshSpec()), chips.parse("v5e:16x16"))
    with pytest.raises(ValueError, match="a multiple of 3 devices"):
        training.run(dataclasses.replace(small, mesh=MeshSpec(fsdp=3)), chips.parse("v5e:2x4"))


def test_sampling_is_described_without_weights(small, tmp_path):
    pipe = sampling.outline(tmp_path, small)
    said = []
    spec = MeshSpec(fsdp=4)
    eight = sampling.run(pipe, spec, 8, chips.parse("v5e:2x4"), options=pipe.options(steps=8), say=said.append)
    four = sampling.run(pipe, spec, 8, chips.parse("v5e:2x4"), options=pipe.options(steps=4), say=said.append)
    assert eight.flops == pytest.approx(2 * four.flops, rel=1e-6), "the loop's length counts"
    assert eight.batch == 8
    assert "fits, " in said[-1]


def test_a_run_without_a_checkpoint_is_described_from_the_command_line(small, tmp_path, capsys):
    (tmp_path / "config.json").write_text(to_json(small))
    small.task.assets(tmp_path, small.data, subject.Nothing(16, 0), new=True)
    options = ["--num", "8", "--steps", "2", "--mesh.fsdp", "4", "--dry-run", "--topology", "v5e:2x4"]
    sample_command.main(["--model", str(tmp_path), *options])
    assert "fits, " in capsys.readouterr().out.splitlines()[-1]
    with pytest.raises(ValueError, match="--dry-run does not know --save-latents"):
        sample_command.main(["--model", str(tmp_path), *options, "--save-latents", "x.npy"])


@pytest.mark.parametrize("condition", ["clip", "none"])
def test_a_model_in_latents_is_described_without_its_networks(condition, monkeypatch):
    """Stable Diffusion's autoencoder and CLIP stand in, in shapes; the step itself has no work of theirs."""
    config = read_config(Path("sd15"))
    net = UNetConfig(out_channels=4, channels=(64,), layers=1, attention=("cross",), heads=(1,), depth=(1,))
    task = dataclasses.replace(config.task, condition=condition, net=net)
    config = dataclasses.replace(config, task=task, data=dataclasses.replace(config.data, size=64))
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, batch_size=16, accumulate=1))
    described = subject.describe(config, parallel.make_mesh(MeshSpec(data=8)))
    assert described.row["moments"].shape == (1, 8, 8, 8)
    assert ("context" in described.row) == (condition == "clip")
    assert set(described.like.frozen) == {"autoencoder", *["text_encoder"] * (condition == "clip")}
    jax.eval_shape(described.step, *described.arguments(16))


@pytest.mark.heavy
def test_stable_diffusion_on_256_chips_has_the_work_that_a_hand_counts():
    """803.3 GFLOP for a forward pass through the U-Net at 64x64 latents, and twice that for its gradients."""
    config = read_config(Path("sd15"))
    task = dataclasses.replace(config.task, net=dataclasses.replace(config.task.net, remat="none"))
    config = dataclasses.replace(config, task=task, mesh=MeshSpec(data=16, fsdp=16))
    said, began = [], time.monotonic()
    found = training.run(config, chips.parse("v5e:16x16"), say=said.append)
    took = time.monotonic() - began
    print(f"{took:.0f} s")
    assert took < 120
    assert found.flops / config.train.batch_size == pytest.approx(3 * 803.3e9, rel=0.02)
    assert "parameters: 859,520,964" in said


PLAIN = {"attention": ("none",), "heads": (1,), "pooled": False}
COMPILED = [
    ("none", {"dtype": "bfloat16", **PLAIN}, "train", 1105.84),
    ("none", {"dtype": "bfloat16", **PLAIN}, "sample", 420.66),
    ("none", PLAIN, "sample", 692.19),
    ("text", {"dtype": "bfloat16", "attention": ("cross",), "heads": (2,)}, "train", 12831.33),
    ("text", {"dtype": "bfloat16", "attention": ("cross",), "heads": (2,)}, "sample", 2629.89),
]
"""Condition and network, and the MiB of temporaries that libtpu 0.0.52 says of it for 512 examples on a v5e."""


@pytest.mark.heavy
@pytest.mark.parametrize(("condition", "net", "what", "mebibytes"), COMPILED)
def test_the_estimate_is_within_a_quarter_of_the_compilers(condition, net, what, mebibytes, tmp_path):
    base = read_config(Path(CONFIG))
    wide = {"channels": (64,), "depth": (1,), "mid_attention": "none", "patch": 1}
    task = dataclasses.replace(
        base.task, condition=condition, net=dataclasses.replace(base.task.net, **{**wide, **net})
    )
    config = dataclasses.replace(base, task=task, train=dataclasses.replace(base.train, batch_size=512))
    mesh = subject.abstract_mesh(MeshSpec(), 1, chips.parse("v5e:2x2").device)
    if what == "train":
        found = figures.of_training(subject.describe(config, mesh))
    else:
        config.task.assets(tmp_path, config.data, subject.Nothing(32, 0), new=True)
        pipe = sampling.outline(tmp_path, config)
        program = sampling.describe(pipe, mesh, pipe.options(steps=4))
        found = sampling.figures_of(program, 512, lambda stage: None)
    assert found.temporary / 2**20 == pytest.approx(mebibytes, rel=0.25)
    assert "within a quarter of it" in estimate.distance("tpu", found.temporary)


@pytest.mark.parametrize(
    ("platform", "mebibytes", "says"),
    [
        ("tpu", min(size for *_, size in COMPILED) / 0.82, "within a quarter"),
        ("tpu", 258, "no figure for so small a program"),
        ("cpu", 1000, "2 to 4 times as much in training"),
        ("gpu", 1000, "not compared with a compiler of gpu"),
    ],
)
def test_it_is_said_how_good_an_estimate_of_a_size_is(platform, mebibytes, says):
    assert says in estimate.distance(platform, mebibytes * 2**20)


CPU = [("train", 1.5, 4.0), ("sample", 0.75, 1.25)]
"""What is done, and the least and the most that the compiler takes of the estimate."""


@pytest.mark.heavy
@pytest.mark.parametrize(("what", "least", "most"), CPU)
def test_a_cpus_compiler_takes_of_an_estimate_what_is_said(what, least, most, small, tmp_path):
    net = dataclasses.replace(small.task.net, patch=1)
    config = dataclasses.replace(small, task=dataclasses.replace(small.task, net=net), mesh=MeshSpec())
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, batch_size=64))
    mesh = parallel.make_mesh(MeshSpec(), jax.devices()[:1])
    if what == "train":
        described = subject.describe(config, mesh)
        found, arguments = figures.of_training(described), described.arguments(64)
        made = executable.lower(described.step, arguments, described.results(arguments)).compile()
    else:
        pipe = sampling.outline(tmp_path, config)
        program = sampling.describe(pipe, mesh, pipe.options(steps=4))
        found = sampling.figures_of(program, 64, lambda stage: None)
        made = jit_forward(program.function, "cpu").lower(*program.arguments(64)).compile()
    ratio = compiled.memory(made)["temporaries"] / found.temporary
    print(f"{what}: {ratio:.2f} of {found.temporary / 2**20:.0f} MiB")
    assert least < ratio < most


@pytest.mark.parametrize(
    ("channels", "convolutions", "products", "seconds"), [(64, 35, 26, 83), (64, 12, 10, 53), (64, 35, 233, 151)]
)
def test_the_compilers_time_is_foretold(channels, convolutions, products, seconds):
    """CPU seconds that libtpu took."""

    def program(x, k, w):
        for _ in range(convolutions):
            x = jax.lax.conv_general_dilated(x, k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        for _ in range(products):
            x = x @ w
        return x

    shapes = [(1, 4, 4, channels), (3, 3, channels, channels), (channels, channels)]
    traced = jax.make_jaxpr(program)(*(jax.ShapeDtypeStruct(shape, "float32") for shape in shapes))
    assert compiled.seconds(traced.jaxpr) == pytest.approx(seconds, rel=0.2)


@pytest.mark.parametrize(
    "message",
    [
        "Ran out of memory in memory space hbm. Used 31.40G of 15.75G hbm. Exceeded hbm capacity by 15.65G.",
        "E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory required for HLO temporaries (31.40G) "
        "exceeds available HBM (15.75G). HLO module: jit__lambda.",
    ],
)
def test_a_compilers_refusal_is_said_with_its_numbers(message):
    class Lowered:
        def compile(self):
            raise jax.errors.JaxRuntimeError(message)

    with pytest.raises(compiled.TooLargeError, match=r"needs 31\.4 of 15\.75 GiB: the chip's own compiler says so"):
        compiled.compile(Lowered(), 0, lambda *_: None)


def test_libtpu_that_is_missing_is_said_with_the_extra(monkeypatch):
    if importlib.util.find_spec("libtpu"):  # then its absence is played

        def missing(*_, **__):
            raise RuntimeError("TPU topology: libtpu is not installed")

        monkeypatch.setattr("jax.experimental.topologies.get_topology_desc", missing)
    with pytest.raises(ValueError, match=r"jaxdiff\[tpu\]|knows no topology"):
        compiled.devices(chips.parse("v5e:2x2"))


def test_options_of_a_dry_run_need_one():
    with pytest.raises(ValueError, match="--topology is of a dry run"):
        command.main([CONFIG, "--topology", "v5e:2x2"])
    with pytest.raises(ValueError, match="give --topology, such as"):
        command.main([CONFIG, "--dry-run", "--compile"])


CHANGES = {"steps": 9, "batch_size": 32, "accumulate": 2, "log_every": 3, "preview_every": 5, "spike": 5.0}
"""Another value of each field of a run's length and rhythm, beside `faults`."""


@pytest.mark.parametrize("faults", ["stop", "skip", "rewind"])
def test_what_changes_a_step_refuses_its_executable(faults, small):
    """The program says what changes it."""
    assert {*CHANGES, "faults"} == {field.name for field in dataclasses.fields(small.train)}
    mesh = parallel.make_mesh(small.mesh)

    def of(**changes):
        config = dataclasses.replace(small, train=dataclasses.replace(small.train, **changes))
        described = subject.describe(config, mesh)
        arguments = described.arguments(config.train.batch_size)
        with jax.set_mesh(mesh):
            traced = str(jax.make_jaxpr(described.step)(*arguments))
        return traced, executable_key(config, arguments, mesh)

    plain = of(faults=faults, batch_size=16)
    for name, value in CHANGES.items():
        program, key = of(**{"faults": faults, "batch_size": 16, name: value})
        assert (program != plain[0]) == (key != plain[1]), name


@pytest.mark.heavy
def test_a_step_compiled_beforehand_trains_the_same_and_refuses_what_differs(tmp_path):
    path = tmp_path / "step.executable"
    base = [CONFIG, "--small", "--train.steps", "2"]
    command.main([*base, "--dry-run", "--save-executable", str(path)])
    lines = []
    for name, more in (("traced", []), ("saved", ["--executable", str(path)])):
        command.main([*base, "--workdir", str(tmp_path / name), *more])
        lines.append((tmp_path / name / "metrics.jsonl").read_text().splitlines())
    losses = [[json.loads(line)["loss"] for line in one] for one in lines]
    assert losses[0] == losses[1]
    with pytest.raises(ValueError, match=r"was saved for program .*: save it again"):
        command.main([*base, "--workdir", str(tmp_path / "x"), "--executable", str(path), "--optimizer.lr", "1e-5"])
    text = path.read_bytes()
    for damaged, message in (
        (re.sub(rb'"jax": "[^"]*"', b'"jax": "0.1"', text), r"saved for jax 0.1, here"),
        (text[:-5], "damaged"),
        (b"GIF89a", "no executable"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=message):
            command.main([*base, "--workdir", str(tmp_path / "x"), "--executable", str(path)])
