import { Button as AriaButton, type ButtonProps } from "react-aria-components/Button";

interface Props extends Omit<ButtonProps, "className"> {
  /** `main`: what one most likely wants. `quiet`: the rest. `link`: within a sentence. */
  kind?: "main" | "quiet" | "danger" | "main-danger" | "link" | "icon";
  className?: string;
}

/** A button. While `isPending` it keeps its place and focus, and does nothing. */
export function Button({ kind = "quiet", className = "", ...rest }: Props) {
  return <AriaButton {...rest} className={`button ${kind} ${className}`} />;
}
