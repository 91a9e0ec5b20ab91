#!/usr/bin/env bash
# Regions cut out and encoded each on its own by a backbone that was tuned end to end: alignment models and caption models
# on these vectors, alone and beside those of the frozen backbone.
#
#   recipes/tuned-crops.sh BEST TUNED NANODET
#
#   BEST      the folder that recipes/flickr8k.sh, recipes/flickr8k-best.sh and recipes/crops.sh made
#   TUNED     the folder that recipes/tune.sh made; an interrupted run goes on where it stopped
#   NANODET   nanodet_plus_m_416.onnx, which they read
#
# Time and scores: docs/log.md.
set -euo pipefail
if [ $# -ne 3 ]; then sed -n '2,11p' "$0"; exit 2; fi
best=$1 out=$2 nanodet=$3
source "$(dirname "$0")/common.sh"
data="$best/flickr8k.json" frozen="$best/flickr8k.features" crops="$best/crops.features" features="$out/crops.features"

# Ten regions and the whole: every region is a pass of its own.
[ -e "$features" ] || sightline features "$data" -o "$features" --backbone "$out/longer/backbone.ckpt" \
    --regions "nanodet=$nanodet" --vectors crop --context class --max-regions 11
train align crops-14-muon ablation/14-muon.toml
train align crops-15-muon-gru ablation/15-muon-gru.toml
train caption crops-attention flickr8k-caption-attention.toml
train caption crops-cider flickr8k-caption-cider.toml --start "$out/crops-attention"
# On the frozen backbone's regions crops.sh trains by likelihood alone.
out="$best" features="$crops" train caption crops-cider flickr8k-caption-cider.toml --start "$best/crops-attention"

one=(--model "$out/crops-14-muon")
six=("${one[@]}" --model "$out/crops-15-muon-gru")
for run in crops-14-muon crops-15-muon-gru 14-muon 15-muon-gru; do six+=(--model "$best/$run"); done
given=(--dataset "$data" --features "$features" --split val)
echo "== retrieval, one model, then measured against training photos"
sightline eval retrieval "${one[@]}" "${given[@]}"
sightline eval retrieval "${one[@]}" "${given[@]}" --bank 2000
given+=(--more-features "$crops" --more-features "$frozen")
echo "== six models on three kinds of vectors, likewise, then re-ranked, the nearest read again"
sightline eval retrieval "${six[@]}" "${given[@]}" --bank 2000
sightline eval retrieval "${six[@]}" "${given[@]}" --bank 2000 --rerank 3 --balance 10 --near 50 \
    --reader "$out/crops-attention" --reader "$best/crops-attention" --reader "$best/attention"
echo "== captions: attention to the regions, rewarded, then all together"
for run in crops-attention crops-cider; do
    sightline eval caption --model "$out/$run" --dataset "$data" --features "$features" --split val --beam 3
done
members=(--model "$out/crops-cider" --model "$best/crops-cider" --model "$best/cider")
members+=(--model "$out/crops-attention" --model "$best/crops-attention" --model "$best/attention")
sightline eval caption "${members[@]}" "${given[@]}" --beam 15 --consensus 100 \
    --fit-model "$out/crops-14-muon" --fit-model "$best/crops-14-muon" --fit-model "$best/14-muon"
