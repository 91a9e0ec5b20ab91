#!/usr/bin/env bash
# The best captions: six caption models propose and judge together, on frozen vectors, on those of a tuned backbone, and on
# both side by side; two alignment models and people's sentences of photos like it have a say.
#
#   recipes/committee.sh BEST TUNED
#
#   BEST      the folder that recipes/flickr8k.sh and recipes/flickr8k-best.sh made
#   TUNED     the folder that recipes/tune.sh made; an interrupted run goes on where it stopped
#
# Time and scores: docs/log.md.
set -euo pipefail
if [ $# -ne 2 ]; then sed -n '2,11p' "$0"; exit 2; fi
best=$1 out=$2
source "$(dirname "$0")/common.sh"
data="$best/flickr8k.json" frozen="$best/flickr8k.features" tuned="$out/tuned.features" both="$out/both.features"

[ -e "$both" ] || sightline features join -o "$both" "$frozen" "$tuned"
pair() { # name: the attention model on $features, and that model trained on for CIDEr-D
    train caption "$1-attention" flickr8k-caption-attention.toml
    train caption "$1-cider" flickr8k-caption-cider.toml --start "$out/$1-attention"
}
features="$tuned"; pair tuned
features="$both"; pair both

members=()
for run in "$best/cider" "$out/tuned-cider" "$out/both-cider" "$best/attention" "$out/tuned-attention" "$out/both-attention"; do
    members+=(--model "$run")
done
echo "== captions, all together"
sightline eval caption "${members[@]}" --dataset "$data" --features "$frozen" --more-features "$tuned" --more-features "$both" \
    --more-features "$out/taught.features" --split val --beam 24 --fit-model "$best/14-muon" --fit-model "$out/taught" --consensus 100
echo "== retrieval, all together, re-ranked, the nearest read again by three"
sightline eval retrieval --model "$best/14-muon" --model "$best/15-muon-gru" --model "$out/taught" --model "$out/longer" \
    --dataset "$data" --features "$frozen" --more-features "$tuned" --more-features "$both" --more-features "$out/taught.features" \
    --more-features "$out/longer.features" --split val --rerank 3 --near 50 \
    --reader "$best/attention" --reader "$out/tuned-attention" --reader "$out/both-attention"
