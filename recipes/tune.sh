#!/usr/bin/env bash
# A backbone tuned end to end: alignment on its frozen vectors first, then both together twice, then once more taught by
# the models before; and the tuned vectors of each.
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
if [ $# -ne 5 ]; then sed -n '2,13p' "$0"; exit 2; fi
data=$1 features=$2 backbone=$3 nanodet=$4 out=$5
source "$(dirname "$0")/common.sh"
mkdir -p "$out"

train align align ablation/14-muon.toml
train align gru ablation/15-muon-gru.toml
train tune tuned tune.toml --backbone "$backbone" --start "$out/align"
# The vectors of a tuned run's backbone.
vectors() {
    [ -e "$out/$1.features" ] || sightline features "$data" -o "$out/$1.features" \
        --backbone "$out/$1/backbone.ckpt" --regions "nanodet=$nanodet" --context class
}
vectors tuned
frozen="$features" features="$out/tuned.features"
train tune longer tune-longer.toml --backbone "$out/tuned/backbone.ckpt" --start "$out/tuned"
vectors longer
features="$out/longer.features"
train tune taught tune-taught.toml --backbone "$out/longer/backbone.ckpt" --start "$out/longer" \
    --teacher "$out/tuned" --teacher "$out/align" --teacher "$out/gru" \
    --more-features "$frozen" --more-features "$out/tuned.features"
vectors taught
echo "== frozen"
sightline eval retrieval --model "$out/align" --dataset "$data" --features "$frozen" --split val
for run in tuned longer taught; do
    echo "== $run, then re-ranked"
    given=(--model "$out/$run" --dataset "$data" --features "$out/$run.features" --split val)
    sightline eval retrieval "${given[@]}"
    sightline eval retrieval "${given[@]}" --rerank 3
done
echo "== taught, longer and the two on frozen vectors together, re-ranked"
sightline eval retrieval --model "$out/taught" --model "$out/longer" --model "$out/align" --model "$out/gru" \
    --dataset "$data" --features "$out/taught.features" --more-features "$out/longer.features" \
    --more-features "$frozen" --split val --rerank 3
