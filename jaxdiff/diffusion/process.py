"""A diffusion process and its objective as plain numbers and names: what a config file holds, and what training calls.

`ProcessConfig` composes the parts of this folder. Training calls four of its methods, sampling four others:

    init_params, init_extra    what the objective adds to a model's parameters, and to the arrays that a rule moves
    loss                       (params, known, x0, cond, keys) -> (loss, metrics, stats)
    absorb                     (extra, stats) -> extra, once a step, after the stats were averaged
    make_schedule, denoiser    the process, and x0 from x_t
    sampler, grid, options     how to sample what was trained, by the names of `sampling`

**Arrays.** Everything that is learned, kept or moved lives in trees of the run, by these names:

    params["schedule"]    the learned schedule's parameters                   (schedule = learned)
    extra["importance"]   the last losses of each trained step                (times = importance)
    extra["teacher"]      the parameters of the teacher of this stage         (objective = progressive)
    frozen["teacher"]     the parameters of the teacher                       (objective = consistency_distillation)

**Metrics.** A loss returns its mean, and `loss_q0` to `loss_q3`, the mean loss in each quarter of the distribution of
times from the least to the most noisy (`times`). All are plain means over examples, so they may be averaged over
devices and parts of a batch; so may `stats`.

**Progressive distillation.** extra["teacher"] starts as the teacher's parameters. The first update of each later stage
takes the student's own parameters for its teacher and hands them on through `stats` and `absorb`: the teacher of a
stage is the student as it was when the stage began, whatever steps are saved and resumed.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from jaxdiff.diffusion import denoiser as denoisers
from jaxdiff.diffusion import learned, objective, prediction, process_check, schedule
from jaxdiff.diffusion.denoiser import Says
from jaxdiff.diffusion.importance import importance
from jaxdiff.diffusion.objective import Objective
from jaxdiff.diffusion.schedule import Schedule
from jaxdiff.typing import Cond, Denoise, Key, LearnedDenoise, Network, Params


@dataclasses.dataclass(frozen=True)
class ProcessConfig:
    """The process, what the network predicts, and the objective that it is trained by.

    A number that is None has the value of the paper. A field that the chosen names do not read must be left as it is.

    Attributes:
      objective: `denoising` covers DDPM, score matching, EDM and flow matching, which differ in the other fields;
        `bound` is the variational bound itself (VDM); `consistency_training`, `consistency_distillation` and
        `progressive` train few-step students, the last two from a teacher.
      schedule: how signal and noise change with time.
      zero_terminal: rescale the trained steps so that the last one has no signal (Lin et al. 2023).
      steps: number of trained steps, for discrete schedules and for `times` that are drawn from them.
      shift: shift of `flow` (above 1: more time in noise) and of `shifted_cosine` (below 1: more noise).
      beta_min: first variance of linear, scaled_linear and sigmoid; beta at t = 0 of vp and sub_vp.
      beta_max: last variance of linear, scaled_linear and sigmoid; beta at t = 1 of vp and sub_vp.
      sigma_min: smallest noise level of ve.
      sigma_max: largest noise level of ve and edm.
      prediction: quantity that the network outputs.
      weight: weight of the squared error by log-SNR; `simple` is the plain error of the output.
      weight_number: gamma of min_snr and p2, cap of capped_v, bias of sigmoid.
      times: distribution of the training times. `steps` draws trained steps (for ve NCSN's geometric levels);
        `importance` draws them by their latest losses.
      time_mean: mean of log_normal (the noise level's logarithm) and logit_normal (the logit of t).
      time_std: standard deviation of the same two.
      coupling: how noise is paired with the pictures of a batch.
      offset_noise: scale of additional noise that all positions of a channel share.
      input_perturbation: scale of additional noise in the network's input that is not part of its target.
      variance: variance of an ancestral sampling step; `learned` doubles the network's channels and trains the second
        half by the hybrid loss.
      bins: number of levels of the data, for objectives with a bound; 0 for continuous data.
      intervals: (first, last) number of grid intervals of a consistency objective, which doubles, or of steps of a
        progressive student, which halves.
      stage: updates between two such changes.
      target: parameters of a consistency loss's target: the student's own, or their average.
      clip: estimates of x0 are clipped to [-clip, clip] in sampling; None for data without such limits.
    """

    objective: Literal["denoising", "bound", "consistency_training", "consistency_distillation", "progressive"] = (
        "denoising"
    )
    schedule: Literal[
        "linear",
        "scaled_linear",
        "cosine",
        "sigmoid",
        "sigmoid_signal",
        "shifted_cosine",
        "vp",
        "sub_vp",
        "ve",
        "edm",
        "flow",
        "learned",
    ] = "cosine"
    zero_terminal: bool = False
    steps: int = 1000
    shift: float = 1.0
    beta_min: float | None = None
    beta_max: float | None = None
    sigma_min: float | None = None
    sigma_max: float | None = None
    prediction: Literal["eps", "x0", "v", "score", "flow", "edm"] = "eps"
    weight: Literal["simple", "snr", "min_snr", "v", "capped_v", "truncated_snr", "p2", "edm", "sigmoid"] = "simple"
    weight_number: float | None = None
    times: Literal["uniform", "steps", "importance", "log_normal", "logit_normal", "mode"] = "uniform"
    time_mean: float | None = None
    time_std: float | None = None
    coupling: Literal["independent", "nearest", "optimal_transport"] = "independent"
    offset_noise: float = 0.0
    input_perturbation: float = 0.0
    variance: Literal["small", "large", "learned"] = "small"
    bins: int = 256
    intervals: tuple[int, int] | None = None
    stage: int = 50_000
    target: Literal["student", "average"] = "student"
    clip: float | None = 1.0

    def check(self) -> None:
        """Refuses what does not fit together.

        Raises:
          ValueError: for a name or number outside its range, a field that nothing reads, or choices that exclude each
            other; says what to set.
        """
        process_check.check(self)
        if self.schedule != "learned":
            prediction.check(self.prediction, self.make_schedule())

    def make_schedule(self, params: Params | None = None) -> Schedule:
        """Returns the noise schedule; a learned one is made of `params["schedule"]`."""
        if self.schedule == "learned":
            if params is None:
                raise ValueError("the learned schedule is part of the parameters: pass them to make_schedule")
            return learned.Learned(**params["schedule"])
        numbers = process_check.numbers(self)
        found: Schedule = getattr(schedule, self.schedule)(**numbers)
        if self.zero_terminal:
            assert isinstance(found, schedule.Discrete)
            return schedule.zero_terminal(found)
        return found

    def out_channels(self, channels: int) -> int:
        """Returns the channels of the network's output, for x0 of `channels`."""
        return 2 * channels if self.variance == "learned" else channels

    def init_params(self, key: Key) -> Params:
        """Returns parameters of the process itself, to be merged with the network's: {} or {"schedule": ...}."""
        return {"schedule": learned.init(key)} if self.schedule == "learned" else {}

    def init_extra(self, teacher: Params | None = None) -> dict[str, Any]:
        """Arrays that `absorb` moves; the progressive objective starts from the parameters of `teacher`."""
        if self.objective == "progressive":
            if teacher is None:
                raise ValueError("the progressive objective starts from a teacher: pass its parameters to init_extra")
            return {"teacher": teacher}
        return {"importance": importance(self.steps)} if self.times == "importance" else {}

    def absorb(self, extra: Mapping[str, Any], stats: Mapping[str, Any]) -> Mapping[str, Any]:
        """Moves this objective's arrays in `extra` by the stats of one step; leaves all others alone."""
        if self.objective == "progressive":
            return {**extra, "teacher": stats["teacher"]}
        if self.times == "importance":
            return {**extra, "importance": extra["importance"].absorb(stats["importance"])}
        return extra

    def loss(self, network: Network, teacher: Network | None = None) -> Objective:
        """Returns a function (params, known, x0, cond, keys [b], teacher_cond=None) -> (mean loss, metrics, stats).

        Args:
          network: what is trained, a function of all parameters; it may draw dropout.
          teacher: the same network without dropout, for a teacher's parameters; by default `network`.

        `teacher_cond` makes the teacher's condition of its parameters; by default it is `cond`.
        """
        return objective.make(self, network, teacher or network)

    def denoiser(
        self, network: Network, params: Params, cond: Cond, null: Cond | None = None
    ) -> Denoise | LearnedDenoise:
        """Returns a function (x_t, t, aux) -> x0 in float32: what samplers call; they clip it as `clip` says.

        With `null`, the condition to keep away from, it is guided by `aux["guidance"]`.
        """
        return denoisers.make(network, params, cond, null, self.make_schedule(params), self.prediction, self.says)

    @property
    def says(self) -> Says:
        """Tells what the trained network says beside or instead of its prediction."""
        if self.objective in process_check.CONSISTENCY:
            return "consistency"
        return "variance" if self.variance == "learned" else "prediction"

    def sampler(self) -> str:
        """Returns the sampler for what was trained, a name in `sampling.SAMPLERS`."""
        if self.objective in process_check.CONSISTENCY:
            return "consistency"
        if self.variance != "small":
            return "ddpm"
        return {"ve": "heun", "edm": "heun", "flow": "flow_euler"}.get(self.schedule, "ddim")

    def grid(self) -> str:
        """Returns the grid of times for what was trained, a name in `sampling.grid.GRIDS`."""
        if self.objective in process_check.CONSISTENCY:
            return "few_steps"
        return "karras" if self.schedule in ("ve", "edm") else "trailing"

    def options(self) -> dict[str, Any]:
        """Returns options of `sampler`."""
        if self.objective in process_check.CONSISTENCY:
            return {"sigma_min": 0.002}
        return {"variance": self.variance} if self.sampler() == "ddpm" else {}
