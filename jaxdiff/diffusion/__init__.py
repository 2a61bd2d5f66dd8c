"""The mathematics of diffusion: schedules, predictions, losses, guidance, exact solutions. No Flax, no optax."""
