#!/bin/bash
# Train on every GPU of one or more nodes, survive preemption, resume where it stopped.
#
#   sbatch examples/slurm_train.sh
#
# SLURM sends SIGTERM two minutes before it takes the nodes away.  Every process finishes its step,
# the first one saves, and all leave with status 75; the script then puts the job in the queue
# again, and the same command resumes from the checkpoint.
#SBATCH --job-name=medaug-train
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=12:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=medaug-train-%j.log

DATA=${DATA:-pancreas}
RUN=${RUN:-runs/pancreas-spatial_vaegan}
IMAGES=${IMAGES:-2Mi}
BATCH=${BATCH:-512}

# the processes find each other at the first node; train.batch is of all of them together
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_ADDR MASTER_PORT=29517

# the batch script itself gets SIGTERM, too: it stays to see what its processes end with
trap : TERM

srun --kill-on-bad-exit=0 \
  medaug train --data "$DATA" --run "$RUN" --images "$IMAGES" --set train.batch="$BATCH" &
STEP=$!
wait "$STEP"
STATUS=$?
while kill -0 "$STEP" 2>/dev/null; do
  wait "$STEP"
  STATUS=$?
done

if [ "$STATUS" -eq 75 ]; then
  echo "stopped by SIGTERM; back into the queue"
  scontrol requeue "$SLURM_JOB_ID"
  exit 0
fi
exit "$STATUS"
