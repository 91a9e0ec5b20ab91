#!/usr/bin/env bash
# The page's test with everything that it needs made anew: scenes, vectors, models of a pass or two, an index, a server.
#
#   crates/sightline/web/test/run.sh PROGRAM SCENES [folder for screenshots]
#
# PROGRAM is `sightline`, SCENES its example `scenes`. Needs node, the packages of `npm ci` and Chromium.
set -euo pipefail
program="$(realpath "$1")" scenes="$(realpath "$2")"
here="$(cd "$(dirname "$0")" && pwd)"
work="$(mktemp -d)"
server=""
tidy() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    rm -rf "$work"
}
trap tidy EXIT

"$scenes" "$work" 80
common=(--dataset "$work/dataset.json" --features "$work/features" --quiet)
"$program" features "$work/dataset.json" -o "$work/features" --backbone pixels --regions selective_search --quiet
"$program" train align "${common[@]}" -o "$work/runs/align" --set epochs=8 --set batch=20 --set min_count=1 \
    --set model.dim=48 --set model.hidden=32 --set model.unit_vectors=true --set model.objective=contrastive --set model.logit_scale=10
"$program" train caption "${common[@]}" -o "$work/runs/caption" --set epochs=4 --set batch=20 --set min_count=1 --set model.hidden=48 --set model.word_dim=48
"$program" index "$work/photos" -o "$work/index" --model "$work/runs/align" --quiet
"$program" serve --index "$work/index" --caption-model "$work/runs/caption" --runs "$work/runs" --port 0 2>"$work/said" &
server=$!
for _ in $(seq 100); do
    address="$(grep -o 'http://[0-9.:]*' "$work/said" || true)"
    [ -z "$address" ] || break
    sleep 0.1
done
[ -n "$address" ] || { cat "$work/said"; echo "the server did not start"; exit 1; }
node "$here/page.mjs" "$address" --runs "$work/runs" --picture "$work/photos/scene-00003.png" \
    --query "a red circle above the blue square" ${3:+--shots "$3"}
