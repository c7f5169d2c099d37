#!/usr/bin/env bash
# Trains on one Cloud TPU VM host (for instance v5litepod-8): create, install, train, fetch the pictures, delete.
#
#   launch/tpu_vm.sh create NAME ZONE TYPE              launch/tpu_vm.sh create ivae us-central1-a v5litepod-8
#   launch/tpu_vm.sh train  NAME ZONE MAIN-FLAGS...     launch/tpu_vm.sh train ivae us-central1-a --config=configs/celebahq.py
#   launch/tpu_vm.sh fetch  NAME ZONE                   copies runs/ of the machine here
#   launch/tpu_vm.sh delete NAME ZONE
#
# DRY_RUN=1 before it prints what would be done. Training goes on when the connection breaks; the same line follows it
# again, and after a preemption, create and train once more go on from the last checkpoint if --workdir is on a disk
# that outlived the machine. One host only: several hosts are not supported yet. Not yet run on a real TPU VM.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() { sed -n '2,11s/^# \{0,1\}//p' launch/tpu_vm.sh >&2; exit 1; }
(($# >= 3)) || usage
action=$1 name=$2 zone=$3
shift 3

run() {
  if [[ -n ${DRY_RUN:-} ]]; then printf '%q ' "$@"; echo; else "$@"; fi
}
tpu() { run gcloud compute tpus tpu-vm "$1" "$name" --zone="$zone" "${@:2}"; }
remote() { tpu ssh --command="$1"; }

case $action in
  create)
    (($# == 1)) || usage
    tpu create --accelerator-type="$1" --version=tpu-ubuntu2204-base
    ;;
  train)
    archive=$(mktemp)
    trap 'rm -f "$archive"' EXIT
    run git archive --format=tar.gz --output="$archive" HEAD
    tpu scp "$archive" "$name:introvae_jax.tar.gz"
    remote "mkdir -p introvae_jax && tar -xzf introvae_jax.tar.gz -C introvae_jax"
    # The images' own Python is 3.10, too old; uv brings another. flock: a second `train` only follows the first.
    remote "cd introvae_jax && python3 -m pip install --user --quiet uv && ~/.local/bin/uv venv --quiet --allow-existing --python 3.12 .venv && ~/.local/bin/uv pip install --quiet '.[tpu]'"
    printf -v arguments '%q ' "$@"
    remote "cd introvae_jax && (nohup flock --nonblock train.lock .venv/bin/python -m introvae_jax.main $arguments>> train.log 2>&1 < /dev/null &); sleep 2; tail -n +1 -f train.log"
    ;;
  fetch) tpu scp --recurse "$name:introvae_jax/runs" . ;;
  delete) tpu delete --quiet ;;
  *) usage ;;
esac
