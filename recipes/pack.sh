#!/usr/bin/env bash
# The program's own models (assets/sightline.pack): a small backbone distilled from a larger one, and on its vectors an
# alignment model and caption models of photos and regions.
#
#   recipes/pack.sh DATASET FEATURES TEACHER OUT [TUNED TUNED_FEATURES]
#
#   DATASET   a dataset of `sightline dataset import`, with training and validation photos
#   FEATURES  its feature store of the teacher, with the boxes that the backbone learns to propose (NanoDet's, say)
#   TEACHER   vit_tiny_patch16_224.safetensors, or another with 14 by 14 cells
#   TUNED     an alignment model that teaches the small one too, the run `tuned` of recipes/tune.sh say, and its vectors
#   OUT       a folder for the runs and the pack; an interrupted run goes on where it stopped
#
# Time and scores: docs/log.md.
set -euo pipefail
if [ $# -ne 4 ] && [ $# -ne 6 ]; then sed -n '2,14p' "$0"; exit 2; fi
data=$1 boxes=$2 teacher=$3 out=$4
source "$(dirname "$0")/common.sh"
mkdir -p "$out"

backbone="$out/mosaics" features="$boxes"
train backbone backbone pack/backbone.toml --teacher "$teacher"
# Each time from the last weights, not the best: on new views they are ahead again.
train backbone further pack/backbone-further.toml --teacher "$teacher" --start "$out/backbone/last.ckpt"
train backbone objects pack/backbone-objects.toml --teacher "$teacher" --start "$out/further/last.ckpt"
train backbone mosaics pack/backbone-mosaics.toml --teacher "$teacher" --start "$out/objects/last.ckpt"
train align teacher ablation/14-muon.toml
teachers=(--teacher "$out/teacher" --more-features "$boxes")
if [ $# -eq 6 ]; then teachers+=(--teacher "$5" --more-features "$6"); fi
features="$out/small.features"
[ -e "$features" ] || sightline features "$data" -o "$features" --backbone "$backbone" --regions "compact=$backbone"
train align align pack/align.toml "${teachers[@]}"
sightline align --model "$out/align" --dataset "$data" --features "$features" -o "$out/phrases.json" --affinity 0.03 --prior 1
train caption caption pack/caption.toml
train caption regions pack/regions.toml --phrases "$out/phrases.json"
sightline pack -o "$out/sightline.pack" --backbone "$backbone" --align "$out/align" --caption "$out/caption" \
    --regions "$out/regions" --card "$recipes/pack/card.toml" --int8

# What stands on the card: the packed models on validation photos.
given=(--dataset "$data" --features "$features" --split val)
sightline eval retrieval --model "$out/sightline.pack" "${given[@]}"
sightline eval caption --model "$out/sightline.pack" "${given[@]}"
sightline eval caption --model "$out/sightline.pack" "${given[@]}" --fit 0 --beam 3
