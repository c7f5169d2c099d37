#!/usr/bin/env bash
# Trains with N processes on this machine, joined by JAX's runtime, and restarts them if a rerun can resume.
#
#   launch/local.sh [OPTIONS] N MAIN-FLAGS...      launch/local.sh 2 --config=configs/digits.py
#
#   --gpus              process i sees GPU i alone; without it every process sees all devices of the machine
#   --restarts=COUNT    how often at most all are started again after status 75 or death by a signal (10)
#   --grace=SECONDS     how long the others may go on after one has ended with anything but 0 (90)
#   --dry-run           prints what would be started
#
# Run it where `python -m introvae_jax.main` works; PYTHON=... names another Python. The output of process 0 comes as
# it is, lines of the others behind "[i] ". SIGTERM, SIGHUP (a closed terminal) and Ctrl-C are passed on, once each.
# Ends with 0 (done), 1 (a person must act) or 75 (rerun the same command to resume).
set -euo pipefail

usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p;}' "$0" >&2; exit 1; }
say() { echo "launch/local.sh: $1" >&2 || :; }
trap '' PIPE # output that nobody reads must not end the launcher before the processes

restarts=10 grace=90 gpus='' dry_run=''
while (($#)); do
  case $1 in
    --gpus) gpus=yes ;;
    --restarts=*) restarts=${1#*=} ;;
    --grace=*) grace=${1#*=} ;;
    --dry-run) dry_run=yes ;;
    *) break ;;
  esac
  shift
done
count=${1:-}
if (($# < 2)) || [[ ! $count =~ ^[1-9][0-9]*$ || ! $restarts$grace =~ ^[0-9]+$ ]]; then usage; fi
shift
main=("${PYTHON:-python}" -m introvae_jax.main "$@")

environment() { # of process $1 with the coordinator at port $2
  local settings=()
  if ((count > 1)); then
    settings=("JAX_COORDINATOR_ADDRESS=127.0.0.1:$2" "JAX_NUM_PROCESSES=$count" "JAX_PROCESS_ID=$1")
  fi
  if [[ $gpus ]]; then settings+=("CUDA_VISIBLE_DEVICES=$1"); fi
  echo "${settings[*]-}"
}

if [[ $dry_run ]]; then
  for ((i = 0; i < count; i++)); do
    echo "env $(environment "$i" PORT)$(printf ' %q' "${main[@]}")"
  done
  exit
fi

prefix() {
  local line
  while IFS= read -r line || [[ $line ]]; do printf '[%s] %s\n' "$1" "$line" 2> /dev/null || :; done
}

processes=() readers=() told=''
pipes=$(mktemp -d)
trap 'rm -rf "$pipes"' EXIT
pass_on() {
  told=$1
  local pid
  for pid in "${processes[@]}"; do kill "-$1" "$pid" 2> /dev/null || :; done
}
trap 'pass_on TERM' TERM
trap 'pass_on INT' INT
trap 'pass_on HUP' HUP

start() { # all processes
  local port i settings
  port=$("${main[0]}" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
  processes=() readers=()
  set -m # a group for each process: Ctrl-C comes through pass_on alone, so once, and children can be killed with it
  for ((i = 0; i < count; i++)); do
    read -ra settings <<< "$(environment "$i" "$port")"
    if ((i == 0)); then
      env ${settings[@]+"${settings[@]}"} "${main[@]}" < /dev/null &
      processes+=($!)
      continue
    fi
    rm -f "$pipes/out" "$pipes/err"
    mkfifo "$pipes/out" "$pipes/err"
    prefix "$i" < "$pipes/out" &
    readers+=($!)
    prefix "$i" < "$pipes/err" >&2 &
    readers+=($!)
    # Opened here, where it waits for the reader, because the next process reuses the names.
    exec 3> "$pipes/out" 4> "$pipes/err"
    env ${settings[@]+"${settings[@]}"} "${main[@]}" < /dev/null >&3 2>&4 3>&- 4>&- &
    processes+=($!)
    exec 3>&- 4>&-
  done
  set +m
}

kill_all() {
  local pid
  for pid in "${processes[@]}"; do kill -KILL -- "-$pid" 2> /dev/null || :; done
}

# Waits for all processes; sets `outcome` to 1 if a person must act, else 75 if a rerun can resume, else 0.
outcome=0
await() {
  local deadline='' killed='' left=("${!processes[@]}") still i status
  outcome=0
  while ((${#left[@]})); do
    still=()
    for i in "${left[@]}"; do
      if kill -0 "${processes[i]}" 2> /dev/null; then
        still+=("$i")
        continue
      fi
      status=0
      wait "${processes[i]}" 2> /dev/null || status=$?
      case $status in
        0) continue ;;
        75) ((outcome == 1)) || outcome=75 ;;
        *) if ((status > 128)); then ((outcome == 1)) || outcome=75; else outcome=1; fi ;;
      esac
      say "process $i ended with $status"
      if [[ ! $deadline ]]; then deadline=$((SECONDS + grace)); fi
    done
    left=(${still[@]+"${still[@]}"})
    if [[ $deadline && ! $killed ]] && ((SECONDS >= deadline && ${#left[@]})); then
      say "still running after $grace seconds, killed: process ${left[*]}"
      kill_all
      killed=yes
    fi
    if ((${#left[@]})); then sleep 0.2 || :; fi # Ctrl-C ends the sleep
  done
  kill_all # what the processes left behind would keep the readers waiting
  wait ${readers[@]+"${readers[@]}"} || :
}

for ((attempt = 0; ; attempt++)); do
  start
  if [[ $told ]]; then pass_on "$told"; fi # it came while they were being started
  await
  if ((outcome != 75)) || [[ $told ]]; then exit "$outcome"; fi
  if ((attempt == restarts)); then
    say "started again $restarts times already; rerun the same command to resume"
    exit 75
  fi
  say "all are started again, $((attempt + 1)) of at most $restarts times"
done
