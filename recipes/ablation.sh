#!/usr/bin/env bash
# The ablation table of the alignment model: every recipe of recipes/ablation, several seeds each, one table.
#
#   recipes/ablation.sh DATASET FEATURES OUT [SEEDS [PARSES]]
#
#   DATASET, FEATURES   of `dataset import` and `features` (recipes/flickr8k.sh makes both)
#   OUT                 folder for the runs, OUT/ROW/seed-N; an interrupted run goes on where it stopped
#   SEEDS               how many or which (1,2,5), as of `train align --seeds`; 3 unless given
#   PARSES              dependency trees (docs/parses.md); rows that read such are left out without
#
# A row takes 5 to 40 minutes a seed on one core; two run side by side on two.
set -euo pipefail
if [ $# -lt 3 ]; then sed -n '2,11p' "$0"; exit 2; fi
dataset=$1 features=$2 out=$3 seeds=${4:-3} parses=${5:-}
source "$(dirname "$0")/common.sh"

data=(--dataset "$dataset" --features "$features")

for recipe in "$recipes"/ablation/*.toml; do
    run="$out/$(basename "$recipe" .toml)"
    how=(--recipe "$recipe")
    if ls "$run"/seed-*/settings.toml > /dev/null 2>&1; then how=(--resume); fi
    if grep -q dependency_edges "$recipe"; then
        if [ -z "$parses" ]; then echo "$(basename "$recipe") left out: it reads dependency trees" >&2; continue; fi
        how+=(--parses "$parses")
    fi
    if grep -q '^\[teaching\]' "$recipe"; then
        for row in 14-muon 15-muon-gru; do how+=(--teacher "$(ls -d "$out/$row"/seed-* | head -1)"); done
    fi
    sightline train align "${data[@]}" -o "$run" --seeds "$seeds" "${how[@]}"
done
sightline eval ablation "$out" "${data[@]}" --split val --rerank 3 ${parses:+--parses "$parses"}
