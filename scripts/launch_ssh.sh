#!/usr/bin/env bash
# Trains on hosts that ssh reaches, one process each, the first of them process 0; ends when all have, with their worst status:
#   scripts/launch_ssh.sh HOST,HOST,... PORT CONFIG.py [options of jaxdiff train]
# Each host must have the package, and this folder at the same path; --workdir must be a disk that all see.
# LAUNCH=echo prints the commands instead.
set -uo pipefail
[ $# -ge 3 ] || { sed -n '2,5s/^# //p' "$0" >&2; exit 2; }
IFS=, read -ra hosts <<<"$1"
port=$2 status=0 children=()
shift 2
for index in "${!hosts[@]}"; do
  command="cd $(printf %q "$PWD") && jaxdiff train $(printf '%q ' "$@")--distributed ${hosts[0]}:$port,${#hosts[@]},$index"
  ${LAUNCH:-} ssh -o BatchMode=yes "${hosts[$index]}" "$command" &
  children+=($!)
done
trap 'kill "${children[@]}" 2>/dev/null' INT TERM
for child in "${children[@]}"; do wait "$child" || status=$?; done
exit "$status"
