import type { ChatTemplate } from "./chat-template.js";
import type { ChatMessage, Tool, ToolCall } from "./messages.js";

/** A text that no template writes by itself, and no other number's is a part of. */
const markOf = (number: number): string => `\ue000${number}\ue001`;

/** The mark as it is, or as JSON in ASCII writes it. */
const shows = (text: string, mark: string): boolean =>
  text.includes(mark) || text.includes(mark.replace("\ue000", "\\ue000").replace("\ue001", "\\ue001"));

/**
 * What a template leaves out of tools, calls and tools' turns, where a model would be asked something else than the row says;
 * undefined: nothing. It is found by marks on names and results, which must come out again.
 */
export function leftOut(
  template: ChatTemplate,
  messages: readonly ChatMessage[],
  tools: readonly Tool[],
  variables: Readonly<Record<string, unknown>>,
): string | undefined {
  const marked: [mark: string, what: string][] = [];
  const mark = (text: unknown, what: string): string => {
    const made = markOf(marked.length);
    marked.push([made, what]);
    return `${text}${made}`;
  };
  const markedCall = (call: ToolCall, what: string): ToolCall => {
    const { name, arguments: given } = call.function;
    const named = mark(name, `the ${what}`);
    const own = { [mark("", `arguments of the ${what}`)]: "" };
    return { ...call, function: { name: named, arguments: { ...given, ...own } } };
  };
  const shown = tools.map((tool, i) => {
    const called = tool.function as Tool;
    return { ...tool, function: { ...called, name: mark(called.name, `tool ${i + 1} (${called.name})`) } };
  });
  const turns = messages.map((message, i): ChatMessage => {
    const { role, content, tool_calls: calls } = message;
    if (role === "tool") return { ...message, content: mark(content, `message ${i + 1}, a tool's result`) };
    if (calls === undefined) return message;
    return {
      ...message,
      tool_calls: calls.map((call) => markedCall(call, `call of ${call.function.name} in message ${i + 1}`)),
    };
  });
  if (marked.length === 0) return undefined;
  const text = template.render(turns, { addGenerationPrompt: false, variables, tools: shown });
  return marked.find(([made]) => !shows(text, made))?.[1];
}
