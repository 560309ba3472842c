import { afterFailure } from "./backoff";
import type { Dispose, Followed } from "./model";
import type { News, StatusSource } from "./news";
import type { StatusOptions } from "./options";
import { asker, Refused, Unanswered } from "./request";
import type { Topic } from "./topic";

const POLL_MS = 3000;
/** Between polls that fail, at most. */
const LONGEST_MS = 10_000;

/** The stream's twin: asks every few seconds, one question at a time, until it is over. */
export class StatusPolling<State extends Followed> implements StatusSource {
  readonly #topic: Topic<State>;
  readonly #options: StatusOptions;
  readonly #known: () => State;

  /** `known` is what need not be asked for. */
  constructor(
    topic: Topic<State>,
    options: StatusOptions,
    known: () => State = () => topic.unknown,
  ) {
    this.#topic = topic;
    this.#options = options;
    this.#known = known;
  }

  subscribe(listener: (news: News) => void): Dispose {
    const ending = new AbortController();
    const ask = asker(this.#options, ending.signal);
    const poll = this.#topic.polls(this.#known);
    const pollMs = this.#options.pollMs ?? POLL_MS;
    let timer: ReturnType<typeof setTimeout> | undefined;
    let failures = 0;

    const tell = (news: News) => {
      if (!ending.signal.aborted) listener(news);
    };
    const next = async (): Promise<void> => {
      let waitMs = pollMs;
      try {
        const answers = await poll(ask);
        failures = 0;
        answers.forEach(tell);
      } catch (error) {
        if (error instanceof Refused) return tell({ type: "refused", problem: error.problem });
        failures += 1;
        const retryAfterMs = error instanceof Unanswered ? error.retryAfterMs : 0;
        waitMs = Math.max(retryAfterMs, afterFailure(failures, pollMs, LONGEST_MS));
        tell({ type: "unanswered", retryAfterMs });
      }
      if (!ending.signal.aborted) timer = setTimeout(next, waitMs);
    };

    void next();
    return () => {
      ending.abort();
      clearTimeout(timer);
    };
  }
}
