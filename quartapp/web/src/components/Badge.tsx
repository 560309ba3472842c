import { BADGES, type Status } from "../words/status";

/** The status in a word. */
export function Badge({ status }: { status: Status }) {
  return (
    <span className="badge" data-part="badge" data-status={status}>
      {BADGES[status]}
    </span>
  );
}
