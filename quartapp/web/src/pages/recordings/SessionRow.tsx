import { Link } from "react-router";
import { useViewer } from "../../account/Gate";
import type { Session } from "../../api/sessions";
import { Badge } from "../../components/Badge";
import { Bar } from "../../components/Bar";
import { DeleteRecording } from "../../components/DeleteRecording";
import { Bin } from "../../components/icons";
import { useNow } from "../../components/useNow";
import { remaining, waiting } from "../../words/outlook";
import { ago, clock, dateAndTime } from "../../words/time";
import type { LiveList } from "./useSessionList";

const TICK_MS = 10_000;

/** One session of the list: what it is, how it stands, and the way to it. */
export function SessionRow({ session, list }: { session: Session; list: LiveList }) {
  const { id, title, status, progress } = session;
  return (
    <div className="card item" data-status={status}>
      <Link className="item-title" to={`/sessions/${id}`} dir="auto">
        {title}
      </Link>
      <Badge status={status} />
      {status === "processing" && (
        <Bar label={`Transcription of ${title}`} percent={progress} isThin />
      )}
      <Line session={session} list={list} />
      <Facts session={session} list={list} />
      <div className="item-delete">
        <DeleteRecording session={session} kind="icon" label={`Delete ${title}`}>
          <Bin />
        </DeleteRecording>
      </div>
    </div>
  );
}

/** How it stands, in a sentence; nothing for what is done. */
function Line({ session, list }: { session: Session; list: LiveList }) {
  const now = useNow(TICK_MS) + list.clockOffsetMs;
  const message = list.status(session.id);
  const { status, progress, error } = session;
  if (status === "completed") return null;
  if (status === "failed") return <p className="item-line bad">{error?.message}</p>;
  if (status === "cancelled") return null;
  const parts =
    status === "queued"
      ? [waiting(session.queue_position, session.estimated_start, now, list.clockOffsetMs)]
      : [`${progress} %`, message?.message, remaining(message?.estimated_completion, now)];
  return (
    <p className="item-line" data-part="message">
      {parts.filter(Boolean).join(" · ")}
    </p>
  );
}

function Facts({ session, list }: { session: Session; list: LiveList }) {
  const viewer = useViewer();
  const now = useNow(60_000) + list.clockOffsetMs;
  const { duration_s, created_at, owner_id, owner_email } = session;
  const isTold = list.isOfOne || owner_id === viewer.id;
  return (
    <p className="item-facts soft small">
      {duration_s !== null && `${clock(duration_s)} · `}
      <time dateTime={created_at} title={dateAndTime(created_at)}>
        {ago(created_at, now)}
      </time>
      {!isTold && ` · ${owner_email}`}
    </p>
  );
}
