#!/usr/bin/env bash
#SBATCH --job-name=swiftvlm-eval
#SBATCH --array=1-8
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=8
#SBATCH --mem=48G
#SBATCH --time=48:00:00
#SBATCH --output=%x-%A_%a.log
# A sweep as an array of Slurm jobs with one GPU each: job K runs the K-th of PARTS parts of the grid.
#
#     MODEL=llava-hf/llava-1.5-7b-hf OUT=/shared/results \
#       sbatch examples/many_machines/slurm_array.sh --methods all --budgets 192,128 --tasks paper
#
# Another number of parts: PARTS=16 sbatch --array=1-16 ... Some jobs again: PARTS=8 sbatch --array=3,5 ... PARTS is not
# read off the array, because an array of one job would then be the whole grid.
set -euo pipefail

MODEL=${MODEL:-llava-hf/llava-1.5-7b-hf}
OUT=${OUT:-results}
PARTS=${PARTS:-8}
: "${SLURM_ARRAY_TASK_ID:?SLURM_ARRAY_TASK_ID is not set: start this script with sbatch}"

# activate your environment here, for example: source /shared/swiftvlm-eval/.venv/bin/activate
exec swiftvlm-eval sweep --model "$MODEL" --out "$OUT" --shard "$SLURM_ARRAY_TASK_ID/$PARTS" "$@"
