import { Button as AriaButton, type ButtonProps } from "react-aria-components/Button";

interface Props extends Omit<ButtonProps, "className"> {
  /** `main`: what one most likely wants. `quiet`: the rest. `link`: within a sentence. */
  kind?: "main" | "quiet" | "danger" | "main-danger" | "link" | "icon";
  className?: string;
}

/**
 * A button. While `isPending` it keeps its place and focus, and does nothing. Not by React Aria's
 * own `isPending`: that leaves an announcement without words behind when the button goes away.
 */
export function Button({ kind = "quiet", className = "", isPending = false, ...rest }: Props) {
  return (
    <AriaButton
      {...rest}
      {...(isPending && PENDING)}
      className={`button ${kind} ${className}`}
      data-pending={isPending || undefined}
    />
  );
}

const PENDING = { type: "button", "aria-disabled": true, onPress: () => {} } as const;
