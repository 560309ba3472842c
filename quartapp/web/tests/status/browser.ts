import { afterAll, vi } from "vitest";

/**
 * A browser with several tabs in one: each has the core as a module of its own, and they share
 * locks (Web Locks, of which only exclusive ones are needed) and channels.
 */
export class ScriptedLocks {
  readonly #queues = new Map<string, (() => void)[]>();

  /** Names of the locks that are held or waited for. */
  get names(): string[] {
    return [...this.#queues.keys()];
  }

  async request(
    name: string,
    { signal }: { signal: AbortSignal },
    held: () => Promise<void>,
  ): Promise<void> {
    const queue = this.#queues.get(name) ?? [];
    this.#queues.set(name, queue);
    const turn = new Promise<void>((begin, refuse) => {
      queue.push(begin);
      signal.addEventListener("abort", () => {
        if (queue.indexOf(begin) < 1) return; // it is held already
        queue.splice(queue.indexOf(begin), 1);
        refuse(new DOMException("aborted", "AbortError"));
      });
    });
    if (queue.length === 1) queue[0]?.();
    await turn;
    await held();
    queue.shift();
    if (queue.length) queue[0]?.();
    else this.#queues.delete(name);
  }
}

/** A channel between tabs; delivers copies, in order, in a later turn. */
export class ScriptedChannel {
  static all = new Set<ScriptedChannel>();
  /** How long a message is on its way, in milliseconds. */
  static delayMs = 0;

  onmessage: ((event: { data: unknown }) => void) | null = null;
  /** Hears and says nothing, as that of a tab that stands still. */
  stuck = false;

  readonly name: string;

  constructor(name: string) {
    this.name = name;
    ScriptedChannel.all.add(this);
  }

  postMessage(data: unknown): void {
    if (!ScriptedChannel.all.has(this)) throw new DOMException("closed", "InvalidStateError");
    const copy = structuredClone(data);
    for (const other of ScriptedChannel.all) {
      if (other === this || other.name !== this.name || this.stuck || other.stuck) continue;
      const deliver = () => ScriptedChannel.all.has(other) && other.onmessage?.({ data: copy });
      if (ScriptedChannel.delayMs) setTimeout(deliver, ScriptedChannel.delayMs);
      else queueMicrotask(deliver);
    }
  }

  close(): void {
    ScriptedChannel.all.delete(this);
  }
}

export type Core = typeof import("../../src/status/index");

/** The core, as another tab loads it. */
export async function openTab(): Promise<Core> {
  vi.resetModules();
  return import("../../src/status/index");
}

afterAll(() => vi.resetModules());
