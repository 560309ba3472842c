const KEY = "signed-in";

/**
 * Whether somebody has signed in with this browser. The cookie cannot be read here; this spares
 * the first visit a question whose answer is known to be no. The server decides.
 */
export const signedInBefore = {
  get(): boolean {
    try {
      return localStorage.getItem(KEY) === "yes";
    } catch {
      return true; // storage is switched off: ask the server
    }
  },
  set(yes: boolean): void {
    try {
      if (yes) localStorage.setItem(KEY, "yes");
      else localStorage.removeItem(KEY);
    } catch {
      // As above.
    }
  },
};
