import { useEffect, useRef, useState } from "react";
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
  const written = useRef(q);
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

  // A link, or the way back, has led to another search.
  useEffect(() => {
    if (q === written.current) return;
    written.current = q;
    setText(q);
  }, [q]);

  // biome-ignore lint/correctness/useExhaustiveDependencies: `set` is new each time
  useEffect(() => {
    if (text.trim() === written.current) return;
    const settled = setTimeout(() => {
      written.current = text.trim();
      set("q", written.current);
    }, SETTLE_MS);
    return () => clearTimeout(settled);
  }, [text]);

  const filter: SessionFilter = { q, status, ownerId };
  return {
    filter,
    text,
    isFiltered: q !== "" || status !== null,
    setText,
    setStatus: (chosen: Status | null) => set("status", chosen ?? ""),
    clear: () => {
      written.current = "";
      setText("");
      setParams({}, { replace: true });
    },
  };
}
