#!/usr/bin/env python3
"""Scores own_sentences.json with the reference programs and writes own_cases.json beside it.

    pip install pycocoevalcap==1.2        # holds the jars; Java is needed
    python make_own_cases.py              # in crates/sightline-metrics/tests/reference

The sentences were made up for this project. "tasks" are METEOR's corpus scores for its other sets of parameters, from the
jar called by hand; the first four are those of the normalised, tokenised text that coco-caption gives it.
"""
import contextlib, io, json, os, pathlib, subprocess

import pycocoevalcap
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor.meteor import Meteor
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

here = pathlib.Path(__file__).parent
items = json.load(open(here / "own_sentences.json"))
refs = {i: [{"caption": r} for r in item["refs"]] for i, item in enumerate(items)}
hyps = {i: [{"caption": item["hyp"]}] for i, item in enumerate(items)}
tokenised_refs, tokenised_hyps = PTBTokenizer().tokenize(refs), PTBTokenizer().tokenize(hyps)
corpus, images = {}, [{} for _ in items]
with contextlib.redirect_stdout(io.StringIO()):
    bleu, bleu_images = Bleu(4).compute_score(tokenised_refs, tokenised_hyps)
for n in range(4):
    corpus[f"bleu{n + 1}"] = bleu[n]
    for i, image in enumerate(images):
        image[f"bleu{n + 1}"] = bleu_images[n][i]
for name, scorer in (("rouge_l", Rouge()), ("cider", Cider()), ("meteor", Meteor())):
    score, each = scorer.compute_score(tokenised_refs, tokenised_hyps)
    corpus[name] = float(score)
    for image, value in zip(images, each):
        image[name] = float(value)

# The other tasks of METEOR, by its jar: -t TASK, from files, where every reference line is repeated.
jar = pathlib.Path(pycocoevalcap.__path__[0]) / "meteor" / "meteor-1.5.jar"
tasks = {}
most = max(len(item["refs"]) for item in items)
for task in ("rank", "adq", "hter", "li", "universal"):
    with open("/tmp/own_hyp.txt", "w") as out:
        out.writelines(tokenised_hyps[i][0] + "\n" for i in range(len(items)))
    with open("/tmp/own_ref.txt", "w") as out:
        for i in range(len(items)):
            lines = tokenised_refs[i] + [tokenised_refs[i][-1]] * (most - len(tokenised_refs[i]))
            out.writelines(line + "\n" for line in lines)
    # The universal set asks for a language the jar does not know, and needs its files given; English's serve.
    extra = ["-l", "en", "-norm", "-t", task]
    if task == "universal":
        extra = ["-l", "en", "-norm", "-p", "0.70 1.40 0.30 0.70", "-m", "exact paraphrase", "-w", "1.0 0.6"]
    done = subprocess.run(["java", "-jar", "-Xmx2G", str(jar), "/tmp/own_hyp.txt", "/tmp/own_ref.txt", "-r", str(most),
                           *extra], cwd=jar.parent, capture_output=True, text=True)
    last = [line for line in done.stdout.splitlines() if line.startswith("Final score:")]
    if last:
        tasks[task] = float(last[0].split()[-1])
    else:
        print(task, done.stdout[-500:], done.stderr[-500:])
out = {"tool": "pycocoevalcap 1.2", "command": "python make_own_cases.py", "corpus": corpus, "tasks": tasks,
       "items": [{**item, "hyp_tok": tokenised_hyps[i][0], "refs_tok": tokenised_refs[i], "scores": images[i]}
                 for i, item in enumerate(items)]}
json.dump(out, open(here / "own_cases.json", "w"), indent=1, ensure_ascii=False)
print(json.dumps({"corpus": corpus, "tasks": tasks}))
