#!/usr/bin/env python3
"""One training step of the alignment model (equations 1 to 9) side by side with PyTorch eager on the CPU, in one run.

    python benches/align_step.py --peer PATH/torch_align.py [--threads 2] [--reps 10] [--rounds 5]

The peer (needs torch, numpy, safetensors) writes its inputs, weights, loss and gradients; ours repeats the same step,
compares, and then both are timed turn by turn. Prints one JSON line; the ratio is of the medians over all rounds.
Sizes: 100 photos x 20 regions x 4096, 100 sentences padded to 16 words, dim 1000, hidden 300.
"""
import argparse, json, os, pathlib, statistics, subprocess, sys, tempfile

p = argparse.ArgumentParser()
p.add_argument("--peer", required=True)
p.add_argument("--threads", type=int, default=2)
p.add_argument("--reps", type=int, default=10)
p.add_argument("--rounds", type=int, default=5)
a = p.parse_args()
root = pathlib.Path(__file__).resolve().parent.parent
environment = os.environ | {"RAYON_NUM_THREADS": str(a.threads), "OMP_WAIT_POLICY": "passive"}
build = ["cargo", "build", "--release", "--locked", "--workspace", "--examples"]
subprocess.run(build, cwd=root, check=True, stdout=subprocess.DEVNULL)
ours = root / "target/release/examples/align_step"


def last_line(command):
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


with tempfile.TemporaryDirectory() as folder:
    saved = f"{folder}/step.safetensors"
    peer = [sys.executable, a.peer, "--threads", str(a.threads), "--reps", str(a.reps)]
    last_line(peer + ["--save", saved])
    theirs, mine = [], []
    for _ in range(a.rounds):
        theirs.append(last_line(peer))
        mine.append(last_line([str(ours), saved, str(a.reps)]))
median = lambda runs, key: statistics.median(run[key] for run in runs)
print(json.dumps({
    "loss_difference": mine[0]["loss_difference"],
    "gradient_difference": mine[0]["gradient_difference"],
    "peer_ms": median(theirs, "median_ms"),
    "ours_ms": median(mine, "median_ms"),
    "ratio": median(theirs, "median_ms") / median(mine, "median_ms"),
    "peer_cpu_ms": median(theirs, "cpu_ms"),
    "ours_cpu_ms": median(mine, "cpu_ms"),
    "cpu_ratio": median(theirs, "cpu_ms") / median(mine, "cpu_ms"),
    "best_ratio": min(r["min_ms"] for r in theirs) / min(r["min_ms"] for r in mine),
}))
