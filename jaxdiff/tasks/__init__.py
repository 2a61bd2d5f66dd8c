"""Where network, objective, conditioning and data meet: a configuration becomes a `Task`."""
