/** One event of a stream, as it would be dispatched. */
export interface StreamEvent {
  readonly name: string;
  readonly data: string;
  readonly lastEventId: string;
}

/**
 * Reads an event stream (WHATWG HTML, section 9.2.6) that comes in any pieces, those that part a
 * character or a line's end included. What is not ended by an empty line is no event.
 */
export class EventStreamParser {
  readonly #decoder = new TextDecoder();
  #rest = "";
  #name = "";
  #data: string[] = [];
  #lastEventId = "";

  /** The events that this piece completes. */
  push(piece: Uint8Array): StreamEvent[] {
    const text = this.#rest + this.#decoder.decode(piece, { stream: true });
    // A carriage return at the end may be half of a line's end.
    const whole = text.endsWith("\r") ? text.slice(0, -1) : text;
    const lines = whole.split(/\r\n|\r|\n/);
    this.#rest = (lines.pop() ?? "") + text.slice(whole.length);
    return lines.flatMap((line) => this.#line(line));
  }

  #line(line: string): StreamEvent[] {
    if (line === "") return this.#dispatch();
    const [, field, value = ""] = /^([^:]*)(?:: ?(.*))?$/s.exec(line) ?? [];
    if (field === "event") this.#name = value;
    if (field === "data") this.#data.push(value);
    if (field === "id" && !value.includes("\0")) this.#lastEventId = value;
    return [];
  }

  #dispatch(): StreamEvent[] {
    const event = {
      name: this.#name || "message",
      data: this.#data.join("\n"),
      lastEventId: this.#lastEventId,
    };
    const events = this.#data.length ? [event] : [];
    this.#name = "";
    this.#data = [];
    return events;
  }
}
