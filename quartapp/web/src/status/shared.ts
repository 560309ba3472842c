import type { Dispose, Followed } from "./model";
import type { Signal } from "./news";
import type { StatusOptions } from "./options";
import { Tab } from "./tabs";
import type { Topic } from "./topic";

/** Listeners are told at most once in a frame, however much is heard. */
const FRAME_MS = 16;

/** A followed topic: all watchers of this page share it, and the last one to leave ends it. */
class Shared<State extends Followed> {
  readonly #topic: Topic<State>;
  readonly #tab: Tab<State>;
  readonly #listeners = new Set<(state: State) => void>();
  readonly #onUnused: Dispose;
  #started = false;
  #timer: ReturnType<typeof setTimeout> | undefined;
  state: State;

  constructor(topic: Topic<State>, options: StatusOptions, onUnused: Dispose) {
    this.#topic = topic;
    this.#onUnused = onUnused;
    this.state = topic.unknown;
    this.#tab = new Tab(
      topic,
      options,
      () => this.state,
      (signals) => this.#receive(signals),
    );
  }

  watch(listen: (state: State) => void): Dispose {
    const listener = (state: State) => listen(state); // the same may watch twice
    this.#listeners.add(listener);
    // Who leaves at once, as in a component that is mounted to try, has opened nothing.
    queueMicrotask(() => this.#start());
    listener(this.state);
    return () => {
      if (this.#listeners.delete(listener) && !this.#listeners.size) this.#stop();
    };
  }

  restart(): void {
    if (this.#started) this.#tab.restart();
  }

  #start(): void {
    if (this.#started || !this.#listeners.size) return;
    this.#started = true;
    this.#tab.start();
  }

  #stop(): void {
    clearTimeout(this.#timer);
    this.#onUnused();
    if (this.#started) this.#tab.stop();
  }

  #receive(signals: readonly Signal[]): void {
    this.state = signals.reduce(this.#topic.after, this.state);
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      for (const listener of this.#listeners) listener(this.state);
    }, FRAME_MS);
  }
}

const followed = new Map<string, Shared<Followed>>();

/** What tells apart who follows what; functions among the options do not. */
function keyOf({ name }: { readonly name: string }, options: StatusOptions): string {
  return JSON.stringify([name, options.baseUrl, options.viewer]);
}

/** Watch a topic with all others of this page who do. The options are those of the first. */
export function watch<State extends Followed>(
  topic: Topic<State>,
  options: StatusOptions,
  listener: (state: State) => void,
): Dispose {
  const key = keyOf(topic, options);
  let shared = followed.get(key) as Shared<State> | undefined;
  if (!shared) {
    const made = new Shared(topic, options, () => {
      if (followed.get(key) === (made as unknown)) followed.delete(key);
    });
    shared = made;
    followed.set(key, made as unknown as Shared<Followed>);
  }
  return shared.watch(listener);
}

/** Begin again, if anyone on this page follows it. */
export function restart(topic: { readonly name: string }, options: StatusOptions): void {
  followed.get(keyOf(topic, options))?.restart();
}
