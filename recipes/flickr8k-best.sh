#!/usr/bin/env bash
# Beyond the paper on Flickr8k, from the same vectors and the same sentences: two alignment models together, captions by
# attention to the regions, that model trained on for CIDEr, and captions of regions.
#
#   recipes/flickr8k-best.sh OUT
#
#   OUT       the folder that recipes/flickr8k.sh made; an interrupted run goes on where it stopped
#
# Time and scores: docs/log.md.
set -euo pipefail
if [ $# -ne 1 ]; then sed -n '2,9p' "$0"; exit 2; fi
out=$1
source "$(dirname "$0")/common.sh"
data="$out/flickr8k.json" features="$out/flickr8k.features"

for row in 14-muon 15-muon-gru; do train align "$row" "ablation/$row.toml"; done
train caption attention flickr8k-caption-attention.toml
train caption cider flickr8k-caption-cider.toml --start "$out/attention"
# Words that share a region are phrases; the detector knows a thing from its part.
sightline align --model "$out/14-muon" --dataset "$data" --features "$features" -o "$out/phrases-best.json" --affinity 0.03 --prior 1
train caption regions-best flickr8k-regions-best.toml --phrases "$out/phrases-best.json" --start "$out/attention"

echo "== retrieval, two models together, then re-ranked, then the nearest read again"
both=(--model "$out/14-muon" --model "$out/15-muon-gru")
sightline eval retrieval "${both[@]}" --dataset "$data" --features "$features" --split val
sightline eval retrieval "${both[@]}" --dataset "$data" --features "$features" --split val --rerank 3
sightline eval retrieval "${both[@]}" --dataset "$data" --features "$features" --split val --rerank 3 --reader "$out/attention"
for run in attention cider; do
    echo "== captions: $run"
    given=(--model "$out/$run" --dataset "$data" --features "$features" --split val)
    sightline eval caption "${given[@]}" --beam 3
    sightline eval caption "${given[@]}" --beam 15 --fit-model "$out/14-muon"
done
echo "== captions: the two together, with people's sentences of photos like it"
sightline eval caption --model "$out/cider" --model "$out/attention" --dataset "$data" --features "$features" --split val \
    --beam 15 --fit-model "$out/14-muon" --consensus 100
