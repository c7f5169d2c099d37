#!/usr/bin/env bash
# Trains on Cloud TPU VMs, one host (v5litepod-8) or many (v5litepod-16 and more), through preemptions.
#
#   launch/tpu_vm.sh [OPTIONS] run    NAME ZONE TYPE MAIN-FLAGS...   all of the below until the training is done; the
#                                     same line follows a training that runs already
#   launch/tpu_vm.sh [OPTIONS] create NAME ZONE TYPE     asks for the machines, waits until they are there, installs
#   launch/tpu_vm.sh [OPTIONS] start  NAME ZONE MAIN-FLAGS...   starts the training on every worker
#   launch/tpu_vm.sh [OPTIONS] watch  NAME ZONE          follows worker 0 and ends as the training did: 0, 1 or 75
#   launch/tpu_vm.sh [OPTIONS] stop   NAME ZONE          asks the training to save and to end
#   launch/tpu_vm.sh [OPTIONS] fetch  NAME ZONE          copies runs/ of worker 0 here
#   launch/tpu_vm.sh [OPTIONS] delete NAME ZONE
#
#   --spot              cheaper machines that may be taken away at any moment
#   --runtime=VERSION   the machines' software; without it what TYPE needs
#   --restarts=COUNT    how often `run` starts again at most (100)
#   --poll=SECONDS      how long it waits between two looks (30)
#   --grace=SECONDS     how long the other workers may go on after one has ended with anything but 0 (120)
#   --dry-run           prints what would be called
#
# For example: launch/tpu_vm.sh --spot run ivae us-west4-a v5litepod-16 --config=configs/celebahq.py --workdir=gs://B/RUN
# Installs the commit HEAD. Only a --workdir=gs://... outlives the machines. Ends with 0 (done), 1 (a person must act)
# or 75 (rerun the same command to resume). The machines stay, and cost, until `delete`.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p;}' launch/tpu_vm.sh >&2; exit 1; }
say() { echo "launch/tpu_vm.sh: $1" >&2; }

spot=() runtime='' restarts=100 poll=30 grace=120 dry_run=''
while (($#)); do
  case $1 in
    --spot) spot=(--spot) ;;
    --runtime=*) runtime=${1#*=} ;;
    --restarts=*) restarts=${1#*=} ;;
    --poll=*) poll=${1#*=} ;;
    --grace=*) grace=${1#*=} ;;
    --dry-run) dry_run=yes ;;
    *) break ;;
  esac
  shift
done
if (($# < 3)) || [[ ! $restarts$poll$grace =~ ^[0-9]+$ ]]; then usage; fi
action=$1 name=$2 zone=$3
shift 3

call() {
  if [[ $dry_run ]]; then
    printf '%q ' "$@"
    echo
  else
    "$@"
  fi
}
queued() { call gcloud compute tpus queued-resources "$1" "$name" --zone="$zone" "${@:2}"; }
# A machine that was taken away answers no more: without the two flags ssh would wait for hours.
on() { # workers $1, the command $2
  call gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker="$1" --ssh-flag="-o ServerAliveInterval=20" \
    --ssh-flag="-o ServerAliveCountMax=6" --command="$2"
}
copy() { call gcloud compute tpus tpu-vm scp "${@:2}" --zone="$zone" --worker="$1"; }

# --- machines ---

runtime_of() { # accelerator type $1
  case $1 in
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v6e-*) echo v2-alpha-tpuv6e ;;
    *) echo tpu-ubuntu2204-base ;;
  esac
}

request() { # machines of type $1
  queued create --node-id="$name" --accelerator-type="$1" --runtime-version="${runtime:-$(runtime_of "$1")}" \
    ${spot[@]+"${spot[@]}"}
}

give_back() { queued delete --force --quiet; }

# none, waiting, ready, lost (preempted or failed) or unknown (no answer).
machines() {
  local state answer=0
  state=$(gcloud compute tpus queued-resources describe "$name" --zone="$zone" --format='value(state.state)' 2> "$errors") ||
    answer=$?
  if ((answer == 0)) && [[ $state == ACTIVE ]]; then
    # The request may stay ACTIVE for a while after its machines are gone.
    state=$(gcloud compute tpus tpu-vm describe "$name" --zone="$zone" --format='value(state)' 2> "$errors") || answer=$?
  fi
  if ((answer)); then
    if grep -q NOT_FOUND "$errors"; then echo none; else cat "$errors" >&2; echo unknown; fi
    return
  fi
  case $state in
    READY) echo ready ;;
    SUSPENDING | SUSPENDED | FAILED | PREEMPTED | TERMINATED | STOPPED) echo lost ;;
    *) echo waiting ;;
  esac
}

install() {
  call git archive --format=tar.gz --output="$archive" HEAD &&
    copy all "$archive" "$name:introvae_jax.tar.gz" &&
    # The images' own Python is 3.10, too old; uv brings another.
    on all 'mkdir -p introvae_jax && tar -xzf introvae_jax.tar.gz -C introvae_jax && cd introvae_jax &&
      python3 -m pip install --user --quiet uv && ~/.local/bin/uv venv --quiet --allow-existing --python 3.12 .venv &&
      ~/.local/bin/uv pip install --quiet ".[tpu]"'
}

# Asks for machines of type $1 unless there are some, waits for them, installs unless the training runs there already.
create() {
  if [[ $dry_run ]]; then
    request "$1"
    queued describe --format='value(state.state)'
    install
    return
  fi
  local state last=''
  while state=$(machines) && [[ $state != ready ]]; do
    if [[ $state != "$last" ]]; then say "machines: $state"; fi
    last=$state
    case $state in
      none) request "$1" || { say "the request was refused"; exit 1; } ;;
      lost)
        once_more
        give_back || :
        ;;
    esac
    sleep "$poll"
  done
  if [[ $(status) == *running ]]; then say "the training runs already"; else install; fi
}

# --- training ---

start() { # with the flags "$@"; does nothing where the training runs already
  if [[ " $*" != *" --workdir=gs://"* ]]; then
    say "warning: without --workdir=gs://... the run is lost with the machines, and several hosts cannot share it"
  fi
  local flags
  printf -v flags '%q ' "$@"
  on all "nohup introvae_jax/launch/tpu_worker.sh train $flags> introvae_jax/worker.log 2>&1 < /dev/null & sleep 2"
}

# The worst exit status of all workers, and `running` behind it if one still trains; nothing if not all answer.
status() {
  local answers answer worst=0 running=''
  answers=$(on all 'introvae_jax/launch/tpu_worker.sh status' 2> "$errors") || return 0
  while read -r _ answer; do
    case $answer in
      0) ;;
      running) running=running ;;
      gone | 75 | 129 | 1[3-9]? | 2??) ((worst == 1)) || worst=75 ;; # over 128: death by a signal
      *) worst=1 ;;
    esac
  done < <(grep '^training: ' <<< "$answers")
  echo "$worst $running"
}

# Shows the log of worker 0 until no worker trains; sets `outcome` to 0, 1, 75 or lost.
watch() {
  local worst running deadline=''
  while :; do
    on 0 'introvae_jax/launch/tpu_worker.sh follow' || :
    if [[ $dry_run ]]; then
      on all 'introvae_jax/launch/tpu_worker.sh status'
      outcome=0
      return
    fi
    if read -r worst running < <(status); then
      outcome=$worst
      if [[ ! $running ]]; then return; fi
      if ((worst)) && [[ ! $deadline ]]; then deadline=$((SECONDS + grace)); fi
      if [[ $deadline ]] && ((SECONDS >= deadline)); then
        say "still running after $grace seconds, killed"
        on all 'introvae_jax/launch/tpu_worker.sh kill KILL' || :
      fi
    else
      case $(machines) in
        lost | none)
          outcome=lost
          return
          ;;
        *) sed 's/^/launch\/tpu_vm.sh: no answer: /' "$errors" >&2 ;;
      esac
    fi
    sleep "$poll"
  done
}

again=0
once_more() { # counts
  if ((++again > restarts)); then
    say "started again $restarts times already; rerun the same command to resume"
    exit 75
  fi
}

errors=$(mktemp) archive=$(mktemp)
trap 'rm -f "$errors" "$archive"' EXIT
outcome=0
case $action in
  run)
    (($# >= 2)) || usage
    create "$1" || exit 1
    start "${@:2}" || : # if the machines are gone already, watch tells
    watch
    while [[ $outcome == 75 || $outcome == lost ]]; do
      once_more
      say "$outcome: started again, $again of at most $restarts times"
      # After 75 the machines are often there still; if not, watch tells.
      if [[ $outcome == lost ]]; then create "$1" || continue; fi
      start "${@:2}" || :
      watch
    done
    ;;
  create)
    (($# == 1)) || usage
    create "$1" || exit 1
    ;;
  start)
    (($# >= 1)) || usage
    start "$@" || exit 1
    ;;
  watch)
    (($# == 0)) || usage
    watch
    ;;
  stop) on all 'introvae_jax/launch/tpu_worker.sh kill TERM' ;;
  fetch) copy 0 --recurse "$name:introvae_jax/runs" . ;;
  delete) give_back ;;
  *) usage ;;
esac
if [[ $outcome == 1 && ! $dry_run ]]; then on all 'tail -n 10 introvae_jax/train.log' || :; fi
if [[ $outcome == lost ]]; then say "the machines are gone"; outcome=75; fi
exit "$outcome"
