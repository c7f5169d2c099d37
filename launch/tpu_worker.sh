#!/usr/bin/env bash
# What launch/tpu_vm.sh calls on each worker of a slice, in the directory that holds the code.
#
#   launch/tpu_worker.sh train MAIN-FLAGS...   trains, unless it does already; the exit status stays in the file `status`
#   launch/tpu_worker.sh status                running, gone (killed, or the machine was started anew) or the exit status
#   launch/tpu_worker.sh follow                the log, until the training has ended
#   launch/tpu_worker.sh kill SIGNAL           to the training process
set -euo pipefail
cd "$(dirname "$0")/.."

usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p;}' launch/tpu_worker.sh >&2; exit 1; }

attribute() { # of this worker's machine: the names are those that jax/_src/clusters/cloud_tpu_cluster.py reads
  curl --silent --fail --retry 5 --header 'Metadata-Flavor: Google' \
    "http://metadata.google.internal/computeMetadata/v1/instance/attributes/$1"
}

train() {
  exec 9> train.lock
  flock --nonblock 9 || exit 0 # the training process inherits it: taken until that has ended
  rm -f status
  local endpoints workers id process status=0
  endpoints=$(attribute worker-network-endpoints)
  IFS=, read -ra workers <<< "$endpoints"
  if ((${#workers[@]} > 1)); then
    id=$(attribute agent-worker-number)
    # An endpoint is a host name or NAME:ID:ADDRESS.
    export JAX_COORDINATOR_ADDRESS="${workers[0]##*:}:8476" JAX_NUM_PROCESSES=${#workers[@]} JAX_PROCESS_ID=$id
  fi
  setsid .venv/bin/python -m introvae_jax.main "$@" >> train.log 2>&1 < /dev/null &
  process=$!
  echo "$process" > train.pid
  wait "$process" || status=$?
  kill -KILL -- "-$process" 2> /dev/null || : # children that would keep the lock
  echo "$status" > status.new
  mv status.new status
}

case ${1:-} in
  train)
    (($# >= 2)) || usage
    train "${@:2}"
    ;;
  status)
    (($# == 1)) || usage
    if [[ -e status ]]; then
      state=$(cat status)
    elif flock --nonblock train.lock true; then
      state=gone
    else
      state=running
    fi
    echo "training: $state"
    ;;
  follow)
    (($# == 1)) || usage
    if [[ -e train.pid ]]; then tail --pid="$(cat train.pid)" --follow=name --retry train.log; fi
    ;;
  kill)
    (($# == 2)) || usage
    kill "-$2" "$(cat train.pid)"
    ;;
  *) usage ;;
esac
