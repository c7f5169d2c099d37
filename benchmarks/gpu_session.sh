#!/usr/bin/env bash
# GPU measurements and a training, unattended; tables, logs and pictures go to the folder OUT.
#
#     benchmarks/gpu_session.sh OUT                    # all parts
#     benchmarks/gpu_session.sh OUT check speed        # some of them
#     SMALL=1 benchmarks/gpu_session.sh OUT            # the same at sizes for a CPU
#
# check: gradients, resuming and restoring (accelerator_check). speed: train_step beside PyTorch at 128, 256 and 1024
# pixels. norm: what exact normalisation costs. memory: the largest batch at 1024 pixels. avatars: a training at 256
# pixels for TRAIN seconds, with samples. Each part has a time limit; one that fails or exceeds it does not stop the others.
set -u
cd "$(dirname "$0")/.." || exit
out=${1:?usage: benchmarks/gpu_session.sh OUT [PART...]}
shift
mkdir -p "$out"
parts=("$@")
[ $# -gt 0 ] || parts=(check speed norm memory avatars)

small=${SMALL:-}
python=${PYTHON:-python3}
cache=${CACHE:-/tmp/introvae_jax_gpu} # compiled programs, prepared data, work directories
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$cache/programs} TORCHINDUCTOR_CACHE_DIR=$cache/inductor
export PYTHONUNBUFFERED=1
size=${small:+32}
size=${size:-256}
train=${TRAIN:-300}
began=$SECONDS

run() { # seconds, name, command: its output in OUT/name.txt
  local seconds=$1 name=$2 since=$SECONDS
  shift 2
  echo "[$((SECONDS - began)) s] $name: $*"
  timeout -s INT -k 20 "$seconds" "$@" >"$out/$name.txt" 2>&1
  echo "[$((SECONDS - began)) s] $name: exit status $?, $((SECONDS - since)) s"
  grep -E '^\||^[a-z0-9_]+, [0-9]+ cores|Error|error' "$out/$name.txt" | tail -n 40
}

prepare() {
  local number=10000
  [ -z "$small" ] || number=300
  run 300 prepare "$python" -m introvae_jax.prepare --source=avatars:open-peeps --name=avatars --resolution="$size" \
    --num_images="$number" --data_dir="$cache/data"
}

check() { run 240 check "$python" -m benchmarks.accelerator_check; }

speed() {
  local jobs=(256 128 1024) options=(--dtype=bfloat16 --rounds=5 --seconds=0.5)
  [ -z "$small" ] || { jobs=(digits toy2d) && options=(--rounds=3 --seconds=0.1); }
  for job in "${jobs[@]}"; do
    run "${LIMIT:-420}" "speed_$job" "$python" -m benchmarks.train_step --jobs="$job" "${options[@]}"
  done
}

norm() { run 180 norm "$python" -m benchmarks.normalization; }

memory() {
  local config=configs/celebahq.py:1024
  [ -z "$small" ] || config=configs/digits.py
  run 300 memory "$python" -m introvae_jax.plan --config="$config"
  cat "$out/memory.txt"
}

avatars() {
  [ -e "$cache/data" ] || prepare
  local config=(
    --config="configs/avatars.py:$size" --config.data.path="$cache/data" --config.data.cache=device
    --config.steps="${STEPS:-1000000}" --config.log.pictures_every=2000 --config.checkpoint.every=2000
  )
  # shellcheck disable=SC2206 # further overrides, separated by spaces
  config+=(${AVATARS:-})
  run "$train" train "$python" -m introvae_jax.main "${config[@]}" --workdir="$cache/avatars"
  tail -n 5 "$out/train.txt"
  mkdir -p "$out/pictures"
  cp "$cache/avatars/metrics.jsonl" "$cache/avatars/curves.png" "$out/pictures/" 2>/dev/null ||
    echo "train left no metrics; see $out/train.txt"
  find "$cache/avatars/pictures" -name '*.png' | sort | awk -F_ '{last[$1] = $0} END {for (n in last) print last[n]}' |
    while read -r picture; do cp "$picture" "$out/pictures/"; done
  run 120 sample "$python" -m introvae_jax.sample --workdir="$cache/avatars" --num=64 --out="$out/pictures/samples.png"
}

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv 2>/dev/null || echo "no NVIDIA GPU"
for part in "${parts[@]}"; do "$part"; done
echo "[$((SECONDS - began)) s] done"
