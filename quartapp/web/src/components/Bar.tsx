import { ProgressBar } from "react-aria-components/ProgressBar";

interface Props {
  label: string;
  /** 0 to 100; null while nobody knows. */
  percent: number | null;
  /** Said instead of the bare percentage. */
  valueText?: string;
  tone?: "going" | "good" | "stopped";
  isThin?: boolean;
}

/** How far something is. What is drawn moves towards what is said, and never beyond it. */
export function Bar({ label, percent, valueText, tone = "going", isThin = false }: Props) {
  return (
    <ProgressBar
      aria-label={label}
      value={percent ?? 0}
      isIndeterminate={percent === null}
      valueLabel={valueText ?? `${percent ?? 0} %`}
      className={`bar ${tone} ${isThin ? "thin" : ""} ${percent === null ? "unknown" : ""}`}
    >
      <span
        className="bar-fill"
        style={percent === null ? {} : { transform: `translateX(${percent - 100}%)` }}
      />
    </ProgressBar>
  );
}
