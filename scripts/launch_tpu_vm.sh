#!/usr/bin/env bash
# Trains on all workers of a Cloud TPU VM (a slice of one host or many):
#   scripts/launch_tpu_vm.sh TPU_NAME ZONE CONFIG.py [options of jaxdiff train]
# The package and the config must lie in ~/jaxdiff of every worker; --workdir should be a disk that all of them see.
# LAUNCH=echo prints the command instead.
set -euo pipefail
[ $# -ge 3 ] || { sed -n '2,5s/^# //p' "$0" >&2; exit 2; }
name=$1 zone=$2
shift 2
command="cd ~/jaxdiff && jaxdiff train $(printf '%q ' "$@")--distributed auto"
${LAUNCH:-} gcloud compute tpus tpu-vm ssh "$name" --zone "$zone" --worker all --command "$command"
