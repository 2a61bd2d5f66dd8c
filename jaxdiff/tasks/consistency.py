"""The numbers of latent consistency, of a student on pixels (`picture_lcm`) and of a published one (`lcm`)."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConsistencyNumbers:
    """The numbers of `diffusion.distill.latent_consistency`.

    Attributes:
      intervals: intervals of the grid that neighbours lie on; the teacher's DDIM takes so many steps.
      huber: c of the distance sqrt(d^2 + c^2) - c.
      scaling: scaling of the timestep in the boundary condition.
    """

    intervals: int = 50
    huber: float = 1e-3
    scaling: float = 10.0

    def check_numbers(self, steps: int, of: str) -> None:
        """Refuses numbers that do not fit a process of `steps` trained steps, which an error calls `of`.

        Raises:
          ValueError: names the field.
        """
        if not 1 <= self.intervals <= steps or steps % self.intervals:
            raise ValueError(f"task.intervals is {self.intervals}: expected a divisor of {of}")
        for name in ("huber", "scaling"):
            if not 0 < getattr(self, name) < 1e6:
                raise ValueError(f"task.{name} is {getattr(self, name)}: expected a number above 0")
