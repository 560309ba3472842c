import { useEffect, useId, useRef, useState } from "react";
import type { TokenMade } from "../../api/account";
import { announce } from "../../components/Announcer";
import { Button } from "../../components/Button";
import { Copy } from "../../components/icons";

interface Props {
  token: TokenMade;
  onHide: () => void;
}

/** A token that was just made: the only time it can be read. */
export function NewToken({ token, onHide }: Props) {
  const field = useRef<HTMLInputElement>(null);
  const id = useId();
  const [isCopied, setCopied] = useState(false);
  useEffect(() => field.current?.select(), []);
  const copy = async () => {
    field.current?.select();
    await navigator.clipboard?.writeText(token.token);
    setCopied(true);
    announce("Copied");
  };
  return (
    <div className="alert calm new-token">
      <label htmlFor={id}>
        <strong>{token.name}</strong> is made. Copy it now: it is not shown again.
      </label>
      <input ref={field} id={id} className="input" readOnly value={token.token} />
      <div className="actions">
        {navigator.clipboard && (
          <Button kind="main" onPress={copy}>
            <Copy /> {isCopied ? "Copied" : "Copy"}
          </Button>
        )}
        <Button onPress={onHide}>I have it</Button>
      </div>
    </div>
  );
}
