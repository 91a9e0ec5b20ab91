# What the recipes share; they read it, nobody runs it.
recipes="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"

# SIGHTLINE names the program; without it the checkout's own is built.
sightline() { ${SIGHTLINE:-cargo run --release --quiet --manifest-path "$recipes/../Cargo.toml" --} "$@"; }

# Trains a run of the folder $out on $data and $features, or goes on with it.
train() { # kind, run, recipe, more arguments
    local kind=$1 run="$out/$2" recipe="$recipes/$3"; shift 3
    if [ -e "$run/last.ckpt" ]; then set -- "$@" --resume; else rm -rf "$run"; set -- "$@" --recipe "$recipe"; fi
    sightline train "$kind" --dataset "$data" --features "$features" -o "$run" "$@"
}
