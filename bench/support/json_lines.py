"""How a rival is asked and answers: one JSON object a line in, one out."""

import json
import sys

OUT = sys.stdout  # libraries may print elsewhere once sys.stdout is another


def requests():
    for line in sys.stdin:
        yield json.loads(line)


def answer(**fields):
    print(json.dumps(fields), file=OUT, flush=True)
