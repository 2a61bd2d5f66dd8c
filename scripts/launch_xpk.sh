#!/usr/bin/env bash
# Trains on TPU slices of a GKE cluster through xpk; several slices make one run:
#   scripts/launch_xpk.sh CLUSTER WORKLOAD IMAGE TPU_TYPE SLICES CONFIG.py [options of jaxdiff train]
# IMAGE holds the package and the config; TPU_TYPE is such as v5litepod-256. LAUNCH=echo prints the command instead.
set -euo pipefail
[ $# -ge 6 ] || { sed -n '2,4s/^# //p' "$0" >&2; exit 2; }
cluster=$1 workload=$2 image=$3 type=$4 slices=$5
shift 5
command="jaxdiff train $(printf '%q ' "$@")--distributed auto"
${LAUNCH:-} xpk workload create --cluster "$cluster" --workload "$workload" --docker-image "$image" --tpu-type "$type" \
  --num-slices "$slices" --command "$command"
