#!/usr/bin/env bash
# Retrieval from two backbones that were taught differently: alignment models on the vectors of each, together, measured
# against training photos, the nearest read again by a caption model on the vectors of each.
#
#   recipes/two-backbones.sh BEST NANODET CNN
#
#   BEST      the folder that recipes/flickr8k.sh and recipes/flickr8k-best.sh made; an interrupted run goes on where it stopped
#   NANODET   nanodet_plus_m_416.onnx, which they read
#   CNN       mobilenet_v2.safetensors
#
# Time and scores: docs/log.md.
set -euo pipefail
if [ $# -ne 3 ]; then sed -n '2,11p' "$0"; exit 2; fi
out=$1 nanodet=$2 cnn=$3
source "$(dirname "$0")/common.sh"
data="$out/flickr8k.json" frozen="$out/flickr8k.features" features="$out/cnn.features"

[ -e "$features" ] || sightline features "$data" -o "$features" --backbone "$cnn" --regions "nanodet=$nanodet"
train align cnn-14-muon ablation/14-muon.toml
train caption cnn-attention flickr8k-caption-attention.toml

given=(--dataset "$data" --features "$frozen" --more-features "$features" --split val)
three=(--model "$out/14-muon" --model "$out/15-muon-gru" --model "$out/cnn-14-muon")
readers=(--reader "$out/attention" --reader "$out/cnn-attention" --near 50)
echo "== one model, then measured against training photos"
sightline eval retrieval --model "$out/14-muon" --dataset "$data" --features "$frozen" --split val
sightline eval retrieval --model "$out/14-muon" --dataset "$data" --features "$frozen" --split val --bank 2000
echo "== three models on two backbones, likewise"
sightline eval retrieval "${three[@]}" "${given[@]}"
sightline eval retrieval "${three[@]}" "${given[@]}" --bank 2000
echo "== re-ranked, then the nearest read again, then balanced"
sightline eval retrieval "${three[@]}" "${given[@]}" --bank 2000 --rerank 3
sightline eval retrieval "${three[@]}" "${given[@]}" --bank 2000 --rerank 3 "${readers[@]}"
sightline eval retrieval "${three[@]}" "${given[@]}" --bank 2000 --rerank 3 "${readers[@]}" --balance 10
