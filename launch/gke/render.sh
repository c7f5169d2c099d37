#!/usr/bin/env bash
# Prints the manifest of a training on GKE, a JobSet (https://jobset.sigs.k8s.io), for `kubectl apply -f -`.
#
#   launch/gke/render.sh [--dry-run] tpu NAME IMAGE ACCELERATOR TOPOLOGY [OPTIONS] -- MAIN-FLAGS...
#   launch/gke/render.sh [--dry-run] gpu NAME IMAGE ACCELERATOR HOSTSxGPUS [OPTIONS] -- MAIN-FLAGS...
#
#   launch/gke/render.sh tpu ivae REGISTRY/introvae:tpu tpu-v5-lite-podslice 4x4 -- --config=configs/celebahq.py --workdir=gs://B/RUN
#   launch/gke/render.sh gpu ivae REGISTRY/introvae:cuda nvidia-h100-80gb 2x8 -- --config=configs/celebahq.py --workdir=gs://B/RUN
#
#   --spot                    nodes that may be taken away at any moment
#   --restarts=COUNT          how often all pods are started again after status 75, an eviction or a preemption (100)
#   --grace=SECONDS           between SIGTERM and the end of a pod, for saving (300)
#   --chips=COUNT             TPU chips per host, where they are not 4 (or all of a flat slice of up to 8)
#   --service-account=NAME    of Kubernetes, with the right to write to the bucket (default)
#   --dry-run                 changes nothing: this command only prints anyway
set -euo pipefail

usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p;}' "$0" >&2; exit 1; }
fail() { echo "launch/gke/render.sh: error: $1" >&2; exit 1; }

if [[ ${1:-} == --dry-run ]]; then shift; fi
(($# >= 5)) || usage
kind=$1 name=$2 image=$3 accelerator=$4 topology=$5
shift 5
spot='' restarts=100 grace=300 chips='' service_account=default
while (($#)) && [[ $1 != -- ]]; do
  case $1 in
    --spot) spot=yes ;;
    --restarts=*) restarts=${1#*=} ;;
    --grace=*) grace=${1#*=} ;;
    --chips=*) chips=${1#*=} ;;
    --service-account=*) service_account=${1#*=} ;;
    --dry-run) ;;
    *) usage ;;
  esac
  shift
done
if (($# < 2)) || [[ ! $restarts$grace${chips:-1} =~ ^[0-9]+$ ]]; then usage; fi
shift
# Kubernetes makes host names of it, NAME-host-0-15 at most, and they have 63 letters.
[[ $name =~ ^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$ ]] || fail "NAME $name: at most 40 of a-z, 0-9 and -, a letter first"

case $kind in
  tpu)
    [[ $topology =~ ^[0-9]+x[0-9]+(x[0-9]+)?$ ]] || fail "TOPOLOGY $topology: like 4x4 or 2x2x4"
    all=$((${topology//x/*}))
    # Flat slices (v5e, v6e) of up to 8 chips are one host; all others have 4 chips on each.
    if [[ ! $chips ]]; then
      if [[ $topology == *x*x* ]] || ((all > 8)); then chips=4; else chips=$all; fi
    fi
    ((chips && all % chips == 0)) || fail "--chips=$chips: the $all chips of $topology are no multiple of it"
    hosts=$((all / chips))
    ;;
  gpu)
    [[ $topology =~ ^[1-9][0-9]*x[1-9][0-9]*$ ]] || fail "HOSTSxGPUS $topology: like 2x8, two machines of eight GPUs"
    hosts=${topology%x*} chips=${topology#*x}
    ;;
  *) usage ;;
esac
if [[ " $*" != *" --workdir=gs://"* ]]; then
  echo "launch/gke/render.sh: warning: without --workdir=gs://... the run is lost with its pods" >&2
fi

args=''
for flag in "$@"; do # as JSON, which YAML reads
  flag=${flag//\\/\\\\}
  args+=${args:+, }\"${flag//\"/\\\"}\"
done
holds=("$kind" ${spot:+spot})
if ((hosts > 1)); then holds+=(several); fi
manifest=$(sed -E "/^ *# /d; s/  #only-($(IFS='|'; echo "${holds[*]}"))$//; /#only-/d" "$(dirname "$0")/jobset.yaml")
# Quoted, because bash would take a & in a value for the text that it replaces. ARGS last: it may hold any text.
manifest=${manifest//@NAME@/"$name"}
manifest=${manifest//@IMAGE@/"\"$image\""}
manifest=${manifest//@ACCELERATOR@/"$accelerator"}
manifest=${manifest//@TOPOLOGY@/"$topology"}
manifest=${manifest//@HOSTS@/"$hosts"}
manifest=${manifest//@CHIPS@/"$chips"}
manifest=${manifest//@RESTARTS@/"$restarts"}
manifest=${manifest//@GRACE@/"$grace"}
manifest=${manifest//@SERVICE_ACCOUNT@/"$service_account"}
echo "${manifest/@ARGS@/"[$args]"}"
