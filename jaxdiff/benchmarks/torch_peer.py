"""The same architectures in PyTorch, with our weights, as sides to take turns with.

Each peer is first called on our inputs and must give our output, so that a ratio compares the same work. Networks are
those of diffusers and transformers, which is how the field runs them.
"""

import dataclasses
import functools
import importlib.util
import shutil
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from jaxdiff.benchmarks.programs import BenchProgram
from jaxdiff.benchmarks.subject import SCHEDULER, BenchModel
from jaxdiff.models.autoencoder_kl import unscaled
from jaxdiff.models.unet import UNetConfig
from jaxdiff.pipelines.program import FIRST, unit_noise
from jaxdiff.pretrained.components import family
from jaxdiff.pretrained.read import Component
from jaxdiff.pretrained.rules.unet_config import mirror, pixel_json
from jaxdiff.pretrained.single_file import KINDS
from jaxdiff.pretrained.write import write_component

TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2, "float16": 2e-2}
"""The most that outputs may differ, by their norm: two libraries add in different orders through a hundred layers."""

Side = Callable[[int], Any]


class NoPeerError(ValueError):
    """The work has no counterpart in PyTorch here; the message says why."""


def check(names: list[str]) -> None:
    """Refuses, before anything compiles, what has no peer here.

    Raises:
      ValueError: names the programs without a peer, or the packages that are missing and how to get them.
    """
    if missing := [name for name in ("torch", "diffusers", "transformers") if not importlib.util.find_spec(name)]:
        raise ValueError(
            f"--against torch needs {', '.join(missing)}, not installed here: pip install 'jaxdiff[reference]'"
        )
    if not set(names) & set(PEERS):
        raise ValueError(f"nothing to run in PyTorch: of {', '.join(names)}, none is one of {', '.join(PEERS)}")


def sides(subject: BenchModel, compiled: bool, case: BenchProgram) -> dict[str, Side]:
    """Returns the case in PyTorch: eager, and if wanted compiled, where there is a C++ compiler (or a GPU).

    Raises:
      NoPeerError: if it has none.
      ValueError: if PyTorch's output is not ours.
    """
    if case.name not in PEERS:
        raise NoPeerError(f"{case.name} has no peer in PyTorch; there are {', '.join(PEERS)}")
    import torch

    device = "cuda" if torch.cuda.is_available() and jax.default_backend() == "gpu" else "cpu"
    torch.set_default_dtype(getattr(torch, case.dtype))
    try:
        modules = {"torch": PEERS[case.name](subject, case, device, lambda module: module)}
        if compiled and (device == "cuda" or shutil.which("c++") or shutil.which("g++")):
            compiler = functools.partial(torch.compile, dynamic=False)
            modules["torch.compile"] = PEERS[case.name](subject, case, device, compiler)
    finally:
        torch.set_default_dtype(torch.float32)
    return {name: functools.partial(_finished, side, device) for name, side in modules.items()}


def _finished(side: Side, device: str, i: int) -> None:
    import torch

    side(i)
    if device == "cuda":
        torch.cuda.synchronize()


def condition_json(net: UNetConfig, channels: int, width: int, pooled: int) -> dict[str, Any]:
    """Returns the config.json of the UNet2DConditionModel that a U-Net with cross-attention is.

    Raises:
      NoPeerError: if that class cannot express it; names the fields.
    """
    down = [{"none": "DownBlock2D", "cross": "CrossAttnDownBlock2D"}.get(kind, kind) for kind in net.attention]
    json: dict[str, Any] = {
        "in_channels": channels * net.patch**2,
        "out_channels": net.out_channels * net.patch**2,
        "block_out_channels": list(net.channels),
        "layers_per_block": net.layers,
        "down_block_types": down,
        "up_block_types": mirror(down),
        "cross_attention_dim": width,
        "attention_head_dim": list(net.heads),
        "transformer_layers_per_block": list(net.depth),
        "norm_num_groups": net.groups,
        "norm_eps": net.eps,
        "dropout": net.dropout,
        "freq_shift": int(net.time_shift),
        "flip_sin_to_cos": not net.sin_first,
        "downsample_padding": 0 if net.pad_after else 1,
        "use_linear_projection": True,
        "class_embed_type": "projection" if net.pooled else None,
        "projection_class_embeddings_input_dim": pooled if net.pooled else None,
        "num_class_embeds": net.labels + 1 if net.labels else None,
    }
    try:
        back = family("UNet2DConditionModel").config(json)
    except ValueError as error:
        raise NoPeerError(str(error)) from error
    same = dataclasses.replace(
        net, patch=1, out_channels=json["out_channels"], remat=back.remat, dtype=back.dtype
    )  # what is set apart is no part of the architecture, or done outside
    lost = [f.name for f in dataclasses.fields(net) if getattr(same, f.name) != getattr(back, f.name)]
    if lost:
        listed = ", ".join(f"{name}={getattr(net, name)}" for name in lost)
        raise NoPeerError(f"a UNet2DConditionModel of diffusers cannot have {listed}")
    return json


def _theirs(kind: str, json: Mapping[str, Any], config: Any, params: Any, device: str) -> Any:
    """Returns their network with our weights, through the files that they read."""
    import diffusers
    import torch
    import transformers

    with tempfile.TemporaryDirectory() as folder:
        write_component(Component(kind, json, config, params), folder)
        library = diffusers if hasattr(diffusers, kind) else transformers
        module = getattr(library, kind).from_pretrained(folder, torch_dtype=torch.get_default_dtype())
    ours, theirs = (sum(x.size for x in jax.tree.leaves(params)), sum(p.numel() for p in module.parameters()))
    if ours != theirs:
        raise ValueError(f"{kind} has {theirs} parameters where ours has {ours}: it is not the same network")
    return module.to(device).eval()


def _tensor(x: Any, device: str) -> Any:
    """Returns an array as their tensor; pictures [b h w c] become [b c h w]."""
    import torch

    x = np.asarray(x)
    y = torch.from_numpy(np.array(x.transpose(0, 3, 1, 2) if x.ndim == 4 else x, order="C")).to(device)
    return y.to(torch.get_default_dtype()) if y.is_floating_point() else y


def _same(case: BenchProgram, theirs: Any) -> None:
    """Raises where their output for call 0 is not ours."""
    ours = case(0)
    ours = ours["pixels"] if isinstance(ours, dict) else ours[0] if isinstance(ours, tuple) else ours
    level = 0.5 if ours.dtype == np.uint8 else 0.0  # what rounding may add
    ours = np.asarray(ours.astype("float32"))
    theirs = theirs.detach().float().cpu().numpy()
    theirs = theirs.transpose(0, 2, 3, 1) if theirs.ndim == 4 else theirs
    error = np.linalg.norm(np.maximum(np.abs(ours - theirs) - level, 0)) / np.linalg.norm(theirs)
    if not error < TOLERANCE[case.dtype]:
        raise ValueError(f"{case.name}: PyTorch's output differs by {error:.1e}: it is not the same network")


def _unet(subject: BenchModel, params: Any, device: str) -> tuple[Any, Callable[..., Any]]:
    """Returns their U-Net, and (module, x [b c h w], t, condition) -> y."""
    net = subject.unet
    if "cross" in (*net.attention, net.mid_attention):
        kind = "UNet2DConditionModel"
        json = subject.json.get("unet") or condition_json(net, subject.channels, subject.width, subject.pooled)
    else:
        kind, json = "UNet2DModel", pixel_json(net, subject.channels)
    module = _theirs(kind, json, net, params, device)
    p = net.patch

    def fold(x: Any) -> Any:
        b, c, h, w = x.shape
        return x.reshape(b, c, h // p, p, w // p, p).permute(0, 3, 5, 1, 2, 4).reshape(b, p * p * c, h // p, w // p)

    def unfold(y: Any) -> Any:
        b, c, h, w = y.shape
        return y.reshape(b, p, p, c // p**2, h, w).permute(0, 3, 4, 1, 5, 2).reshape(b, c // p**2, h * p, w * p)

    def call(network: Any, x: Any, t: Any, context: Any = None, mask: Any = None, **more: Any) -> Any:
        if context is not None:
            more |= {"encoder_hidden_states": context, "encoder_attention_mask": mask}
        x = fold(x) if p > 1 else x
        y = network(x, t, return_dict=False, **more)[0]
        return unfold(y) if p > 1 else y

    return module, call


def _condition(subject: BenchModel, fields: Mapping[str, Any], device: str) -> dict[str, Any]:
    """Returns what steers, under their names."""
    if subject.json and "pooled" in fields:
        raise NoPeerError("the U-Net of SDXL takes text and sizes apart: it has no peer here")
    names = {"context": "context", "context_mask": "mask", "label": "class_labels", "pooled": "class_labels"}
    return {names[name]: _tensor(value, device) for name, value in fields.items()}


def unet(subject: BenchModel, case: BenchProgram, device: str, compiled: Callable[[Any], Any]) -> Side:
    """Makes diffusers' U-Net."""
    import torch

    module, call = _unet(subject, case.arguments(0)[0], device)
    inputs = []
    for i in range(2):
        _, x, t, fields = case.arguments(i)
        times = torch.from_numpy(np.array(t)).to(device)  # in float32: 16 bits round 999 to 1000
        inputs.append((_tensor(x, device), times, _condition(subject, fields, device)))
    network = compiled(module)

    def run(i: int) -> Any:
        x, t, fields = inputs[i % 2]
        with torch.no_grad():
            return call(network, x, t, **fields)

    _same(case, run(0))
    return run


def text_encoder(subject: BenchModel, case: BenchProgram, device: str, compiled: Callable[[Any], Any]) -> Side:
    """Makes transformers' CLIP."""
    import torch

    if "text_encoder" not in subject.json:
        raise NoPeerError(f"the text encoder of {subject.name} is of our own kind and has no peer")
    assert subject.text is not None
    module = _theirs("CLIPTextModel", _text_json(subject), subject.text.config, case.arguments(0)[0], device)
    inputs = [_tensor(case.arguments(i)[1], device).long() for i in range(2)]
    network = compiled(module)

    def run(i: int) -> Any:
        with torch.no_grad():
            return network(inputs[i % 2]).last_hidden_state

    _same(case, run(0))
    return run


def _text_json(subject: BenchModel) -> dict[str, Any]:
    assert subject.text is not None
    return {"vocab_size": subject.text.config.vocabulary, **subject.json["text_encoder"]}


def decoder(subject: BenchModel, case: BenchProgram, device: str, compiled: Callable[[Any], Any]) -> Side:
    """Makes diffusers' KL autoencoder."""
    import torch

    assert subject.decoder is not None
    net = subject.decoder.config
    module = _theirs("AutoencoderKL", subject.json["vae"], net, case.arguments(0)[0], device)
    inputs = [_tensor(unscaled(net, case.arguments(i)[1]), device) for i in range(2)]
    decode = compiled(module.decode)

    def run(i: int) -> Any:
        with torch.no_grad():
            return decode(inputs[i % 2], return_dict=False)[0]

    _same(case, run(0))
    return run


def text_to_image(subject: BenchModel, case: BenchProgram, device: str, compiled: Callable[[Any], Any]) -> Side:
    """Makes diffusers' StableDiffusionPipeline, from our tokens and our first noise, without its progress bar."""
    import diffusers
    import torch

    if not subject.json or "text_encoder_2" in subject.json:
        raise NoPeerError(f"text-to-image of {subject.name} has no peer in PyTorch here: there is one for sd1 and sd2")
    params, plan = case.arguments(0)[0]
    assert subject.decoder is not None
    assert subject.text is not None
    nets = {"unet": subject.unet, "vae": subject.decoder.config, "text_encoder": subject.text.config}
    json = {**subject.json, "text_encoder": _text_json(subject)}
    parts: dict[str, Any] = {
        name: _theirs(KINDS[name], json[name], net, params[name], device) for name, net in nets.items()
    }
    parts["unet"] = compiled(parts["unet"])
    pipe: Any = diffusers.StableDiffusionPipeline(
        **parts,
        scheduler=diffusers.DDIMScheduler.from_config(SCHEDULER),
        tokenizer=None,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    inputs = []
    for i in range(2):
        batch = case.arguments(i)[1]
        ids = [_tensor(batch[way]["text"]["text_encoder"][0][:, 0], device).long() for way in ("prompt", "negative")]
        noise = unit_noise(batch["keys"], FIRST, (subject.side, subject.side, subject.channels))
        inputs.append((torch.cat(ids), _tensor(noise, device)))

    def run(i: int) -> Any:
        ids, noise = inputs[i % 2]
        with torch.no_grad():
            prompt, negative = parts["text_encoder"](ids).last_hidden_state.chunk(2)
        return pipe(
            prompt_embeds=prompt,
            negative_prompt_embeds=negative,
            latents=noise,
            height=8 * subject.side,
            width=8 * subject.side,
            num_inference_steps=case.calls,
            guidance_scale=float(plan.table.aux["guidance"][0]),
            output_type="pt",
        ).images

    _same(case, 255 * run(0))
    return run


def has_train_step(experiment: Any) -> bool:
    """Returns whether a step of the run is written below: the plain error, no condition, and Adam."""
    process = getattr(experiment.task, "process", None)
    if process is None or process.times not in ("uniform", "steps") or process.variance == "learned":
        return False
    plain = type(process)()
    free = ("schedule", "prediction", "clip", "times", "variance")  # what costs nothing, or is sampling's alone
    same = dataclasses.replace(process, **{name: getattr(plain, name) for name in free})
    return same == plain and process.prediction in ("eps", "x0", "v") and experiment.optimizer.name != "sgd"


def train_step(subject: BenchModel, case: BenchProgram, device: str, compiled: Callable[[Any], Any]) -> Side:
    """Makes noise, forward, backward, clipping, (fused) Adam and average of the weights, as in a step of ours.

    In 16 bits only the network computes, by autocast: the weights are float32 here and there.
    """
    import torch

    narrow = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)

    config = subject.experiment
    assert config is not None
    if subject.tokens or subject.unet.labels or not has_train_step(config):
        raise NoPeerError(
            f"the train step of {subject.name} has no peer: it is written for a U-Net without condition, the plain "
            "error and Adam, such as cifar10"
        )
    process: Any = getattr(config.task, "process", None)
    state = case.arguments(0)[0]
    module, call = _unet(subject, state.params["unet"], device)
    module.train()
    network, params = compiled(module), list(module.parameters())
    average = [p.detach().clone() for p in params]
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimizer.name]
    o = config.optimizer
    decay = {"weight_decay": o.weight_decay} if o.name == "adamw" else {}
    adam = kind(params, o.lr, (o.b1, o.b2), o.eps, fused=True, **decay)
    pictures = [_tensor(case.arguments(i)[1]["image"], device) for i in range(2)]
    schedule = process.make_schedule()
    times = (np.arange(1000) + 1) / 1000
    alpha, sigma = (_tensor(f(times).astype(np.float32), device) for f in (schedule.alpha, schedule.sigma))

    def run(i: int) -> None:
        x0 = pictures[i % 2].float() / 127.5 - 1
        t, eps = torch.randint(1000, (len(x0),), device=device), torch.randn_like(x0)
        a, s = alpha[t, None, None, None], sigma[t, None, None, None]
        target = {"eps": eps, "x0": x0, "v": a * eps - s * x0}[process.prediction]
        with torch.autocast(device, narrow, enabled=narrow != torch.float32):
            output = call(network, a * x0 + s * eps, t)
        loss = ((output.float() - target) ** 2).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, o.clip or float("inf"))
        adam.step()
        adam.zero_grad()
        torch._foreach_lerp_(average, params, 1 - config.ema)
        torch.stack(torch._foreach_norm(params)).norm()
        loss.item()

    return run


PEERS: dict[str, Callable[[BenchModel, BenchProgram, str, Callable[[Any], Any]], Side]] = {
    "unet": unet,
    "train-step": train_step,
    "text-encoder": text_encoder,
    "decoder": decoder,
    "text-to-image": text_to_image,
}
