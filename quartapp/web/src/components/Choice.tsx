import { type ReactNode, useId } from "react";

interface Props {
  label: string;
  value: string;
  onChange: (value: string) => void;
  /** Not shown, only said. */
  isLabelHidden?: boolean;
  children: ReactNode;
}

/** One of a few, by the platform's own list: the best there is on a phone. */
export function Choice({ label, value, onChange, isLabelHidden = false, children }: Props) {
  const id = useId();
  return (
    <div className="field">
      <label htmlFor={id} className={isLabelHidden ? "unseen" : ""}>
        {label}
      </label>
      <select
        id={id}
        className="input"
        value={value}
        onChange={(event) => onChange(event.target.value)}
      >
        {children}
      </select>
    </div>
  );
}
