"""The networks, each a Flax Linen module that reads beside its paper."""
