#!/usr/bin/env bash
# The whole path on Flickr8k: import, features, alignment, phrases, both caption models, evaluation, page, captions.
#
#   recipes/flickr8k.sh DATASET VIT NANODET EXAMPLES OUT
#
#   DATASET   folder with Karpathy's dataset.json and the photos
#   VIT       vit_tiny_patch16_224.safetensors (timm)
#   NANODET   nanodet_plus_m_416.onnx
#   EXAMPLES  folder of other photos to describe
#   OUT       folder for everything that is made; an interrupted run goes on where it stopped
#
# Time and scores: docs/log.md.
set -euo pipefail
if [ $# -ne 5 ]; then sed -n '2,12p' "$0"; exit 2; fi
dataset=$1 vit=$2 nanodet=$3 examples=$4 out=$5
source "$(dirname "$0")/common.sh"
mkdir -p "$out"

data="$out/flickr8k.json" features="$out/flickr8k.features"
[ -e "$data" ] || sightline dataset import "$dataset" -o "$data"
[ -e "$features" ] || sightline features "$data" -o "$features" --backbone "$vit" --regions "nanodet=$nanodet" --context class

train align align flickr8k-align.toml
sightline align --model "$out/align" --dataset "$data" --features "$features" -o "$out/phrases.json" --affinity 0.15
train caption caption flickr8k-caption.toml
train caption regions flickr8k-regions.toml --phrases "$out/phrases.json"

echo "== retrieval"
sightline eval retrieval --model "$out/align" --dataset "$data" --features "$features" --split val \
    --html "$out/report.html" --caption-model "$out/caption" --region-model "$out/regions"
echo "== captions"
sightline eval caption --model "$out/caption" --dataset "$data" --features "$features" --split val --beam 5 --captions "$out/captions.jsonl"
echo "== ten validation photos"
head -n 10 "$out/captions.jsonl"
echo "== the example photos and their regions"
# A photo that cannot be read is named and the others go on; that is no reason to end here.
sightline caption "$examples" --model "$out/caption" --regions --region-model "$out/regions" --most-regions 4 || true
