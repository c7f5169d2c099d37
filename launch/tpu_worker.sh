#!/usr/bin/env bash
# What launch/tpu_vm.sh calls on each worker of a TPU slice, in the directory that holds the code.
#
#   launch/tpu_worker.sh [--dry-run] train MAIN-FLAGS...   trains unless it does already; the exit status stays in `status`
#   launch/tpu_worker.sh [--dry-run] status                running, gone (killed, or the machine started anew) or the exit status
#   launch/tpu_worker.sh [--dry-run] follow LINES          the log's last LINES, then what comes, until training has ended
#   launch/tpu_worker.sh [--dry-run] kill SIGNAL           to the training process
set -euo pipefail
cd "$(dirname "$0")/.."

usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p;}' launch/tpu_worker.sh >&2; exit 1; }
run=()
if [[ ${1:-} == --dry-run ]]; then
  run=(echo)
  shift
fi
(($#)) || usage
action=$1
shift

attribute() { # of this worker's machine, see jax's cloud_tpu_cluster.py
  curl --silent --fail --retry 5 --header 'Metadata-Flavor: Google' \
    "http://${GCE_METADATA_HOST:-metadata.google.internal}/computeMetadata/v1/instance/attributes/$1"
}

train() {
  exec 9> train.lock
  flock --nonblock 9 || exit 0 # the training process holds it too, so it is taken until that has ended
  rm -f status
  local workers id status=0
  IFS=, read -ra workers <<< "$(attribute worker-network-endpoints)"
  if ((${#workers[@]} > 1)); then
    id=$(attribute agent-worker-number)
    export JAX_COORDINATOR_ADDRESS="${workers[0]##*:}:8476" JAX_NUM_PROCESSES=${#workers[@]} JAX_PROCESS_ID=$id
  fi
  .venv/bin/python -m introvae_jax.main "$@" >> train.log 2>&1 < /dev/null &
  echo $! > train.pid
  wait $! || status=$?
  echo "$status" > status.new
  mv status.new status
}

case $action in
  train)
    (($#)) || usage
    if ((${#run[@]})); then echo ".venv/bin/python -m introvae_jax.main$(printf ' %q' "$@") >> train.log"; else train "$@"; fi
    ;;
  status)
    (($# == 0)) || usage
    if ((${#run[@]})); then
      echo "cat status"
    elif [[ ! -e train.lock ]] || flock --nonblock train.lock true; then
      cat status 2> /dev/null || echo gone
    else
      echo running
    fi
    ;;
  follow)
    (($# == 1)) || usage
    "${run[@]}" tail --pid="$(cat train.pid 2> /dev/null || echo 1)" --lines="$1" --follow=name train.log
    ;;
  kill)
    (($# == 1)) || usage
    "${run[@]}" kill "-$1" "$(cat train.pid)"
    ;;
  *) usage ;;
esac
