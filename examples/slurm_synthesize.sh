#!/bin/bash
# Draw many samples as an array job; each task takes its share, in any order.
#
#   sbatch examples/slurm_synthesize.sh
#
# The folder is the same, byte for byte, whatever the number of tasks.  A task that SLURM preempts
# leaves with status 75 and is put in the queue again; what it has written stays.
#SBATCH --job-name=medaug-synthesize
#SBATCH --array=0-7
#SBATCH --gpus-per-task=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --signal=TERM@60
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=medaug-synthesize-%A-%a.log

RUN=${RUN:-runs/pancreas-spatial_vaegan}
OUT=${OUT:-nifti}
COUNT=${COUNT:-1000000}

trap : TERM

srun \
  medaug synthesize -n "$COUNT" --run "$RUN" --out "$OUT" --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" &
STEP=$!
wait "$STEP"
STATUS=$?
while kill -0 "$STEP" 2>/dev/null; do
  wait "$STEP"
  STATUS=$?
done

if [ "$STATUS" -eq 75 ]; then
  scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
  exit 0
fi
exit "$STATUS"
