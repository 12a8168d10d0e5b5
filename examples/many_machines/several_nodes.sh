#!/usr/bin/env bash
# One sweep on the GPUs of several machines: they share the documents of each configuration, so that a single one is
# done sooner. Start it on every machine, with its own NODE from 0; all need the folder OUT.
#
#     NODE=0 NODES=2 GPUS=8 MAIN=10.0.0.1 OUT=/shared/results \
#       bash examples/many_machines/several_nodes.sh --methods swiftvlm --budgets 192 --tasks paper
#
# MAIN is the address of the machine with NODE=0. GPUS are those of each machine. Further words are options of
# `swiftvlm-eval sweep`. Without GPUs (to try it out) set ACCELERATE_USE_CPU=true and say --device cpu.
set -euo pipefail

: "${NODE:?NODE is not set: allowed is this machine, from 0 to NODES - 1}"
: "${NODES:?NODES is not set: allowed is the number of machines}"
: "${MAIN:?MAIN is not set: allowed is the address of the machine with NODE=0}"
MODEL=${MODEL:-llava-hf/llava-1.5-7b-hf}
OUT=${OUT:-results}
GPUS=${GPUS:-8}
PORT=${PORT:-29500}

exec accelerate launch --multi_gpu --num_machines "$NODES" --machine_rank "$NODE" \
  --num_processes "$((NODES * GPUS))" --main_process_ip "$MAIN" --main_process_port "$PORT" \
  --mixed_precision no --dynamo_backend no \
  -m swiftvlm_eval.cli sweep --model "$MODEL" --out "$OUT" "$@"
