import { useEffect, useState } from "react";
import { useSearchParams } from "react-router";
import type { SessionFilter } from "../../api/sessions";
import { BADGES, type Status } from "../../words/status";

const SETTLE_MS = 250;

/**
 * What the list is narrowed to, kept in the address so that the way back shows the same.
 * `text` is what is being typed; `filter` follows when it has settled.
 */
export function useFilter(ownerId: string | null) {
  const [params, setParams] = useSearchParams();
  const q = params.get("q") ?? "";
  const [text, setText] = useState(q);
  const told = params.get("status") ?? "";
  const status = told in BADGES ? (told as Status) : null;

  const set = (name: string, value: string) =>
    setParams(
      (before) => {
        const after = new URLSearchParams(before);
        if (value) after.set(name, value);
        else after.delete(name);
        return after;
      },
      { replace: true },
    );

  // biome-ignore lint/correctness/useExhaustiveDependencies: `set` is new each time
  useEffect(() => {
    if (text.trim() === q) return;
    const settled = setTimeout(() => set("q", text.trim()), SETTLE_MS);
    return () => clearTimeout(settled);
  }, [text, q]);

  const filter: SessionFilter = { q, status, ownerId };
  return {
    filter,
    text,
    isFiltered: q !== "" || status !== null,
    setText,
    setStatus: (chosen: Status | null) => set("status", chosen ?? ""),
    clear: () => {
      setText("");
      setParams({}, { replace: true });
    },
  };
}
