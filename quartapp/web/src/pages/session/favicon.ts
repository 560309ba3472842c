import type { Status } from "../../words/status";

const ROUND = 2 * Math.PI * 12;

const SIGNS: Partial<Record<Status, string>> = {
  completed:
    '<circle cx="16" cy="16" r="15" fill="#1c6b3c"/><path d="M9 16.5l5 5 9-10" fill="none" stroke="#fff" stroke-width="3.5"/>',
  failed:
    '<circle cx="16" cy="16" r="15" fill="#a42a23"/><path d="M16 8v10M16 22v3" stroke="#fff" stroke-width="4"/>',
};

/**
 * A picture of a status as a data: URL: a ring that closes with the percentage, a tick, an
 * exclamation mark. Null where the usual picture says enough.
 */
export function drawFavicon(status: Status, progress: number): string | null {
  const inside = status === "processing" ? ring(progress) : SIGNS[status];
  if (!inside) return null;
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">${inside}</svg>`;
  return `data:image/svg+xml,${encodeURIComponent(svg)}`;
}

function ring(progress: number): string {
  const done = (ROUND * progress) / 100;
  const circle = '<circle cx="16" cy="16" r="12" fill="none" stroke-width="7"';
  return (
    `${circle} stroke="#9db3b5"/>` +
    `${circle} stroke="#1f8a95" stroke-dasharray="${done} ${ROUND}" transform="rotate(-90 16 16)"/>`
  );
}
