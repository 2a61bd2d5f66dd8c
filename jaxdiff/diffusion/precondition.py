"""EDM's preconditioning, written for any schedule.

With z = x_t / alpha = x_0 + s eps and s = sigma / alpha, Karras et al. (2022, arXiv 2206.00364, section 5 and table 1)
want a network F whose input and whose target have unit variance when the data have standard deviation sigma_data:

    x0 = c_skip z + c_out F(c_in z),   c_in = 1 / sqrt(s^2 + sigma_data^2)
    c_skip = sigma_data^2 / (s^2 + sigma_data^2),   c_out = s sigma_data / sqrt(s^2 + sigma_data^2).

Multiplied through by alpha, with n = sqrt(sigma^2 + alpha^2 sigma_data^2), they are functions of x_t itself that stay
finite where alpha is 0:

    x0 = skip x_t + out F(scale x_t),   scale = 1 / n,   skip = alpha sigma_data^2 / n^2,   out = sigma sigma_data / n.

A consistency model must map the smallest level s_min to itself. It shifts both factors there (`consistency`):

    c_skip = sigma_data^2 / ((s - s_min)^2 + sigma_data^2),   c_out = (s - s_min) sigma_data / sqrt(s^2 + sigma_data^2).
"""

from typing import Any, NamedTuple


class Scalings(NamedTuple):
    """x0 = skip x_t + out F(scale x_t)."""

    skip: Any
    out: Any
    scale: Any


def edm(alpha: Any, sigma: Any, sigma_data: float = 0.5) -> Scalings:
    """Returns the three scalings at the given alpha and sigma, of any shape."""
    square = sigma**2 + (alpha * sigma_data) ** 2
    return Scalings(alpha * sigma_data**2 / square, sigma * sigma_data / square**0.5, 1 / square**0.5)


def consistency(alpha: Any, sigma: Any, sigma_min: float = 0.002, sigma_data: float = 0.5) -> Scalings:
    """Returns the scalings under which D is the identity at sigma / alpha = sigma_min, whatever F says.

    Source: Song et al. 2023, arXiv 2303.01469, appendix C.
    """
    beyond = sigma - alpha * sigma_min
    norm = (sigma**2 + (alpha * sigma_data) ** 2) ** 0.5
    skip = alpha * sigma_data**2 / (beyond**2 + (alpha * sigma_data) ** 2)
    return Scalings(skip, beyond * sigma_data / norm, 1 / norm)
