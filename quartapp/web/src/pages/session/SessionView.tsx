import { Link, useNavigate } from "react-router";
import { useViewer } from "../../account/Gate";
import type { Session } from "../../api/sessions";
import { DeleteRecording } from "../../components/DeleteRecording";
import { Bin } from "../../components/icons";
import { Notice } from "../../components/Notice";
import { PageHeading } from "../../components/PageHeading";
import { useNow } from "../../components/useNow";
import { size } from "../../words/size";
import { isOver } from "../../words/status";
import { ago, clock } from "../../words/time";
import { StatusCard } from "./StatusCard";
import { Timeline } from "./Timeline";
import { TranscriptCard } from "./TranscriptCard";
import { useFavicon } from "./useFavicon";
import { type FollowedSession, useFollowed } from "./useFollowed";
import { useSpokenProgress } from "./useSpokenProgress";

const LOSSES = {
  gone: { heading: "This recording was deleted", text: "It is gone, with its transcript." },
  forbidden: { heading: "Not yours to see", text: "You may no longer see this recording." },
} as const;

interface Props {
  session: Session;
  /** What a later look at it has told. */
  loss: keyof typeof LOSSES | null;
}

/** A session as it goes on. */
export function SessionView({ session: loaded, loss: lossTold }: Props) {
  const followed = useFollowed(loaded);
  const { session, segments } = followed;
  const navigate = useNavigate();
  useFavicon(session.status, session.progress);
  useSpokenProgress(session);
  const loss = followed.loss ?? lossTold;
  if (loss) return <Notice {...LOSSES[loss]} />;
  const isRunning = !isOver(session.status);
  const { title, progress } = session;
  return (
    <article className="session">
      <p className="back">
        <Link to="/">← All recordings</Link>
      </p>
      <header className="session-head">
        <PageHeading title={session.status === "processing" ? `${progress} % · ${title}` : title}>
          {title}
        </PageHeading>
        <DeleteRecording
          session={session}
          kind="danger"
          label="Delete"
          onDeleted={() => navigate("/", { replace: true })}
        >
          <Bin /> Delete
        </DeleteRecording>
      </header>
      <Facts {...followed} />
      <StatusCard followed={followed} />
      {(segments.length > 0 || !isRunning || session.has_audio) && (
        <TranscriptCard session={session} segments={segments} isLoading={followed.isTextLoading} />
      )}
      <Timeline session={session} />
    </article>
  );
}

function Facts({ session, clockOffsetMs }: FollowedSession) {
  const viewer = useViewer();
  const now = useNow(60_000) + clockOffsetMs;
  const { file_name, duration_s, size_bytes, created_at, owner_id, owner_email } = session;
  const facts = [
    file_name,
    ...(duration_s === null ? [] : [clock(duration_s)]),
    size(size_bytes),
    `uploaded ${ago(created_at, now)}`,
    ...(owner_id === viewer.id ? [] : [owner_email]),
  ];
  return <p className="soft facts">{facts.join(" · ")}</p>;
}
