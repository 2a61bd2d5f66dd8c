"""Quality and speed, measured: arithmetic on features, pixels and vectors, in float64 on the host."""
