import type { Problem } from "../api/problem";
import type { Session } from "./transfer";

/**
 * `chosen`: not begun; can still be given a title. `waiting`: others go first. `sending`: on its
 * way. `checking`: all sent, the server looks at it. `pausing`: did not get through; goes again at
 * `retryAtMs`. `refused`: will not go again by itself. `done`: it is a session now.
 */
export type UploadPhase =
  | "chosen"
  | "waiting"
  | "sending"
  | "checking"
  | "pausing"
  | "refused"
  | "done";

/** One file on its way to a session. Immutable: a change makes a new one. */
export interface Upload {
  /** Also its `Idempotency-Key`. */
  readonly id: string;
  readonly file: File;
  readonly title: string;
  readonly language: string | null;
  /** Whose session it is to be; null: the uploader's own. */
  readonly patientId: string | null;
  readonly phase: UploadPhase;
  readonly sentBytes: number;
  /** How often it was sent without getting through. */
  readonly failures: number;
  /** When it goes again, in milliseconds of this machine's clock; null: not by itself. */
  readonly retryAtMs: number | null;
  readonly problem: Problem | null;
  readonly session: Session | null;
}

/** What can be decided about a chosen file. */
export type UploadChoice = Partial<Pick<Upload, "title" | "language" | "patientId">>;

/** A chosen file. */
export function chosen(file: File, patientId: string | null): Upload {
  return {
    id: newKey(),
    file,
    title: titleOf(file.name),
    language: null,
    patientId,
    phase: "chosen",
    sentBytes: 0,
    failures: 0,
    retryAtMs: null,
    problem: null,
    session: null,
  };
}

/** What all uploads have in common; undefined where they differ, and of none. */
export function common<Value>(
  uploads: readonly Upload[],
  of: (upload: Upload) => Value,
): Value | undefined {
  const [first, ...rest] = uploads.map(of);
  return rest.every((other) => other === first) ? first : undefined;
}

/** Whether leaving the page would lose it. */
export function isUnfinished({ phase }: Upload): boolean {
  return phase === "waiting" || phase === "sending" || phase === "checking" || phase === "pausing";
}

/** A file's name without its ending. */
export function titleOf(fileName: string): string {
  return fileName.replace(/\.[a-z0-9]{1,5}$/i, "").trim() || fileName;
}

/** Not `crypto.randomUUID`: that is missing on plain http. */
function newKey(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
