#!/usr/bin/env python3
"""One 6-word query over 8,000 photos x 20 regions x 512, ours and the peers in turn: ratio of median times.

    cargo build --release -p sightline-search --example exact_search
    python benches/exact_search.py target/release/examples/exact_search     (wants numpy and torch)

The peers are those of a chunked matrix product and maximum, numpy and PyTorch in f32 and bf16, each with the chunk
that suits it best; the photos' vectors lie in memory, as ours lie in the page cache. Prints one line a round.
"""
import json, os, re, statistics, subprocess, sys, time
PHOTOS, REGIONS, DIM, WORDS, ROUNDS, REPEAT = 8000, 20, 512, 6, 5, 15
for key in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(key, str(os.cpu_count()))
import numpy as np, torch
torch.set_num_threads(os.cpu_count())
rng = np.random.default_rng(0)
photos = rng.standard_normal((PHOTOS, REGIONS, DIM), dtype=np.float32)
words = rng.standard_normal((WORDS, DIM), dtype=np.float32)

def with_numpy(chunk):
    out, turned = np.empty(PHOTOS, np.float32), np.ascontiguousarray(words.T)
    for k in range(0, PHOTOS, chunk):
        block = photos[k:k + chunk]
        out[k:k + chunk] = (block.reshape(-1, DIM) @ turned).reshape(len(block), REGIONS, WORDS).max(1).sum(1)
    return out

def with_torch(regions, turned):
    def run(chunk):
        out = torch.empty(PHOTOS)
        for k in range(0, PHOTOS, chunk):
            block = regions[k:k + chunk]
            out[k:k + chunk] = (block.reshape(-1, DIM) @ turned).view(len(block), REGIONS, WORDS).amax(1).float().sum(1)
        return out
    return run

regions, turned = torch.from_numpy(photos), torch.from_numpy(words).T.contiguous()
engines = {"numpy": with_numpy, "torch": with_torch(regions, turned),
           "torch-bf16": with_torch(regions.bfloat16(), turned.bfloat16())}

def median_ms(run):
    run()
    times = []
    for _ in range(REPEAT):
        start = time.perf_counter(); run(); times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)

chunks = {name: min((8, 32, 128, 512, 2000, PHOTOS), key=lambda c: median_ms(lambda: run(c))) for name, run in engines.items()}
ours = {"f16": [], "int8": []}
peers = {name: [] for name in engines}
for _ in range(ROUNDS):
    for name, run in engines.items():
        peers[name].append(median_ms(lambda: run(chunks[name])))
    text = subprocess.run([sys.argv[1], "--repeat", str(REPEAT)], capture_output=True, text=True, check=True).stdout
    for name, key in (("f16", "F16"), ("int8", "Int8")):
        ours[name].append(float(re.search(rf"{key}:.*?median ([\d.]+) ms", text)[1]))
middle = {name: statistics.median(times) for name, times in (peers | ours).items()}
fastest = min(peers, key=lambda name: middle[name])
print(json.dumps({"median_ms": {name: round(ms, 2) for name, ms in middle.items()}, "chunk_of_peers": chunks,
                  "fastest_peer": fastest, "load": os.getloadavg(), "ratio_to_fastest_peer":
                  {name: round(middle[fastest] / middle[name], 2) for name in ours}}))
