import { asProblem, isTransient, Problem } from "../api/problem";
import { size } from "../words/size";
import { backoffMs } from "./backoff";
import { requireReadable } from "./readable";
import { type Session, type Transfer, transfer } from "./transfer";
import { chosen, common, isUnfinished, type Upload, type UploadChoice } from "./upload";

/** How many go at the same time. */
export const MAX_SENDING = 2;

interface Running {
  transfer: Transfer | null;
  timer: ReturnType<typeof setTimeout> | null;
}

/**
 * The files that are chosen, on their way, or just arrived, in the order they were chosen. It
 * belongs to no page, so uploads go on while the reader moves about.
 *
 * What did not get through (network, 408, 429, 5xx) is sent again by itself with the same
 * `Idempotency-Key`; what was refused waits for a decision. A 401 waits for `resume`.
 */
export class UploadQueue {
  #uploads: readonly Upload[] = [];
  readonly #running = new Map<string, Running>();
  readonly #listeners = new Set<() => void>();
  readonly #send: typeof transfer;
  #maxBytes = Number.POSITIVE_INFINITY;
  /** Called when a file became a session. */
  onDone: (session: Session) => void = () => {};
  /** Called when nobody is signed in any more. */
  onSignedOut: () => void = () => {};

  constructor(send: typeof transfer = transfer) {
    this.#send = send;
  }

  subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  snapshot = (): readonly Upload[] => this.#uploads;

  /** The largest file the server takes; larger ones are refused without being sent. */
  limit(maxBytes: number): void {
    this.#maxBytes = maxBytes;
  }

  /** More files; what was decided about all that were chosen before holds for them too. */
  choose(files: Iterable<File>, patientId: string | null): void {
    const before = this.#uploads.filter(({ phase }) => phase === "chosen");
    const language = common(before, ({ language }) => language) ?? null;
    const owner = patientId ?? common(before, ({ patientId }) => patientId) ?? null;
    const added = Array.from(files, (file) => ({ ...chosen(file, owner), language }));
    this.#set([...this.#uploads, ...added]);
  }

  change(id: string, choice: UploadChoice): void {
    this.#patch(id, choice);
  }

  /** Send every chosen file. Those that arrived before take their places in the lists. */
  start(): void {
    this.removeDone();
    for (const { id, phase } of this.#uploads) {
      if (phase === "chosen") this.#enqueue(id);
    }
    this.#advance();
  }

  /** Send one again that waits for its next try, or was refused. */
  retry(id: string): void {
    this.#halt(id);
    this.#enqueue(id);
    this.#advance();
  }

  /** Back to the chosen ones, to be decided about again. */
  reconsider(id: string): void {
    this.#halt(id);
    this.#patch(id, { phase: "chosen", problem: null, failures: 0 });
  }

  /** Send again what waits for its next try: the network is back, or somebody signed in. */
  resume(): void {
    for (const { id, phase } of this.#uploads) if (phase === "pausing") this.retry(id);
  }

  /** Stop it, if it is on its way, and forget it. */
  remove(id: string): void {
    this.#halt(id);
    this.#set(this.#uploads.filter((upload) => upload.id !== id));
    this.#advance();
  }

  removeAll(): void {
    for (const { id } of this.#uploads) this.remove(id);
  }

  /** Forget those that are sessions now; lists show them without our help. */
  removeDone(): void {
    this.#set(this.#uploads.filter(({ phase }) => phase !== "done"));
  }

  get isUnfinished(): boolean {
    return this.#uploads.some(isUnfinished);
  }

  #enqueue(id: string): void {
    const tooLarge = this.#tooLarge(id);
    if (tooLarge) this.#refuse(id, tooLarge);
    else this.#patch(id, { phase: "waiting", sentBytes: 0, retryAtMs: null, problem: null });
  }

  #tooLarge(id: string): Problem | null {
    const bytes = this.#uploads.find((upload) => upload.id === id)?.file.size ?? 0;
    if (bytes <= this.#maxBytes) return null;
    const most = size(this.#maxBytes);
    return new Problem(
      413,
      "too_large",
      `This file is larger than ${most}, the most that is taken.`,
    );
  }

  #advance(): void {
    for (const upload of this.#uploads) {
      if (this.#busy() >= MAX_SENDING) return;
      if (upload.phase === "waiting") void this.#sendOne(upload);
    }
  }

  #busy(): number {
    return this.#uploads.filter(({ phase }) => phase === "sending" || phase === "checking").length;
  }

  async #sendOne(upload: Upload): Promise<void> {
    const running: Running = { transfer: null, timer: null };
    this.#running.set(upload.id, running);
    this.#patch(upload.id, { phase: "sending" });
    try {
      await requireReadable(upload.file);
      if (this.#running.get(upload.id) !== running) return;
      running.transfer = this.#send({ ...upload, idempotencyKey: upload.id }, (sent, total) =>
        this.#sent(upload, sent, total),
      );
      this.#arrived(upload.id, await running.transfer.done);
    } catch (error) {
      if (this.#running.get(upload.id) === running) this.#failed(upload, asProblem(error));
    }
    this.#advance();
  }

  /** `sent` counts the form around the file too. */
  #sent({ id, file }: Upload, sent: number, total: number): void {
    const sentBytes = Math.min(file.size, sent);
    this.#patch(id, { sentBytes, phase: sent >= total ? "checking" : "sending" });
  }

  #arrived(id: string, session: Session): void {
    this.#running.delete(id);
    this.#patch(id, { phase: "done", session });
    this.onDone(session);
  }

  #failed(upload: Upload, problem: Problem): void {
    if (problem.status === 401) this.#pause(upload.id, problem, null);
    else if (!isTransient(problem)) this.#refuse(upload.id, problem);
    else this.#pause(upload.id, problem, backoffMs(upload.failures, problem.retryAfterMs));
    if (problem.status === 401) this.onSignedOut();
  }

  #refuse(id: string, problem: Problem): void {
    this.#running.delete(id);
    this.#patch(id, { phase: "refused", problem, retryAtMs: null });
  }

  #pause(id: string, problem: Problem, waitMs: number | null): void {
    const failures = (this.#uploads.find((upload) => upload.id === id)?.failures ?? 0) + 1;
    const timer = waitMs === null ? null : setTimeout(() => this.retry(id), waitMs);
    this.#running.set(id, { transfer: null, timer });
    const retryAtMs = waitMs === null ? null : Date.now() + waitMs;
    this.#patch(id, { phase: "pausing", problem, failures, retryAtMs, sentBytes: 0 });
  }

  #halt(id: string): void {
    const running = this.#running.get(id);
    this.#running.delete(id);
    if (running?.timer) clearTimeout(running.timer);
    running?.transfer?.stop();
  }

  #patch(id: string, change: Partial<Upload>): void {
    this.#set(this.#uploads.map((each) => (each.id === id ? { ...each, ...change } : each)));
  }

  #set(uploads: readonly Upload[]): void {
    this.#uploads = uploads;
    for (const listener of this.#listeners) listener();
  }
}
