"""Makes docs/samplers.md and its plot: every sampler's formula, paper, calls a step, and error on an exact problem.

    python scripts/samplers_page.py

The problem is a Gaussian N(1, 0.25) under the VP schedule. Its exact denoiser is affine in x, so a table moves
Gaussians to Gaussians, and their mean and covariance follow from its coefficients alone: the error, the 2-Wasserstein
distance of the result from the data, has no sampling noise in it, for deterministic and stochastic samplers alike.
"""
# ruff: noqa: RUF001  (Greek letters are what formulas are written in)

import inspect
import pathlib

import matplotlib
import numpy as np

from jaxdiff import sampling
from jaxdiff.diffusion import schedule
from jaxdiff.sampling import Table, grid

matplotlib.use("Agg")
import matplotlib.pyplot as plt

VP, MEAN, VARIANCE = schedule.vp(), 1.0, 0.25
DOCS = pathlib.Path(__file__).parents[1] / "docs"
STEPS = (5, 8, 12, 18, 27, 40, 60, 90)

# a = alpha, s = sigma / alpha, u = log(alpha / sigma), h the step in u, e the estimate of eps, ' the next time, n noise
FORMULAS = {
    "ddpm": "x' = a' D + (a σ'² / a' σ²)(x - a D) + sqrt(var) n",
    "ddim": "x' = a' D + sqrt(σ'² - η² var) e + η sqrt(var) n",
    "euler": "z' = z + (s' - s)(z - D) / s; in x it is ddim",
    "euler_ancestral": "Euler to sqrt(s'² - up²), then up n; in x it is ddim with η = 1",
    "heun": "z' = z + (s' - s)(d + d₂) / 2",
    "edm": "s lifted by 1 + γ with noise, then heun",
    "kdpm2": "z' = z + (s' - s) d₂ at sqrt(s s')",
    "kdpm2_ancestral": "kdpm2 to sqrt(s'² - up²), then up n",
    "dpmpp_2s_ancestral": "z' = (↓ / s) z + (1 - ↓ / s) D₂ + up n, ↓ = sqrt(s'² - up²)",
    "dpmpp_sde": "2S ancestral, its middle reached by an ancestral step too",
    "restart": "heun; from a low level back up by noise, and down again",
    "lms": "z' = z + ∫ P(e) ds, P through the last 4",
    "plms": "ddim with the mean of 4 e: (55, -59, 37, -9) / 24; first step twice",
    "pndm": "the same after three Runge-Kutta steps",
    "ipndm": "the same after steps of order 1, 2, 3",
    "dpm_solver": "x' = (a' / a) x - σ' (e^h - 1)(e + (e - e₋) / 2r)",
    "dpm_solver_single": "the same with the grid's points as Runge-Kutta stages",
    "dpmpp_2s": "x' = (σ' / σ) x - a' (e^-h - 1)(D + (D₂ - D) / 2r)",
    "dpmpp_2s_sde": "the same for the SDE, each half step with its noise",
    "dpmpp_2m": "x' = (σ' / σ) x - a' (e^-h - 1)(D + (D - D₋) / 2r)",
    "dpmpp_3m": "the same with one more estimate and half the second derivative",
    "dpmpp_2m_sde": "x' = (σ' / σ) e^-h x + a' (1 - e^-2h)(D + (D - D₋) / 2r) + σ' sqrt(1 - e^-2h) n",
    "dpmpp_3m_sde": "the same with one more estimate",
    "deis": "x' = (a' / a) x - σ' ∫ e^(h - u) P(e) du, P through the last 3",
    "unipc": "predict as dpmpp_2m, correct with the next call's D",
    "sa_solver": "the same for the SDE, ∫ e^-(1 + τ²)(h - u) P(D) du",
    "consistency": "x' = a' D + sqrt(σ'² - a'² σ_min²) n",
    "lcm": "x' = a' (c_out D + c_skip x) + σ' n",
    "tcd": "jump to (1 - η) t', then noise up to t'",
    "flow_euler": "x' = x + (σ' - σ)(x - D) / σ; it is ddim",
    "flow_heun": "x' = x + (σ' - σ)(v + v₂) / 2",
    "repaint": "ddpm, going back by noise again and again",
}


def final_moments(table: Table) -> tuple[float, float]:
    """Mean and deviation of the result, from the data's own noisy distribution at the first time."""
    alpha, sigma = VP.alpha(table.t), VP.sigma(table.t)
    total = alpha**2 * VARIANCE + sigma**2
    gain = alpha * VARIANCE / total  # D = MEAN + gain (x - alpha MEAN)
    mean, covariance = np.zeros(table.slots), np.zeros((table.slots, table.slots))
    mean[0], covariance[0, 0] = alpha[0] * MEAN, total[0]
    for n in range(table.calls):
        M = table.A[n].copy()
        M[:, 0] += table.b[n] * gain[n]
        mean = M @ mean + table.b[n] * MEAN * (1 - gain[n] * alpha[n])
        covariance = M @ covariance @ M.T + np.outer(table.c[n], table.c[n])
    return mean[0], np.sqrt(max(covariance[0, 0], 0))


def curve(name: str) -> tuple[list[int], list[float]]:
    """Calls and errors over the steps that the sampler takes, on Karras levels."""
    calls, errors = [], []
    for steps in STEPS:
        try:
            table = sampling.make_table(name, VP, steps, grid.karras(VP, steps))
        except ValueError:  # fewer steps than its order, or not its schedule
            continue
        mean, deviation = final_moments(table)
        calls.append(table.calls)
        errors.append(float(np.hypot(mean - MEAN, deviation - VARIANCE**0.5)))
    return calls, errors


def plot(curves: dict[str, tuple[list[int], list[float]]]) -> None:
    """docs/samplers.png: error against network calls, with and without noise."""
    figure, axes = plt.subplots(1, 2, figsize=(12, 5.4), sharey=True, constrained_layout=True)
    for axis, noisy, title in zip(axes, (False, True), ("deterministic", "stochastic"), strict=True):
        names = [n for n in curves if stochastic(n) == noisy]
        for k, name in enumerate(names):
            style = ("-", "--", ":")[k // 10]
            axis.loglog(*curves[name], style, marker=".", color=f"C{k % 10}", label=name, linewidth=1.2)
        axis.set_title(title)
        axis.set_xlabel("network calls")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7, ncol=2)
    axes[0].set_ylabel("2-Wasserstein distance from the data")
    figure.savefig(DOCS / "samplers.png", dpi=80)


def stochastic(name: str) -> bool:
    return bool(np.any(table_of(name, 10).c))


def table_of(name: str, steps: int) -> Table:
    return sampling.make_table(name, schedule.flow() if name == "flow_heun" else VP, steps)


def entry(name: str) -> str:
    """One row of the page."""
    make = sampling.SAMPLERS[name].make
    doc = " ".join(inspect.getdoc(make).split())
    source = doc[doc.index("Source: ") + 8 :].split(" Raises: ")[0].rstrip(".")
    options = ", ".join(list(inspect.signature(make).parameters)[2:]) or "-"
    more = (table_of(name, 20).calls - table_of(name, 10).calls) / 10
    return f"| `{name}` | {FORMULAS[name]} | {source} | {more:g} | {options} |"


def main() -> None:
    """Write the page and the plot."""
    curves = {name: curve(name) for name in sampling.SAMPLERS if name not in NOT_PLOTTED}
    plot(curves)
    rows = "\n".join(entry(name) for name in sampling.SAMPLERS)
    (DOCS / "samplers.md").write_text(PAGE.format(rows=rows, count=len(sampling.SAMPLERS)))


NOT_PLOTTED = ("consistency", "lcm", "tcd", "repaint", "flow_heun")
PAGE = """# Samplers

Made by `python scripts/samplers_page.py`. A sampler is a table of coefficients: {count} of them run in the same
compiled program, with `jaxdiff sample --sampler NAME`, or

```python
table = sampling.make_table("dpmpp_2m", schedule, steps=20, grid="karras")
x0 = sampling.run(table, denoise, x_init, key)
```

The letters: a = alpha, z = x / a, s = sigma / a, d = (z - D) / s, u = log(a / sigma), h the step in u, r = h₋ / h,
D the estimate of x0 and e that of the noise, a prime for the next time, ₋ for the last, ₂ for the second call of a
step, n for fresh noise. The module docstrings of `jaxdiff/sampling/solvers` have the derivations.

| name | formula | source | calls a step | options |
|---|---|---|---|---|
{rows}

Two samplers are not tables, because their step sizes depend on the network's output: the Langevin corrector
(`sampling.langevin.predictor_corrector`, Song et al. 2021, arXiv 2011.13456) and the adaptive ODE of
`sampling.ode.log_likelihood`. Annealed Langevin dynamics is a table, `sampling.langevin.annealed`.

## Error against network calls

![error against network calls](samplers.png)

The data are one Gaussian, N(1, 0.25), under the VP schedule on Karras levels, with the exact denoiser. It is affine, so
the mean and deviation of the result follow from the coefficients alone, and the error has no sampling noise. Not
shown: the samplers of distilled models (which need such a model), RePaint (DDPM here), inversion, and Heun for flows.
"""


if __name__ == "__main__":
    main()
