"""The train state, the pure train step, the loop around it, and checkpoints."""
