"""The loss of a `process.ProcessConfig`: each objective composed of its parts, in the one form that training calls."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import jax
from jaxtyping import Array

from jaxdiff.diffusion import coupling, distill, draws, loss, prediction, process_check, times, variance, vdm
from jaxdiff.diffusion.schedule import Schedule
from jaxdiff.typing import Cond, Key, Metrics, Network, Params

if TYPE_CHECKING:
    from jaxdiff.diffusion.process import ProcessConfig


@runtime_checkable
class Known(Protocol):
    """The arrays that a loss may read beside the parameters."""

    @property
    def frozen(self) -> Any:
        """Gives constant arrays."""

    @property
    def extra(self) -> Any:
        """Arrays that `absorb` moves."""

    @property
    def ema(self) -> Any:
        """Returns the average of the parameters."""

    @property
    def step(self) -> Any:
        """Updates done before this one."""


Objective = Callable[..., tuple[Array, Metrics, Any]]
"""(params, known, x0 [b ...], cond, keys [b], teacher_cond=None) -> (mean loss [], metrics, stats)."""

TeacherCond = Callable[[Any], Cond] | None
"""From the teacher's parameters to its condition, where that is made of them; None: the student's condition."""


def make(c: "ProcessConfig", network: Network, teacher: Network) -> Objective:
    """Makes the loss of a config; `teacher` applies a teacher's parameters."""
    if c.objective == "bound":
        return _bound(c, network)
    if c.objective == "progressive":
        return _progressive(c, network, teacher)
    if c.objective == "denoising":
        return _denoising(c, network)
    return _consistency(c, network, teacher)


def _denoising(c: "ProcessConfig", network: Network) -> Objective:
    schedule, noise, at = c.make_schedule(), _NOISE[c.coupling], None
    if c.offset_noise:
        noise = loss.offset(noise, c.offset_noise)
    if c.variance == "learned":
        each = variance.hybrid(network, schedule, c.prediction, c.steps, weight_of(c), noise, bins=c.bins or None)
    else:
        each = loss.denoising(network, schedule, c.prediction, weight_of(c), noise, c.input_perturbation)
    at = time_sampler(c, schedule)

    def f(params: Params, known: Known, x0: Array, cond: Cond, keys: Key, teacher_cond: TeacherCond = None) -> Any:
        u = draws.uniform(keys)
        if c.times != "importance":
            return _means(u, each(params, x0, at(u), cond, keys), {}, {})
        history = known.extra["importance"]
        i, counts = history.draw(u)
        u = (i - 0.5) / c.steps
        losses = each(params, x0, at(u), cond, keys)
        return _means(u, counts * losses, {}, {"importance": history.stats(i, jax.lax.stop_gradient(losses))})

    return f


def _bound(c: "ProcessConfig", network: Network) -> Objective:
    each = vdm.bound_loss(network, c.prediction, c.bins or None)

    def f(params: Params, known: Known, x0: Array, cond: Cond, keys: Key, teacher_cond: TeacherCond = None) -> Any:
        u = draws.uniform(keys)
        terms = each(params, c.make_schedule(params), x0, u, cond, keys)
        return _means(u, terms.total, {name: term.mean() for name, term in terms._asdict().items()}, {})

    return f


def _consistency(c: "ProcessConfig", network: Network, teacher: Network) -> Objective:
    schedule, span = c.make_schedule(), process_check.span(c)
    position = lambda u: u
    if c.times == "log_normal":
        position = lambda u: distill.log_normal_position(schedule, u, **_spread(c))
    each = distill.consistency(network, schedule, position)

    def f(params: Params, known: Known, x0: Array, cond: Cond, keys: Key, teacher_cond: TeacherCond = None) -> Any:
        u, taught = draws.uniform(keys), None
        if c.objective == "consistency_distillation":
            own = known.frozen["teacher"]
            condition = cond if teacher_cond is None else teacher_cond(own)
            taught = prediction.denoiser(teacher, own, condition, schedule, c.prediction)
        count = distill.intervals(known.step, c.stage, *span)
        losses = each(params, known.ema if c.target == "average" else params, x0, u, cond, keys, count, taught)
        return _means(u, losses, {"intervals": count}, {})

    return f


def _progressive(c: "ProcessConfig", network: Network, teacher: Network) -> Objective:
    schedule, span = c.make_schedule(), process_check.span(c)
    each = distill.progressive(network, schedule, c.prediction, weight_of(c))

    def f(params: Params, known: Known, x0: Array, cond: Cond, keys: Key, teacher_cond: TeacherCond = None) -> Any:
        u = draws.uniform(keys)
        before = distill.teacher(params, known.extra["teacher"], known.step, c.stage, *span)
        condition = cond if teacher_cond is None else jax.lax.stop_gradient(teacher_cond(before))
        taught = prediction.denoiser(teacher, before, condition, schedule, c.prediction)
        count = distill.intervals(known.step, c.stage, *span)
        losses = each(params, taught, x0, u, cond, keys, count)
        return _means(u, losses, {"student_steps": count}, {"teacher": before})

    return f


_NOISE: dict[str, loss.NoiseSampler] = {
    "independent": loss.independent,
    "nearest": coupling.nearest,
    "optimal_transport": coupling.optimal_transport,
}


def weight_of(c: "ProcessConfig") -> loss.Weight | None:
    """Returns the weight of the squared error; None for the plain error of the output."""
    if c.weight == "simple":
        return None
    return getattr(loss, c.weight)(*(() if c.weight_number is None else (c.weight_number,)))


def time_sampler(c: "ProcessConfig", schedule: Schedule) -> times.TimeSampler:
    """Returns the function that says where to train; for importance, where its steps lie."""
    if c.times == "uniform":
        return times.uniform(schedule.first)
    if c.times in ("steps", "importance"):
        return times.levels(c.steps) if c.schedule == "ve" else times.steps(c.steps)
    if c.times == "mode":
        return times.mode()
    return times.log_normal(schedule, **_spread(c)) if c.times == "log_normal" else times.logit_normal(**_spread(c))


def _spread(c: "ProcessConfig") -> dict[str, float]:
    numbers = {"mean": c.time_mean, "std": c.time_std}
    return {name: number for name, number in numbers.items() if number is not None}


def _means(u: Array, losses: Array, metrics: Metrics, stats: Any) -> tuple[Array, Metrics, Any]:
    return losses.mean(), {**times.by_quarter(u, losses), **metrics}, stats
