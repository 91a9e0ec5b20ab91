#!/usr/bin/env python3
"""Caption metrics side by side: this project's crate and pycocoevalcap 1.2, in one run, on the same cases.

    cargo build --release -p sightline-metrics --example coco_metrics
    pip install pycocoevalcap==1.2 numpy                # Java is needed; METEOR's data comes from its wheel
    SIGHTLINE_METEOR_DATA=pycocoevalcap-1.2-py3-none-any.whl \\
        python benches/caption_metrics.py CASES.json --peer PATH/coco_metrics.py [--repeat 5] [--rounds 3]

Prints wall and processor seconds, peak memory, and ratios, of the fastest round of each; fails where scores differ.
"""
import argparse, json, os, resource, subprocess, sys, time

p = argparse.ArgumentParser()
p.add_argument("cases")
p.add_argument("--peer", required=True)
p.add_argument("--ours", default=os.path.join(os.environ.get("CARGO_TARGET_DIR", "target"), "release/examples/coco_metrics"))
p.add_argument("--repeat", type=int, default=5)
p.add_argument("--rounds", type=int, default=3)
a = p.parse_args()


def run(command):
    """What it printed, wall seconds, processor seconds, peak memory in MB."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    child = subprocess.Popen(["/usr/bin/time", "-f", "%M", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    out, err = child.communicate()
    wall = time.perf_counter() - start
    if child.returncode != 0:
        sys.exit(f"{command[0]} failed: {err[-500:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return json.loads(out.splitlines()[-1]), wall, cpu, int(err.split()[-1]) / 1024


def best(rounds):
    return min(rounds, key=lambda r: r[1])


cases = [a.cases, "--repeat", str(a.repeat)]
ours, ours_plain, peers, peers_plain = [], [], [], []
for _ in range(a.rounds):
    ours.append(run([a.ours, *cases]))
    ours_plain.append(run([a.ours, *cases, "--no-meteor"]))
    peers_plain.append(run([sys.executable, a.peer, *cases, "--metrics", "tok,bleu,rouge,cider"]))
    peers.append(run([sys.executable, a.peer, *cases, "--metrics", "tok,bleu,rouge,cider,meteor"]))
(o, ow, oc, om), (op, opw, opc, opm) = best(ours), best(ours_plain)
(r, rw, rc, rm), (rp, rpw, rpc, rpm) = best(peers), best(peers_plain)
for name in ("rouge", "cider", "meteor"):
    assert abs(o["scores"][name] - r["scores"][name]) < 1e-9, (name, o["scores"][name], r["scores"][name])
assert all(abs(x - y) < 1e-9 for x, y in zip(o["scores"]["bleu"], r["scores"]["bleu"]))
three = sum(rp["seconds"][k] for k in ("tok", "bleu", "rouge", "cider"))
print(f"{o['items']} hypotheses, load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores, fastest of {a.rounds}")
print("| what | ours, s | pycocoevalcap, s | ratio |\n| --- | --- | --- | --- |")
rows = [
    ("tokenizing, BLEU, ROUGE-L, CIDEr in one call (wall)", op["seconds"]["one_call"], three),
    ("METEOR (wall)", o["seconds"]["meteor"], r["seconds"]["meteor"]),
    ("tokenizing (wall)", o["seconds"]["tok"], r["seconds"]["tok"]),
    ("BLEU, one thread (wall)", o["seconds"]["bleu"], r["seconds"]["bleu"]),
    ("ROUGE-L, one thread (wall)", o["seconds"]["rouge"], r["seconds"]["rouge"]),
    ("CIDEr, one thread (wall)", o["seconds"]["cider"], r["seconds"]["cider"]),
    ("whole process without METEOR (processor)", opc, rpc),
]
for what, mine, theirs in rows:
    print(f"| {what} | {mine:.2f} | {theirs:.2f} | {theirs / mine:.1f} |")
print(f"start-up with METEOR's cache in place {o['seconds']['start_up']:.3f} s; peak memory {om:.0f} MB, pycocoevalcap {rm:.0f} MB")
