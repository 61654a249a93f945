// Plants one fault at a time in a copy of the sources and asks whether a test notices. Exits 1 when a fault survives.
//   node scripts/mutate.cjs [words of a fault's name]      needs a finished build; the checkout is never touched
const { spawnSync } = require("node:child_process");
const { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } = require("node:fs");
const { tmpdir } = require("node:os");
const path = require("node:path");

const root = path.resolve(__dirname, "..");

/** [name, file, what stands there, what is put in its place] */
const FAULTS = [
  ["no dual clip", "csrc/core/surrogate.h", "a < 0.0 && o.dual_clip < INFINITY", "false"],
  ["dual clip for A > 0", "csrc/core/surrogate.h", "a < 0.0 && o.dual_clip", "a > 0.0 && o.dual_clip"],
  ["a tie passes the first branch", "csrc/core/surrogate.h", "0.5 * (slope_a + slope_b)", "slope_a"],
  ["clamp blocks at its bound", "csrc/core/surrogate.h", "x >= low && x <= high", "x > low && x < high"],
  ["no ratio bound", "csrc/core/surrogate.h", "std::fmin(r, o.ratio_bound)", "r"],
  ["no clamp of the log-ratio", "csrc/core/evidence.h", "kMaxLogRatio = 20.0", "kMaxLogRatio = 1e9"],
  ["gspo clips at 20", "csrc/core/surrogate.h", "RLSD_GSPO ? 10.0 : kMaxLogRatio", "kMaxLogRatio"],
  [
    "sapo's temperatures swapped",
    "csrc/core/surrogate.h",
    "a > 0.0 ? o.sapo_temperature_pos",
    "a < 0.0 ? o.sapo_temperature_pos",
  ],
  ["wrong sign of the evidence", "csrc/core/evidence.h", "s * delta;", "-s * delta;"],
  ["credit by |A|", "csrc/core/evidence.h", "const double s = sign(advantage);", "const double s = advantage != 0.0;"],
  ["clip after the mix", "csrc/core/evidence.h", "{delta, w, c, true}", "{delta, w, w, true}"],
  [
    "mix swapped",
    "csrc/core/evidence.h",
    "(1.0 - o.credit_mix) + o.credit_mix * clipped",
    "o.credit_mix + (1.0 - o.credit_mix) * clipped",
  ],
  [
    "pessimistic takes the other side",
    "csrc/core/evidence.h",
    "s > 0.0 ? std::fmin(w, c) : std::fmax(w, c)",
    "s < 0.0 ? std::fmin(w, c) : std::fmax(w, c)",
  ],
  ["a teacher of +inf is evidence", "csrc/core/evidence.h", " || teacher == INFINITY", ""],
  ["span ignored", "csrc/core/token_loss.h", "a != 0.0 && t.in_span &&", "a != 0.0 &&"],
  ["negativeOnly ignored", "csrc/core/token_loss.h", "(!o.negative_only || sequence_negative)", "true"],
  [
    "wrong student source",
    "csrc/core/token_loss.h",
    "o.student_source_old ? t.old_log_prob : t.log_prob",
    "o.student_source_old ? t.log_prob : t.old_log_prob",
  ],
  ["contrast ignored", "csrc/core/token_loss.h", "t.has_contrast ? t.contrast : student", "student"],
  [
    "importance mask keeps what it should drop",
    "csrc/core/token_loss.h",
    "o.importance_max) ? ratio : 0.0",
    "o.importance_max) ? ratio : 1.0",
  ],
  ["k3's sign", "csrc/core/kl.h", "std::exp(bounded) - bounded - 1.0", "std::exp(bounded) + bounded - 1.0"],
  ["k3's slope passes beyond its clamp", "csrc/core/kl.h", "&& value <= o.kl_clamp", ""],
  ["k1's sign", "csrc/core/kl.h", "{-d, 1.0}", "{d, -1.0}"],
  ["lossScale ignored", "csrc/core/policy_pass.h", "out.loss_scale * q.omega * l.gradient", "q.omega * l.gradient"],
  [
    "mask ignored in the normaliser",
    "csrc/cpu/policy_tokens.cc",
    "if (p.completion_mask == nullptr) return p.tokens;",
    "return p.tokens;",
  ],
  [
    "sequence-mean over non-empty ones only",
    "csrc/core/policy_tokens.h",
    "given > 0.0 ? given : static_cast<double>(sequences)));",
    "given > 0.0 ? given : static_cast<double>(sequences > 1 ? sequences - 1 : 1)));",
  ],
  [
    "normalizer ignored",
    "csrc/core/policy_tokens.h",
    "const double given = o.normalizer;",
    "const double given = 0.0;",
  ],
  ["normalize counts bad rows", "csrc/core/policy_tokens.h", "if (!finite && !p.credit_only) return;", ""],
  ["masks not checked", "csrc/cpu/policy_tokens.cc", "if (mask[i] <= 1) continue;", "continue;"],
  ["falling cuSeqlens accepted", "csrc/cpu/policy_tokens.cc", "if (cu[b + 1] >= cu[b]) continue;", "continue;"],
  ["overlap accepted", "csrc/napi/policy_args.cc", "|| !is_apart()", ""],
  ["population deviation", "lib/ops/advantages.ts", "ddof = 1", "ddof = 0"],
  ["equal rewards rounded", "lib/ops/advantages.ts", " || areEqual(values)", ""],
  ["leave-one-out without its factor", "lib/ops/advantages.ts", "values.length / (values.length - 1)", "1"],
  ["schedule counts from 0", "lib/ops/schedule.ts", "stepBase = 1", "stepBase = 0"],
  ["the preset's clip", "lib/objectives/presets.ts", "clipHigh: 0.28, dualClip: 3", "clipHigh: 0.2, dualClip: 3"],
  ["the common loop forgets spans", "csrc/cpu/policy_loss.cc", " && p.span_mask == nullptr", ""],
  ["the common loop forgets negativeOnly", "csrc/cpu/policy_loss.cc", " && !o.negative_only", ""],
  ["a batch is read twice", "lib/ops/policy-loss.ts", "const read = readBatch(batch);", "const read = batch;"],
];

/** Quick ones first: most faults end there. */
const STAGES = [
  ["edges", "credit", "advantages", "schedule", "objectives"],
  ["validation", "policy-loss"],
];

function makeCopy() {
  const copy = mkdtempSync(path.join(tmpdir(), "rlsd-mutate-"));
  for (const name of ["csrc", "lib", "test", "build", "package.json", "binding.gyp", "jest.config.cjs"]) {
    cpSync(path.join(root, name), path.join(copy, name), { recursive: true, preserveTimestamps: true });
  }
  symlinkSync(path.join(root, "node_modules"), path.join(copy, "node_modules"));
  return copy;
}

const run = (copy, command, args) => spawnSync(command, args, { cwd: copy, encoding: "utf8", env: process.env });

/** True when every test passes on the sources as they stand in the copy. */
function passes(copy) {
  const jest = path.join("node_modules", "jest", "bin", "jest.js");
  return STAGES.every((names) => {
    const tests = names.map((name) => path.join("test", `${name}.test.ts`));
    return run(copy, process.execPath, [jest, "--bail", "--silent", ...tests]).status === 0;
  });
}

/** Always, also for a fault in lib: the addon may still hold the fault before. */
const rebuild = (copy) => run(copy, "make", ["-s", "-j2", "-C", "build", "BUILDTYPE=Release"]).status === 0;

/** The fault's end: "caught", "survived", or why it could not be tried. */
function judge(copy, file, from, to) {
  const at = path.join(copy, file);
  const source = readFileSync(at, "utf8");
  if (!source.includes(from)) return "not found: the source has changed, mend the list";
  writeFileSync(at, source.replace(from, to));
  try {
    if (!rebuild(copy)) return "does not compile: mend the list";
    return passes(copy) ? "survived" : "caught";
  } finally {
    writeFileSync(at, source);
  }
}

function main() {
  if (!existsSync(path.join(root, "build", "Makefile"))) throw new Error("Build the addon first: npm run build");
  const words = process.argv.slice(2).join(" ");
  const copy = makeCopy();
  const bad = [];
  try {
    if (!rebuild(copy) || !passes(copy)) throw new Error("The tests fail without any fault: mend them first.");
    for (const [name, file, from, to] of FAULTS.filter(([name]) => name.includes(words))) {
      const end = judge(copy, file, from, to);
      console.log(
        `${end === "caught" ? "caught  " : "SURVIVED"} ${name}${end === "caught" || end === "survived" ? "" : `: ${end}`}`,
      );
      if (end !== "caught") bad.push(name);
    }
  } finally {
    rmSync(copy, { recursive: true, force: true });
  }
  console.log(bad.length === 0 ? "Every fault was caught." : `${bad.length} faults survived.`);
  process.exit(bad.length === 0 ? 0 : 1);
}

module.exports = { FAULTS };

if (require.main === module) main();
