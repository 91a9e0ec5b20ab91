#!/usr/bin/env bash
# A backbone tuned end to end: alignment on its frozen vectors first, then both together, then the tuned vectors.
#
#   recipes/tune.sh DATASET FEATURES BACKBONE NANODET OUT
#
#   DATASET   a dataset of `sightline dataset import`
#   FEATURES  its feature store: this backbone, NanoDet's regions, --context class
#   BACKBONE  the vision transformer that made it
#   NANODET   nanodet_plus_m_416.onnx
#   OUT       a folder for the runs; an interrupted run goes on where it stopped
#
# Time, memory and scores: docs/log.md.
set -euo pipefail
if [ $# -ne 5 ]; then sed -n '2,12p' "$0"; exit 2; fi
data=$1 features=$2 backbone=$3 nanodet=$4 out=$5
source "$(dirname "$0")/common.sh"
mkdir -p "$out"

train align align ablation/14-muon.toml
train tune tuned tune.toml --backbone "$backbone" --start "$out/align"
tuned="$out/tuned.features"
[ -e "$tuned" ] || sightline features "$data" -o "$tuned" --backbone "$out/tuned/backbone.ckpt" --regions "nanodet=$nanodet" --context class
echo "== frozen"
sightline eval retrieval --model "$out/align" --dataset "$data" --features "$features" --split val
echo "== tuned, then re-ranked"
sightline eval retrieval --model "$out/tuned" --dataset "$data" --features "$tuned" --split val
sightline eval retrieval --model "$out/tuned" --dataset "$data" --features "$tuned" --split val --rerank 3
