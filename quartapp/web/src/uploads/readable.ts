import { Problem } from "../api/problem";

/**
 * Throws `Problem` for a file without content, and for one that was moved, changed, or is a folder:
 * in a request that would look like a broken network, and be tried for ever.
 */
export async function requireReadable(file: File): Promise<void> {
  if (file.size === 0) throw new Problem(422, "empty_file", "This file is empty.");
  try {
    await file.slice(0, 1).arrayBuffer();
  } catch {
    throw new Problem(422, "unreadable_file", "This file can no longer be read.");
  }
}
