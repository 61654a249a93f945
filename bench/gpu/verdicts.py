"""The three targets at N = 16384, V = 151936, bf16, from a timing report: measured on a GPU with resident rows or not."""

SHAPE, LOGITS = (16384, 151936), ("random", "peaked")
OURS = "rlsd, resident rows"
OFFICIAL = "official path (flash-attention's cross entropy)"
# A gradient that is farther than this from ours, relatively, is another one. bf16 rounds to 4e-3.
TOLERANCE = 0.02
WORDS = {True: "met", False: "not met", None: "undecided"}
GOALS = {
    "share of copy bandwidth at 6 bytes an element": 0.9,
    "times the best peer": 1.3,
    "times the official path": 3.0,
}


def reason(timing):
    """Why nothing counts, or None."""
    if not timing.get("shapes"):
        return "nothing was timed"
    if not timing["measured"]:
        return "no GPU"
    if timing["device"]["capability"][0] < 9:
        return "no resident rows on this device"
    timed = {s["logits"] for s in at_shape(timing) if any(row["name"] == OURS for row in s["rows"])}
    if not timed.issuperset(LOGITS):
        return "resident rows were not timed at the target's shape with random and with peaked logits"
    kernels = [row["kernel"] for s in at_shape(timing) for row in s["rows"] if row["name"] == OURS]
    if any(kernel["blocks"] < kernel["preferred blocks"] for kernel in kernels):
        return f"the device had no room for {kernels[0]['preferred blocks']} blocks a row: {kernels[0]['blocks']} were timed"
    return None


def at_shape(timing):
    return [s for s in timing["shapes"] if (s["tokens"], s["vocabulary"]) == SHAPE]


def agrees(row):
    return isinstance(row["difference"], float) and row["difference"] <= TOLERANCE


def agreeing(shape):
    """{peer: ms} of those whose gradient is ours."""
    return {row["name"]: row["ms"] for row in shape["rows"] if row["peer"] and agrees(row)}


def missing_at(shapes):
    """Peers that did not run or have another gradient, for some kind of logits."""
    names = [name for s in shapes for name in s["not_run"]]
    names += [row["name"] for s in shapes for row in s["rows"] if row["peer"] and not agrees(row)]
    return sorted(set(names))


def of_shape(shape):
    """{goal: measured or None} of one kind of logits. Where no peer has our gradient, ours may be the wrong one."""
    ms = agreeing(shape)
    if not ms:
        return dict.fromkeys(GOALS)
    ours = next(row for row in shape["rows"] if row["name"] == OURS)
    official = ms[OFFICIAL] / ours["ms"] if OFFICIAL in ms else None
    return dict(zip(GOALS, (ours["of_floor"], min(ms.values()) / ours["ms"], official)))


def verdicts(timing):
    """A target is met when it is for every kind of logits. None: undecided, the best peer may be one that is missing."""
    why = reason(timing)
    if why is not None:
        return {goal: {"goal": least, "not_measured": why} for goal, least in GOALS.items()}
    shapes = at_shape(timing)
    missing = missing_at(shapes)
    found = {}
    for goal, least in GOALS.items():
        measured = {s["logits"]: of_shape(s)[goal] for s in shapes}
        if None in measured.values():
            found[goal] = {"goal": least, "not_measured": f"without, or with other gradients: {', '.join(missing)}"}
            continue
        found[goal] = {"goal": least, "measured": measured, "met": all(v >= least for v in measured.values())}
        if goal == "times the best peer" and missing:
            found[goal].update(met=None if found[goal]["met"] else False, without=missing)
    return found


def lines(found):
    for goal, verdict in found.items():
        words = f"target: at least {verdict['goal']:g} {goal}: "
        if "not_measured" in verdict:
            yield words + f"not measured ({verdict['not_measured']})"
            continue
        values = ", ".join(f"{value:.3f} ({kind} logits)" for kind, value in verdict["measured"].items())
        without = f", without {', '.join(verdict['without'])}" if "without" in verdict else ""
        yield words + f"{values}: {WORDS[verdict['met']]}{without}"
