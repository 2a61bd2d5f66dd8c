"""Points on the torus and the sphere, of laws whose densities are known: three bumps each, to learn from without data.

On the torus a bump is a Gaussian wound around it, of angles in [-pi, pi); on the sphere it is von Mises' and Fisher's,

    p(x) = k / (2 pi (1 - exp(-2 k))) exp(k (c x - 1)),    c x = 1 + log(u + (1 - u) exp(-2 k)) / k,  u uniform.

Maps have cells of equal area: two angles, or the longitude and the height over the equator.

Source: Ulrich 1984, Applied Statistics 33 (how to draw from von Mises' and Fisher's law).
"""

import functools

import numpy as np
from jaxtyping import Float

VARIANCE, K = 0.2, 10.0
"""How wide the bumps are: of the torus in each angle, and of the sphere."""
CENTERS = {
    "torus": np.array([[2.6, -2.0], [-0.4, 0.6], [-2.8, 2.9]]),
    "sphere": np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [-0.6, 0.64, -0.48]]),
}
"""The middle of each bump; those of the torus are near its seams."""
AREA = {"torus": 4 * np.pi**2, "sphere": 4 * np.pi}


def draw(space: str, rng: np.random.Generator) -> Float[np.ndarray, " d"]:
    """Draws a point."""
    center = CENTERS[space][rng.integers(len(CENTERS[space]))]
    noise = rng.standard_normal(len(center))
    if space == "torus":
        return np.mod(center + np.sqrt(VARIANCE) * noise + np.pi, 2 * np.pi) - np.pi
    u = rng.uniform()
    c = 1 + np.log(u + (1 - u) * np.exp(-2 * K)) / K
    along = noise - noise @ center * center
    return c * center + np.sqrt(1 - c * c) * along / np.linalg.norm(along)


def density(space: str, x: Float[np.ndarray, "*n d"]) -> Float[np.ndarray, "*n"]:
    """Returns the density of points, by area."""
    if space == "torus":
        off = x[..., None, None, :] - CENTERS[space][:, None] + 2 * np.pi * np.arange(-2, 3)[:, None]
        return (np.exp(-off * off / (2 * VARIANCE)).sum(-2) / np.sqrt(2 * np.pi * VARIANCE)).prod(-1).mean(-1)
    bumps = np.exp(K * (x @ CENTERS[space].T - 1))
    return K / (2 * np.pi * (1 - np.exp(-2 * K))) * bumps.mean(-1)


def counted(space: str, x: Float[np.ndarray, "n d"], side: int) -> Float[np.ndarray, "side side"]:
    """Returns the part of the points that lies in each cell of a map."""
    across = x[:, 0] if space == "torus" else np.arctan2(x[:, 1], x[:, 0])
    up = x[:, 1] / np.pi if space == "torus" else x[:, 2]
    ends = np.linspace(-1, 1, side + 1)
    return np.histogram2d(-up, across / np.pi, (ends, ends))[0] / len(x)


@functools.cache
def exact(space: str, side: int) -> Float[np.ndarray, "side side"]:
    """Returns the probability of each cell of a map, by the density at 512 points across and up, or more."""
    fine = -(-512 // side)
    at = (np.arange(side * fine) + 0.5) / (side * fine) * 2 - 1
    up, across = np.meshgrid(-at, np.pi * at, indexing="ij")
    if space == "torus":
        x = np.stack([across, np.pi * up], -1)
    else:
        round_ = np.sqrt(1 - up * up)
        x = np.stack([round_ * np.cos(across), round_ * np.sin(across), up], -1)
    cells = density(space, x).reshape(side, fine, side, fine).mean((1, 3))
    return cells * AREA[space] / side**2
