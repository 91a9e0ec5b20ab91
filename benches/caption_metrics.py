#!/usr/bin/env python3
"""Caption metrics side by side: this project's crate and pycocoevalcap 1.2, in turn in one run, on the same captions.

    cargo build --release -p sightline-metrics --example coco_metrics
    pip install pycocoevalcap==1.2 numpy                                  # and Java, for the peer alone
    python benches/caption_metrics.py CASES.json                          # 1,000 images, five times over

CASES.json is {"items": [{"hyp": "…", "refs": ["…", …]}, …]}. METEOR's data is found as the program finds it
(SIGHTLINE_METEOR_DATA, or what `sightline meteor-data fetch` got). Prints the load of the machine, wall seconds of the
fastest round of each, their ratios, start-up time and peak memory beside the floors; fails where scores differ or a
floor is missed.
"""
import argparse, contextlib, io, json, os, resource, subprocess, sys, time

TARGET = os.environ.get("CARGO_TARGET_DIR", "target")
SCORERS = ("bleu", "rouge", "cider", "meteor")


def peer(cases, repeat, wanted):
    """pycocoevalcap, timed metric by metric; prints one line of JSON."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.meteor.meteor import Meteor
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    with open(cases, encoding="utf-8") as file:
        items = json.load(file)["items"] * repeat
    references = {i: [{"caption": r} for r in item["refs"]] for i, item in enumerate(items)}
    hypotheses = {i: [{"caption": item["hyp"]}] for i, item in enumerate(items)}
    makers = dict(zip(SCORERS, (lambda: Bleu(4), Rouge, Cider, Meteor)))
    scores, seconds = {}, {}

    def timed(name, work):
        start = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            value = work()
        seconds[name] = time.perf_counter() - start
        return value

    tokens = timed("tok", lambda: (PTBTokenizer().tokenize(references), PTBTokenizer().tokenize(hypotheses)))
    for name in wanted:
        scores[name] = timed(name, lambda: makers[name]().compute_score(*tokens)[0])
    print(json.dumps({"items": len(items), "scores": scores, "seconds": seconds}))


def run(command):
    """What it printed, with its processor's seconds and its peak memory in MB (the largest of its processes)."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    child = subprocess.run(["/usr/bin/time", "-f", "%M", *command], capture_output=True, text=True)
    if child.returncode != 0:
        sys.exit(f"{' '.join(command)} failed: {child.stderr[-500:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return json.loads(child.stdout.splitlines()[-1]) | {"cpu": cpu, "mb": int(child.stderr.split()[-1]) / 1024}


def seconds(record, *names):
    return sum(record["seconds"][name] for name in names)


def side_by_side(a):
    mine = [a.ours, a.cases, "--repeat", str(a.repeat)]
    theirs = [sys.executable, __file__, a.cases, "--repeat", str(a.repeat), "--as-peer"]
    rounds = {"mine": [], "mine_plain": [], "theirs": [], "theirs_plain": []}
    loads = []
    for _ in range(a.rounds):
        loads.append(os.getloadavg()[0])
        rounds["mine"].append(run(mine))
        rounds["theirs"].append(run([*theirs, ",".join(SCORERS)]))
        rounds["mine_plain"].append(run([*mine, "--no-meteor"]))
        rounds["theirs_plain"].append(run([*theirs, ",".join(SCORERS[:3])]))
    # Each figure is the fastest of the rounds.
    fastest = lambda who, *names: min(seconds(r, *names) for r in rounds[who])
    o, r = rounds["mine"][0], rounds["theirs"][0]
    for name in SCORERS[1:]:
        assert abs(o["scores"][name] - r["scores"][name]) < 1e-9, (name, o["scores"][name], r["scores"][name])
    assert all(abs(x - y) < 1e-9 for x, y in zip(o["scores"]["bleu"], r["scores"]["bleu"], strict=True))
    rows = [
        (
            "tokenizing, BLEU, ROUGE-L and CIDEr (ours in one call)",
            fastest("mine_plain", "one_call"), fastest("theirs_plain", "tok", "bleu", "rouge", "cider"), 20,
        ),
        ("tokenizing and METEOR", fastest("mine", "tok", "meteor"), fastest("theirs", "tok", "meteor"), 10),
        ("METEOR", fastest("mine", "meteor"), fastest("theirs", "meteor"), 10),
        ("all of it (ours in one call)", fastest("mine", "one_call"), fastest("theirs", "tok", *SCORERS), None),
        ("tokenizing", fastest("mine", "tok"), fastest("theirs", "tok"), None),
        ("BLEU, one thread", fastest("mine", "bleu"), fastest("theirs", "bleu"), None),
        ("ROUGE-L, one thread", fastest("mine", "rouge"), fastest("theirs", "rouge"), None),
        ("CIDEr, one thread", fastest("mine", "cider"), fastest("theirs", "cider"), None),
        (
            "processor's seconds without METEOR, start to end",
            min(r["cpu"] for r in rounds["mine_plain"]), min(r["cpu"] for r in rounds["theirs_plain"]), None,
        ),
        (
            "processor's seconds of all of it, start to end",
            min(r["cpu"] for r in rounds["mine"]), min(r["cpu"] for r in rounds["theirs"]), None,
        ),
    ]
    print(f"{o['items']} hypotheses, {os.cpu_count()} cores, fastest of {a.rounds} rounds,", end=" ")
    print(f"load average {', '.join(f'{load:.1f}' for load in loads)} before each")
    print("| what | ours, s | pycocoevalcap, s | ratio | floor |\n| --- | --- | --- | --- | --- |")
    missed = []
    for what, ours, other, floor in rows:
        print(f"| {what} | {ours:.2f} | {other:.2f} | {other / ours:.1f} | {floor or ''} |")
        if floor and other / ours < floor:
            missed.append(what)
    start_up = max(seconds(record, "start_up") for record in rounds["mine"])
    peak = max(record["mb"] for record in rounds["mine"])
    print(f"| start-up with METEOR's cache in place, slowest | {start_up:.3f} | | | 0.2 s |")
    print(f"| peak memory, MB | {peak:.0f} | {max(record['mb'] for record in rounds['theirs']):.0f} | | 500 MB |")
    missed += ["start-up"] * (start_up > 0.2) + ["peak memory"] * (peak > 500)
    if missed:
        sys.exit(f"floors missed: {', '.join(missed)}")


p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("cases")
p.add_argument("--ours", default=os.path.join(TARGET, "release/examples/coco_metrics"), help="the example, built")
p.add_argument("--repeat", type=int, default=5, help="the cases so many times over, as different images")
p.add_argument("--rounds", type=int, default=3)
p.add_argument("--as-peer", metavar="METRICS", help=argparse.SUPPRESS)
args = p.parse_args()
if args.as_peer:
    peer(args.cases, args.repeat, args.as_peer.split(","))
else:
    side_by_side(args)
