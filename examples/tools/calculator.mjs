/** A tool that a model may call: rlsd train run.yaml, with environment: { type: tools, path: ./calculator.mjs }. */
const TOKEN = /\s*(\d+(?:\.\d+)?|[-+*/()])/y;

function tokensOf(text) {
  const tokens = [];
  TOKEN.lastIndex = 0;
  while (TOKEN.lastIndex < text.trimEnd().length) {
    const at = TOKEN.lastIndex;
    const found = TOKEN.exec(text);
    if (found === null) throw new Error(`numbers, + - * / and ( ) are read, but not ${JSON.stringify(text.slice(at))}`);
    tokens.push(found[1]);
  }
  return tokens;
}

// A sum is products with + or - between, a product factors with * or /, a factor a number, -factor or (sum).
function evaluate(text) {
  const tokens = tokensOf(text);
  let at = 0;
  const factor = () => {
    const token = tokens[at++];
    if (token === "-") return -factor();
    if (token !== "(") {
      if (token === undefined || Number.isNaN(Number(token)))
        throw new Error(`a number was expected, not ${token ?? "the end"}`);
      return Number(token);
    }
    const inner = sum();
    if (tokens[at++] !== ")") throw new Error("a bracket does not close");
    return inner;
  };
  const chain = (operators, operand) => () => {
    let value = operand();
    while (operators.includes(tokens[at])) {
      const operator = tokens[at++];
      const next = operand();
      value = { "+": value + next, "-": value - next, "*": value * next, "/": value / next }[operator];
    }
    return value;
  };
  const sum = chain(["+", "-"], chain(["*", "/"], factor));
  const value = sum();
  if (at < tokens.length) throw new Error(`there is ${tokens[at]} behind the end`);
  return value;
}

export const calculator = {
  description: "Evaluates an arithmetic expression.",
  parameters: {
    type: "object",
    properties: { expression: { type: "string", description: "such as (17 + 25) * 3" } },
    required: ["expression"],
    additionalProperties: false,
  },
  call: ({ expression }) => evaluate(expression),
};
