const FIRST_MS = 1000;
const CAP_MS = 30_000;

/**
 * How long to wait before the next try: twice as long each time, up to 30 s, less up to half by
 * chance; never less than the server asked for. `failures` were there before this one.
 */
export function backoffMs(failures: number, askedMs: number | null): number {
  const most = Math.min(CAP_MS, FIRST_MS * 2 ** failures);
  return Math.max(askedMs ?? 0, most * (1 - Math.random() / 2));
}
