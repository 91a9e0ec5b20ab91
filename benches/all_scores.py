#!/usr/bin/env python3
"""Scores of all photos with all sentences, side by side with the CPU peers, in one run.

    python benches/all_scores.py --peer PATH/maxsim.py [--engines numpy,torch,torch-bf16] [--threads 2] [--rounds 3]

1,000 photos x 20 regions x 1000, 5,000 sentences of 8 to 16 words. Every round runs each engine once, and ours. Prints
one JSON line: the median seconds of each, and our ratio to the fastest peer.
"""
import argparse, json, os, pathlib, statistics, subprocess, sys

p = argparse.ArgumentParser()
p.add_argument("--peer", required=True)
p.add_argument("--engines", default="numpy,torch,torch-bf16")
p.add_argument("--threads", type=int, default=2)
p.add_argument("--rounds", type=int, default=3)
a = p.parse_args()
root = pathlib.Path(__file__).resolve().parent.parent
environment = os.environ | {"RAYON_NUM_THREADS": str(a.threads), "OMP_WAIT_POLICY": "passive"}
build = ["cargo", "build", "--release", "--locked", "--workspace", "--examples"]
subprocess.run(build, cwd=root, check=True, stdout=subprocess.DEVNULL)


def last_line(command):
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


runs = {engine: [] for engine in a.engines.split(",")} | {"ours": []}
for _ in range(a.rounds):
    for engine in runs:
        if engine == "ours":
            command = [str(root / "target/release/examples/all_scores"), "1000", "5000", "20", "1000", "1"]
        else:
            command = [sys.executable, a.peer, "--engine", engine, "--threads", str(a.threads), "--reps", "1"]
        runs[engine].append(last_line(command))
seconds = {engine: statistics.median(run["seconds"] for run in found) for engine, found in runs.items()}
fastest = min(value for engine, value in seconds.items() if engine != "ours")
ours = runs["ours"]
share = statistics.median(run["gflops"] / run["matrix_gflops"] for run in ours)
print(json.dumps({"seconds": seconds, "ratio": fastest / seconds["ours"], "share_of_matrix_rate": share}))
