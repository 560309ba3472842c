import { useEffect, useState } from "react";
import type { Segment } from "../../api/sessions";
import { announce } from "../../components/Announcer";
import { Button } from "../../components/Button";
import { Copy } from "../../components/icons";

const SHOWN_MS = 2000;

/** Puts the text on the clipboard. Not shown where pages may not (plain http). */
export function CopyButton({ segments }: { segments: readonly Segment[] }) {
  const [isCopied, setCopied] = useState(false);
  useEffect(() => {
    if (!isCopied) return;
    const shown = setTimeout(() => setCopied(false), SHOWN_MS);
    return () => clearTimeout(shown);
  }, [isCopied]);
  if (!navigator.clipboard) return null;
  const copy = async () => {
    await navigator.clipboard.writeText(segments.map(({ text }) => text).join("\n"));
    setCopied(true);
    announce("Copied");
  };
  return (
    <Button onPress={copy}>
      <Copy /> {isCopied ? "Copied" : "Copy text"}
    </Button>
  );
}
