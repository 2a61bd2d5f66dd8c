"""Runs `jaxdiff ARGS` as one of two processes: launch.py PORT INDEX ARGS."""

import sys

import jax

if __name__ == "__main__":
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{sys.argv[1]}", num_processes=2, process_id=int(sys.argv[2]))
    from jaxdiff.cli.main import main

    main(sys.argv[3:])
