"""A report as a short table."""

import verdicts


def last_line(text):
    return (text.strip().splitlines() or ["no words"])[-1][:300]


def build_lines(report):
    build, device = report.get("build", {}), report.get("device") or {}
    words = f"library                {build.get('library', 'none')}"
    yield words + (f", nvcc {build['compilers'][build['nvcc']]}" if build.get("nvcc") else "")
    if "problem" in build:
        yield f"  not built here: {last_line(build['problem'])}"
    if "problem" in device:
        version = (report["machine"].get("driver") or {}).get("version")
        words = f"the driver is of CUDA {version[0]}.{version[1]}: " if version else ""
        yield f"  no device for it: {words}{device['problem'][:300]}"


def check_lines(report):
    for name, checks in report["checks"].items():
        if "not_run" in checks:
            yield f"{name:22} not run: {checks['not_run']}"
        elif isinstance(checks.get("passed"), int):
            yield f"{name:22} {checks['passed']} tests passed, {checks['failed']} failed"
        else:
            count = sum(verdict == "passed" for verdict in checks.values())
            failed = [check for check, verdict in checks.items() if verdict != "passed" and check != "failed"]
            words = f", FAILED: {', '.join(failed) or 'see the report'}" if checks.get("failed") else ""
            yield f"{name:22} {count} checks passed{words}"
    for name, verdict in report["sanitizer"].items():
        yield f"{name:22} {verdict if len(verdict) < 160 else 'FAILED, see the report'}"


def kernel_words(row):
    """By how many blocks a row was kept, and by how many it should be."""
    kernel = row.get("kernel")
    if not kernel or kernel["kernel"] != "rows-resident":
        return ""
    less = "" if kernel["blocks"] == kernel["preferred blocks"] else f" IN THE PLACE OF {kernel['preferred blocks']}"
    return f"  {kernel['blocks']} blocks a row{less}"


def shape_lines(shape):
    yield f"\n{shape['tokens']} x {shape['vocabulary']} bf16, {shape['logits']} logits"
    # The first is the kernel that is meant for this device.
    ours = shape["rows"][0]["ms"]
    for row in shape["rows"]:
        against = f"{row['ms'] / ours:6.2f}x" if row["job"] == "step" else "   part"
        share = f"{100 * row['of_floor']:5.1f}% of copy at {row['bytes_per_element']:2} bytes"
        apart = "" if verdicts.agrees(row) else f"  ANOTHER GRADIENT: {row['difference']}"
        yield f"  {row['name']:48} {row['ms']:9.3f} ms  {share}  {against}{kernel_words(row)}{apart}"
    for name, why in shape["not_run"].items():
        yield f"  not run: {name}: {why[:120]}"


def token_lines(levels):
    for level in levels:
        shape = f"{level['tokens']} log-probs, {level['sequences']} sequence(s)"
        yield f"\n{shape}: microseconds on the device, and for the caller"
        for row in level["rows"]:
            yield f"  {row['name']:48} {row['device us']:9.1f}    {row['call us']:9.1f}"
        for name, why in level["not_run"].items():
            yield f"  not run: {name}: {why[:120]}"


def timing_lines(timing):
    if "ceilings" not in timing:
        yield f"timing                 {'failed: ' + last_line(timing['output']) if timing.get('output') else 'not run'}"
        return
    if not timing["measured"]:
        yield "No GPU: the figures below only show that the harness runs."
    ceilings = timing["ceilings"]
    yield f"copy {ceilings['copy']['GB/s']:.0f} GB/s, bf16 product {ceilings['bf16 product']['TFLOP/s']:.0f} TFLOP/s"
    for shape in timing["shapes"]:
        yield from shape_lines(shape)
    if "prefetch" in timing:
        words = ", ".join(f"{row['KiB']}: {row['ms']:.3f} ms" for row in timing["prefetch"]["rows"])
        yield f"\nprefetch by KiB, {timing['prefetch']['tokens']} x {timing['prefetch']['vocabulary']}: {words}"
    yield from token_lines(timing.get("log_prob_level", []))
    for text in timing["not_run"]:
        yield f"not run: {text}"
    if "output" in timing:
        yield f"timing stopped early: {last_line(timing['output'])}"


def lines(report):
    yield from build_lines(report)
    yield from check_lines(report)
    yield from timing_lines(report["timing"])
    yield ""
    yield from verdicts.lines(report["verdicts"])
    for text in report["cut"]:
        yield f"cut short: {text}"
    for name, text in report["errors"].items():
        yield f"{name} FAILED: {last_line(text)}"
