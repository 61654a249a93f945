import { createTemplate } from "../lib/prompt/template.js";

const values = {
  yes: true,
  no: false,
  three: 3,
  half: 2.5,
  tiny: 0.00001,
  huge: 1e20,
  list: [1, "a", null, true, 0.5],
  object: { k: "it's", n: null, q: [1.5] },
  empty: "",
  indented: "\n  a\n b \n\n",
  marked: "\ufeffa\x85",
  astral: "<😀>",
};

const shown = (source: string): string => createTemplate(source).render(values);

// What Jinja 3.1.6 on Python 3.11 writes.
describe("a template writes what it does on Python", () => {
  test.each([
    ["{{ none }}|{{ undef }}|{{ yes }}|{{ no }}|{{ three }}|{{ half }}", "None||True|False|3|2.5"],
    ["{{ tiny }}|{{ huge }}|{{ 6 / 2 }}|{{ half * 2 }}", "1e-05|1e+20|3.0|5.0"],
    ["{{ list }}", "[1, 'a', None, True, 0.5]"],
    ["{{ object }}", "{'k': \"it's\", 'n': None, 'q': [1.5]}"],
    ["{{ three is string }}|{{ not yes }}|{{ 'a' in 'abc' }}", "False|False|True"],
    ["{% if yes %}{{ no }}{% else %}x{% endif %}{% for i in [none] %}{{ i }}{% endfor %}", "FalseNone"],
    ["{% macro m(a=none) %}{{ a }}{% endmacro %}{{ m() }}{{ m(yes) }}", "NoneTrue"],
    ["{% set s %}{{ none }}{% endset %}{{ s }}", "None"],
    ["{{ 'a' if no }}|{{ yes and 'b' }}|{{ empty or none }}", "|b|None"],
  ])("what is printed: %s", (source, text) => expect(shown(source)).toBe(text));

  test.each([
    ["{{ 'a' ~ none ~ undef ~ yes ~ three }}", "aNoneTrue3"],
    ["{{ 'a' ~ list ~ object }}", "a[1, 'a', None, True, 0.5]{'k': \"it's\", 'n': None, 'q': [1.5]}"],
    ["{{ list | join('-') }}|{{ [[1], no] | join }}|{{ 'abc' | join('.') }}", "1-a-None-True-0.5|[1]False|a.b.c"],
    ["{{ list | string }}|{{ none | string | length }}", "[1, 'a', None, True, 0.5]|4"],
    ["{{ ['x', 'null'] | upper }}|{{ none | lower }}", "['X', 'NULL']|none"],
  ])("what is a part of a text: %s", (source, text) => expect(shown(source)).toBe(text));

  test.each([
    ["{{ tiny | tojson }}|{{ huge | tojson }}|{{ (6 / 2) | tojson }}|{{ half | tojson }}", "1e-05|1e+20|3.0|2.5"],
    ["{{ [tiny, {'a': tiny}] | tojson }}", '[1e-05, {"a": 1e-05}]'],
    ["{{ {'a': tiny | tojson} | tojson }}", '{"a": "1e-05"}'],
    ["{{ object | tojson }}|{{ (three, none) | tojson }}", '{"k": "it\'s", "n": null, "q": [1.5]}|[3, null]'],
    [
      "{{ [] | tojson(indent=2) }}{{ {'b': [1], 'a': {}} | tojson(indent=2) }}",
      '[]{\n  "b": [\n    1\n  ],\n  "a": {}\n}',
    ],
    ["{{ {'b': [1], 'a': 2} | tojson(sort_keys=true, separators=(',', ':')) }}", '{"a":2,"b":[1]}'],
    [
      "{{ astral | tojson(ensure_ascii=true) }}|{{ astral | tojson(true) }}|{{ astral | tojson }}",
      '"<\\ud83d\\ude00>"|"<\\ud83d\\ude00>"|"<😀>"',
    ],
    [
      "{{ [1] | tojson(false, 1) }}|{{ [1] | tojson(indent=none) }}|{{ [1] | tojson(indent=0) }}",
      "[\n 1\n]|[1]|[\n1\n]",
    ],
  ])("what is written as JSON: %s", (source, text) => expect(shown(source)).toBe(text));

  test.each([
    ["{{ list | tojson(indnt=2) }}", "no parameter indnt"],
    ["{{ list | tojson(indent=1.5) }}", "expected an integer, a text or none for indent"],
    ["{{ list | tojson(separators=',') }}", "expected two texts or none for separators"],
    ["{{ list | tojson(sort_keys='x') }}", "expected true or false for sort_keys"],
    ["{{ range | tojson }}", "Cannot convert to JSON: FunctionValue"],
  ])("what cannot be written as JSON is an error: %s", (source, message) => {
    expect(() => shown(source)).toThrow(message);
  });

  test.each([
    ["[{{ indented.strip('\\n') }}]", "[  a\n b ]"],
    ["[{{ indented.lstrip('\\n') }}][{{ indented.rstrip('\\n') }}]", "[  a\n b \n\n][\n  a\n b ]"],
    ["[{{ indented.strip() }}][{{ indented | trim }}]", "[a\n b][a\n b]"],
    ["{{ '<a>'.strip('<>') }}|{{ '<a>' | trim('>') }}|{{ astral.strip('<>') }}", "a|<a|😀"],
    ["{{ marked.strip() }}|{{ marked | trim }}", "\ufeffa|\ufeffa"],
    ["{{ ('</think>\\n\\n  x'.split('</think>') | last).lstrip('\\n') }}", "  x"],
  ])("what is taken away at the ends: %s", (source, text) => expect(shown(source)).toBe(text));

  test.each([
    ["{{ empty == no }}{{ empty != no }}{{ '1' == 1 }}{{ [] == '' }}", "FalseTrueFalseFalse"],
    ["{{ yes == 1 }}{{ 0 == no }}{{ 1 == 1.0 }}{{ 'a' == 'a' }}", "TrueTrueTrueTrue"],
    [
      "{{ [] == [] }}{{ [1, [2]] == [1, [2]] }}{{ {'a': 1} == {'a': yes} }}{{ {'a': 1} != {'b': 1} }}",
      "TrueTrueTrueTrue",
    ],
    ["{{ none == none }}{{ undef == none }}{{ undef == undef }}{{ none == no }}", "TrueFalseTrueFalse"],
  ])("what is equal: %s", (source, text) => expect(shown(source)).toBe(text));

  test.each([
    [
      "{{ list is iterable }}{{ object is iterable }}{{ empty is iterable }}{{ undef is iterable }}",
      "TrueTrueTrueTrue",
    ],
    [
      "{{ three is iterable }}{{ none is iterable }}{{ yes is iterable }}{{ half is not iterable }}",
      "FalseFalseFalseTrue",
    ],
  ])("what can be gone through: %s", (source, text) => expect(shown(source)).toBe(text));

  test("a template with lines of another system", () => {
    expect(shown("{% if yes %}\r\na\r\n{% endif %}\r\nb\r\n")).toBe(shown("{% if yes %}\na\n{% endif %}\nb\n"));
    expect(shown("a\r\nb\rc")).toBe("a\nb\nc");
  });
});
