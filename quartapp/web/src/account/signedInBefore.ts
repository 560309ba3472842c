const KEY = "signed-in";

/**
 * Whether somebody has signed in with this browser, kept as the id of their account. The cookie cannot be read here; this spares
 * the first visit a question whose answer is known to be no. The server decides.
 */
export const signedInBefore = {
  get(): boolean {
    try {
      return localStorage.getItem(KEY) !== null;
    } catch {
      return true; // storage is switched off: ask the server
    }
  },
  set(userId: string | null): void {
    try {
      if (userId) localStorage.setItem(KEY, userId);
      else localStorage.removeItem(KEY);
    } catch {
      // As above.
    }
  },
  /** Called when another tab has signed in, with the account's id, or out. */
  onChangeElsewhere(listener: (userId: string | null) => void): void {
    addEventListener("storage", ({ key, newValue }) => {
      if (key === KEY) listener(newValue);
    });
  },
};
