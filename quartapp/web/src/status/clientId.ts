const KEY = "quartapp-status.client-id";

/**
 * One for this browser, kept: its new stream takes the slot of its old one, whether or not the
 * server knows that that is dead. Only for streams of which a browser has one at a time.
 */
export function browserClientId(): string {
  try {
    const kept = localStorage.getItem(KEY);
    if (kept) return kept;
    const made = randomClientId();
    localStorage.setItem(KEY, made);
    return made;
  } catch {
    return randomClientId(); // storage may be forbidden
  }
}

/** For a stream beside others of this browser. */
export function randomClientId(): string {
  return `${Math.random().toString(36).slice(2)}-${Date.now().toString(36)}`;
}
