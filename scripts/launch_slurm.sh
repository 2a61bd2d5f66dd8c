#!/usr/bin/env bash
#SBATCH --job-name=jaxdiff
#SBATCH --ntasks-per-node=1
#SBATCH --signal=TERM@120
#SBATCH --requeue
# Trains on nodes of a SLURM cluster, one process a node; the SIGTERM before its end saves, and a requeued job resumes:
#   sbatch --nodes 4 --gpus-per-node 8 scripts/launch_slurm.sh CONFIG.py [options of jaxdiff train]
# LAUNCH=echo prints the command instead.
set -euo pipefail
[ $# -ge 1 ] || { sed -n '6,8s/^# //p' "$0" >&2; exit 2; }
${LAUNCH:-} srun --kill-on-bad-exit=1 jaxdiff train "$@" --distributed auto
