#!/usr/bin/env python3
"""Prints the table of src/ptb/classes.rs by asking the reference tokenizer about every character.

    pip install pycocoevalcap==1.2        # holds the jar; Java is needed
    python ptb_classes.py PATH/TO/pycocoevalcap/tokenizer/stanford-corenlp-3.4.1.jar

Every character beyond ASCII is put alone ("x C x"), between letters ("x aCb x") and between digits ("x 1C2 x").
"""
import subprocess, sys, unicodedata

codes = [c for c in range(0x80, 0x10000) if not 0xD800 <= c < 0xE000 and c not in (0x85, 0x2028, 0x2029)]
lines = [form.replace("C", chr(c)) for c in codes for form in ("x C x", "x aCb x", "x 1C2 x")]
command = ["java", "-cp", sys.argv[1], "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
out = subprocess.run(command, input="\n".join(lines).encode(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                     env={"LC_ALL": "C.UTF-8", "PATH": "/usr/local/bin:/usr/bin:/bin"}).stdout.decode().split("\n")
KINDS = {("x C x", "x aCb x", "x 1C2 x"): "Letter", ("x C x", "x aCb x", "x 1 C2 x"): "WordOnly",
         ("x C x", "x a C b x", "x 1 C 2 x"): "Symbol"}
# Characters with rules of their own, found by what the reference spells them as.
NAMED = {"Dollar": [0x80, 0xA4, 0x20A0, 0x20AC], "Pound": [0xA3], "Cent": [0xA2], "SoftHyphen": [0xAD],
         "OpenSingle": [0x91, 0x2018, 0x201B, 0x2039], "CloseSingle": [0x92, 0x2019], "CloseAngle": [0x203A],
         "OpenDouble": [0x93, 0xAB, 0x201C], "CloseDouble": [0x94, 0xBB, 0x201D], "Ellipsis": [0x85, 0x2026],
         "Dash": [0x96, 0x97, 0x2013, 0x2014, 0x2015], "Hyphen": [0x58A, 0x2010, 0x2011], "NumberPoint": [0x66B, 0x66C],
         "Fraction": [0xBC, 0xBD, 0xBE, 0x2153, 0x2154], "FractionSlash": [0x2044], "IdeographicComma": [0x3001],
         "Blank": [0xA0, 0x3000, 0x2028, 0x2029, *range(0x2000, 0x200B)]}
classes = {}
for i, c in enumerate(codes):
    char = chr(c)
    answer = tuple(t.replace(char, "C").replace(char.lower(), "C") for t in out[3 * i:3 * i + 3])
    if answer in KINDS:
        classes[c] = "Digit" if KINDS[answer] == "Letter" and unicodedata.category(char) == "Nd" else KINDS[answer]
classes.update({c: name for name, members in NAMED.items() for c in members})
ranges = []
for c in sorted(classes):
    if ranges and ranges[-1][1] == c - 1 and ranges[-1][2] == classes[c]:
        ranges[-1][1] = c
    else:
        ranges.append([c, c, classes[c]])
line = "   "
for first, last, name in ranges:
    entry = f" (0x{first:04x}, 0x{last:04x}, Class::{name}),"
    if len(line) + len(entry) > 116:
        print(line)
        line = "   "
    line += entry
print(line)
