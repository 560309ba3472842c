/**
 * How long to wait after so many failures in a row, in milliseconds: `firstMs`, doubled by each
 * more, at most `longestMs`; less a random part of up to half, so that those who lost a server
 * together do not come back together.
 */
export function afterFailure(failures: number, firstMs: number, longestMs: number): number {
  const waitMs = Math.min(longestMs, firstMs * 2 ** (failures - 1));
  return waitMs * (1 - Math.random() / 2);
}
