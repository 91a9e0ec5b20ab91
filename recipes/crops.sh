#!/usr/bin/env bash
# Regions cut out and encoded each on its own, as in the paper, in place of a mean over the photo's patches: alignment models
# and a caption model on these vectors, alone and beside those on the others.
#
#   recipes/crops.sh BEST BACKBONE NANODET
#
#   BEST      the folder that recipes/flickr8k.sh and recipes/flickr8k-best.sh made; an interrupted run goes on where it stopped
#   BACKBONE  vit_tiny_patch16_224.safetensors, which they read
#   NANODET   nanodet_plus_m_416.onnx, which they read
#
# Time and scores: docs/log.md.
set -euo pipefail
if [ $# -ne 3 ]; then sed -n '2,11p' "$0"; exit 2; fi
out=$1 backbone=$2 nanodet=$3
source "$(dirname "$0")/common.sh"
data="$out/flickr8k.json" pooled="$out/flickr8k.features" features="$out/crops.features"

# Ten regions and the whole: every region is a pass of its own.
[ -e "$features" ] || sightline features "$data" -o "$features" --backbone "$backbone" --regions "nanodet=$nanodet" \
    --vectors crop --context class --max-regions 11
train align crops-14-muon ablation/14-muon.toml
train align crops-15-muon-gru ablation/15-muon-gru.toml
train caption crops-attention flickr8k-caption-attention.toml

crops=(--model "$out/crops-14-muon")
four=("${crops[@]}" --model "$out/crops-15-muon-gru" --model "$out/14-muon" --model "$out/15-muon-gru")
given=(--dataset "$data" --features "$features" --split val)
echo "== retrieval, one model, then measured against training photos"
sightline eval retrieval "${crops[@]}" "${given[@]}"
sightline eval retrieval "${crops[@]}" "${given[@]}" --bank 2000
echo "== four models on both vectors, likewise, then re-ranked, the nearest read again"
given+=(--more-features "$pooled")
sightline eval retrieval "${four[@]}" "${given[@]}"
sightline eval retrieval "${four[@]}" "${given[@]}" --bank 2000
sightline eval retrieval "${four[@]}" "${given[@]}" --bank 2000 --rerank 3 \
    --reader "$out/crops-attention" --reader "$out/attention" --near 50
echo "== captions: attention to the regions, then with the two models on the others' vectors"
sightline eval caption --model "$out/crops-attention" --dataset "$data" --features "$features" --split val --beam 3
sightline eval caption --model "$out/cider" --model "$out/attention" --model "$out/crops-attention" "${given[@]}" \
    --beam 15 --fit-model "$out/14-muon" --fit-model "$out/crops-14-muon" --consensus 100
