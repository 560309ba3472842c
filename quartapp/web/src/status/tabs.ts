import { browserClientId, randomClientId } from "./clientId";
import { Follow } from "./follow";
import { queueForLock } from "./lock";
import type { Dispose, Followed } from "./model";
import type { Signal } from "./news";
import { type StatusOptions, usesTickets } from "./options";
import { type Page, watchPage } from "./page";
import type { Topic } from "./topic";

/** A tab that leads answers within this time; else one follows by oneself until it does. */
const ANSWER_MS = 1000;
/** More than the leader's own patience, so that it may notice first. */
const PATIENCE = 1.2;
/** The end is heard by all tabs before another could take the lead. */
const RELEASE_MS = 500;

const BEGIN: Signal = { type: "facts", facts: { connection: "connecting", error: null } };
const DOUBT: Signal = { type: "facts", facts: { isStale: true } };

/** What tabs say to each other. */
type Note =
  | { readonly type: "ask" }
  | { readonly type: "restart" }
  /** Of the leader, who says something at least so often. */
  | {
      readonly type: "signals";
      readonly signals: readonly Signal[];
      readonly cursor: string;
      readonly quietMs: number;
    };

/**
 * One of the tabs of a browser that follow the same. The one that holds the lock leads: it has the
 * stream, and tells the others what it hears. Who comes next goes on from where the last one was.
 * Without locks or channels every tab follows by itself, and so does one whose leader is silent.
 */
export class Tab<State extends Followed> {
  readonly #topic: Topic<State>;
  readonly #options: StatusOptions;
  readonly #known: () => State;
  readonly #receive: (signals: readonly Signal[]) => void;
  readonly #name: string;
  #page: Page | null = null;
  #channel: BroadcastChannel | null = null;
  /** Gives the lock back, or the place in its queue. */
  #leave: Dispose | null = null;
  #leads = false;
  #follow: Follow<State> | null = null;
  #cursor = "";
  #over = false;
  #slept = false;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(
    topic: Topic<State>,
    options: StatusOptions,
    known: () => State,
    receive: (signals: readonly Signal[]) => void,
  ) {
    this.#topic = topic;
    this.#options = options;
    this.#known = known;
    this.#receive = receive;
    const { baseUrl = "", viewer = "" } = options;
    this.#name = ["quartapp-status 1", baseUrl, viewer, topic.name].join(" ");
  }

  start(): void {
    this.#over = false;
    this.#page ??= watchPage({
      wake: (changed) => this.#wake(changed),
      offline: () => this.#hear([DOUBT]),
      sleep: () => this.#sleep(),
    });
    this.#join();
  }

  stop(): void {
    this.#leavePage();
    this.#sleep();
  }

  /** Begin again, whatever happened before; in all tabs. */
  restart(): void {
    this.#post({ type: "restart" });
    this.#begin();
  }

  #begin(): void {
    if (this.#over) this.#receive([BEGIN]);
    if (this.#follow) this.#follow.restart();
    else this.start();
  }

  #join(): void {
    if (!this.#shares()) {
      this.#followOn(randomClientId());
      return;
    }
    this.#listen();
    this.#leave ??= this.#queue();
    if (this.#leads) this.#followOn(browserClientId());
    if (this.#follow) return;
    this.#post({ type: "ask" });
    this.#after(ANSWER_MS, () => this.#followOn(randomClientId()));
  }

  #shares(): boolean {
    const share = this.#options.shareTabs ?? !(this.#options.headers || usesTickets(this.#options));
    return share && Boolean(globalThis.navigator?.locks && globalThis.BroadcastChannel);
  }

  #listen(): void {
    if (this.#channel) return;
    this.#channel = new BroadcastChannel(this.#name);
    this.#channel.onmessage = ({ data }: MessageEvent<Note>) => this.#heed(data);
  }

  #queue(): Dispose {
    const lead = () => {
      this.#leads = true;
      clearTimeout(this.#timer);
      this.#followOn(browserClientId());
    };
    return queueForLock(this.#name, lead, () => this.#followOn(randomClientId()));
  }

  #followOn(clientId: string): void {
    if (this.#follow) return;
    this.#follow = new Follow<State>(
      this.#topic,
      this.#options,
      {
        known: this.#known,
        hear: (signals) => this.#hear(signals),
        over: () => this.#end(),
        unseen: () => this.#sleep(),
        hiddenMs: () => this.#page?.hiddenMs() ?? 0,
      },
      { cursor: this.#cursor, clientId },
    );
    if (this.#slept) this.#follow.wake(true);
    else this.#follow.start();
    this.#slept = false;
  }

  #hear(signals: readonly Signal[]): void {
    this.#receive(signals);
    if (this.#leads) this.#share(signals);
  }

  #share(signals: readonly Signal[]): void {
    if (!this.#follow) return;
    const { cursor, quietMs } = this.#follow;
    this.#post({ type: "signals", signals, cursor, quietMs });
  }

  #heed(note: Note): void {
    if (note.type === "restart") {
      if (this.#over || this.#leads) this.#begin();
    } else if (this.#over) {
      return; // others may look at it once more
    } else if (note.type === "signals") {
      this.#heedLeader(note);
    } else if (this.#leads) {
      this.#share(this.#topic.signals(this.#known()));
    }
  }

  #heedLeader({ signals, cursor, quietMs }: Extract<Note, { type: "signals" }>): void {
    this.#endFollow();
    this.#cursor = cursor;
    this.#receive(signals);
    if (this.#known().connection === "closed") this.#end();
    else this.#after(quietMs * PATIENCE, () => this.#followOn(randomClientId()));
  }

  #wake(changed: boolean): void {
    if (this.#follow) this.#follow.wake(changed);
    else this.#join();
  }

  /** Let go of everything but what is known. */
  #sleep(): void {
    this.#endFollow();
    this.#slept = true;
    this.#release();
    this.#channel?.close();
    this.#channel = null;
  }

  #end(): void {
    const led = this.#leads;
    this.#over = true;
    this.#leavePage();
    this.#endFollow();
    if (led) this.#after(RELEASE_MS, () => this.#release());
    else this.#release();
  }

  #leavePage(): void {
    this.#page?.dispose();
    this.#page = null;
  }

  #release(): void {
    clearTimeout(this.#timer);
    this.#leads = false;
    this.#leave?.();
    this.#leave = null;
  }

  #endFollow(): void {
    if (!this.#follow) return;
    this.#follow.stop();
    this.#cursor = this.#follow.cursor;
    this.#follow = null;
  }

  #after(waitMs: number, act: () => void): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(act, waitMs);
  }

  #post(note: Note): void {
    this.#channel?.postMessage(note);
  }
}
