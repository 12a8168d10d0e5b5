#!/usr/bin/env bash
# A sweep on the GPUs of one machine: a process for each GPU, every one with its own part of the grid.
#
#     MODEL=llava-hf/llava-1.5-7b-hf OUT=results GPUS="0 1 2 3" \
#       bash examples/many_machines/one_node.sh --methods all --budgets 192,128 --tasks paper
#
# Words behind the script's name are options of `swiftvlm-eval sweep`. Called again, it goes on where it stopped. The
# status is 1 if a configuration has no record in the end; what each process said is in OUT/part-K.log.
set -euo pipefail

MODEL=${MODEL:-llava-hf/llava-1.5-7b-hf}
OUT=${OUT:-results}
GPUS=${GPUS:-0 1 2 3 4 5 6 7}

read -ra gpus <<<"$GPUS"
mkdir -p "$OUT"
jobs=()
for index in "${!gpus[@]}"; do
  part=$((index + 1))
  CUDA_VISIBLE_DEVICES=${gpus[index]} swiftvlm-eval sweep --model "$MODEL" --out "$OUT" \
    --shard "$part/${#gpus[@]}" "$@" >"$OUT/part-$part.log" 2>&1 &
  jobs+=($!)
done
trap 'kill "${jobs[@]}" 2>/dev/null || true' INT TERM

status=0
for index in "${!jobs[@]}"; do
  wait "${jobs[index]}" || { status=1; echo "part $((index + 1)): see $OUT/part-$((index + 1)).log" >&2; }
done
exit "$status"
