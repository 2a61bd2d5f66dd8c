"""The samplers, one family a file: each a function from (schedule, times) to a `Table`."""
