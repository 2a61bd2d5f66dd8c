"""From prompts to pictures: text encoder, guided loop and conversion to uint8 in one compiled program."""

from collections.abc import Sequence
from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import UInt8

from jaxdiff import sampling
from jaxdiff.data.tokenizer import BytePair
from jaxdiff.parallel import MeshSpec
from jaxdiff.parallel.spread import Spread
from jaxdiff.tasks.picture import SCHEDULES, Model, make_sample
from jaxdiff.typing import Key, Params


class Pipeline:
    """A model of this library's own training, ready to sample.

    Weights, tokens, guidance, table and keys are arguments of one program: another prompt, seed, guidance, eta, or
    sampler with the same number of network calls compiles nothing.
    """

    def __init__(
        self,
        model: Model,
        params: Params,
        vocabulary: BytePair | None = None,
        labels: Sequence[str] = (),
        spec: MeshSpec | Literal["pmap"] = MeshSpec(),
    ):
        """Takes the model's numbers and weights, its vocabulary or class names, and how devices share a batch."""
        self.model, self.params, self.vocabulary, self.labels = model, params, vocabulary, tuple(labels)
        self.schedule = SCHEDULES[model.process.schedule]()
        sample = make_sample(model)
        self._run = Spread(lambda whole, batch: sample(*whole, **batch), spec)

    def __call__(
        self,
        prompts: str | Sequence[str],
        *,
        key: Key,
        steps: int = 20,
        sampler: str = "ddim",
        guidance: float = 3.0,
        negative: str = "",
        eta: float | None = None,
        init_noise: np.ndarray | None = None,
    ) -> UInt8[np.ndarray, "b h w 3"]:
        """Pictures, one for each prompt (a class name where the model knows classes; ignored where it knows nothing).

        Args:
          prompts: what to show.
          key: one key, split over the pictures, or keys [b].
          steps: network calls for samplers that make one a step.
          sampler: a name in `sampling.SAMPLERS`.
          guidance: 1 follows the model's own distribution, more follows the prompt more closely.
          negative: what to keep away from.
          eta: noise added at each step, where the sampler has it: 0 none, 1 as DDPM.
          init_noise: [b h w 3] unit Gaussian, instead of noise from the keys.

        Raises:
          ValueError: for an unknown sampler or class, or steps it cannot make.
        """
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        if not prompts:
            raise ValueError("no prompt was given: pass at least one")
        options: dict[str, Any] = {} if eta is None else {"eta": eta}
        table = sampling.make_table(sampler, self.schedule, steps, **options)
        table = sampling.with_aux(table, guidance=guidance)
        batch = {
            "inputs": self.inputs(prompts),
            "negative": self.inputs([negative] * len(prompts)),
            "keys": key if key.ndim else jax.random.split(key, len(prompts)),
        }
        if init_noise is not None:
            shape = (len(prompts), self.model.size, self.model.size, 3)
            if init_noise.shape != shape:
                raise ValueError(
                    f"init_noise has shape {init_noise.shape}, expected {shape}: [pictures, height, width, 3]"
                )
            batch["noise"] = init_noise.astype(np.float32)
        table = jax.tree.map(lambda x: np.asarray(x, np.float32), table)
        return self._run((self.params, table), batch)

    def cut(self, prompt: str) -> str:
        """The end of a prompt that is too long for the model and is not seen by it; '' if all is."""
        return self.vocabulary.cut(prompt, self.model.text.length)[1] if self.vocabulary else ""

    def inputs(self, prompts: Sequence[str]) -> dict[str, np.ndarray]:
        """What the model is told for each prompt: token ids [b l], a class [b], or nothing.

        Raises:
          ValueError: for a class that it does not know.
        """
        if self.model.process.condition == "text":
            assert self.vocabulary is not None
            return {"tokens": np.stack([self.vocabulary.encode(p, self.model.text.length) for p in prompts])}
        if self.model.process.condition == "class":
            return {"label": np.array([self._label(p) for p in prompts], np.int32)}
        return {}

    def _label(self, prompt: str) -> int:
        if prompt in self.labels:
            return self.labels.index(prompt)
        if not prompt:
            return self.model.unet.labels
        raise ValueError(f"{prompt!r} is no class of this model: expected one of {', '.join(self.labels)}")

    def compiled(self) -> int:
        """How many programs have been compiled for this pipeline."""
        return self._run.compiled()
