"""Other tools' checkpoints, read and written through tables of names."""
