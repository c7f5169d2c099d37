#!/usr/bin/env bash
# What launch/slurm.sbatch starts as each task: one process of the training, with its place in the job.
#
#   launch/slurm_task.sh PYTHON MAIN-FLAGS...
#
# Ends with 0, 75 (a rerun can resume) or 200 (a person must act): srun ends with the highest status of its tasks, and a
# 1 must not disappear below the 75 or the death by a signal of the others.
set -uo pipefail

if (($# < 2)); then sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p;}' "$0" >&2; exit 1; fi
trap : TERM INT # Slurm signals every process of a task; this one stays to tell the status

if ((SLURM_NTASKS > 1)); then
  export JAX_COORDINATOR_ADDRESS JAX_NUM_PROCESSES=$SLURM_NTASKS JAX_PROCESS_ID=$SLURM_PROCID
else
  unset JAX_COORDINATOR_ADDRESS
fi

# Left alone, JAX would give a task under Slurm the one GPU with the number of the task, also if it has the node's all.
tasks=${SLURM_STEP_TASKS_PER_NODE:-1}
tasks=${tasks%%[!0-9]*}
IFS=, read -ra gpus <<< "${CUDA_VISIBLE_DEVICES:-}"
first=0 each=${#gpus[@]}
if ((tasks > 1 && each == ${SLURM_GPUS_ON_NODE:-0})); then # not bound to its own: it takes its share
  each=$((each / tasks))
  first=$((SLURM_LOCALID * each))
fi
if ((each)); then
  JAX_LOCAL_DEVICE_IDS=$(seq -s , "$first" $((first + each - 1)))
  export JAX_LOCAL_DEVICE_IDS
fi

status=0
"$1" -m introvae_jax.main "${@:2}" || status=$?
if ((status == 75 || status > 128)); then exit 75; fi
if ((status)); then exit 200; fi
