import { useQuery } from "@tanstack/react-query";
import { configQuery } from "../../api/account";
import { asProblem } from "../../api/problem";
import type { Session } from "../../api/sessions";
import { Alert } from "../../components/Alert";
import { Badge } from "../../components/Badge";
import { Bar } from "../../components/Bar";
import { Button } from "../../components/Button";
import { ConnectionLine } from "../../components/ConnectionLine";
import { useNow } from "../../components/useNow";
import { afterFailure, isWorthRetrying } from "../../words/nextStep";
import { begins, finishes, remaining } from "../../words/outlook";
import { BADGES, isOver } from "../../words/status";
import { timeOfDay } from "../../words/time";
import { NotifyButton } from "./NotifyButton";
import { Statistics } from "./Statistics";
import type { FollowedSession } from "./useFollowed";

const POLL_INTERVAL_S = 3;
const TICK_MS = 1000;

/** How far the transcription is, how long it takes, and what can be done about it. */
export function StatusCard({ followed }: { followed: FollowedSession }) {
  const { session, message, connection, isStale, decisionError } = followed;
  const { status, progress } = session;
  const { data: config } = useQuery(configQuery);
  return (
    <section className="card status" aria-labelledby="status-heading" data-status={status}>
      <div className="row">
        <h2 id="status-heading">Transcription progress</h2>
        <Badge status={status} />
      </div>
      <p className="message">
        <span className="soft">Status:</span> <span data-part="message">{sentence(followed)}</span>
      </p>
      <div className="bar-row">
        <Bar
          label="Transcription"
          percent={progress}
          valueText={`${BADGES[status]}, ${progress} %`}
          tone={status === "completed" ? "good" : isOver(status) ? "stopped" : "going"}
        />
        <span className="percent" data-part="percent" aria-hidden="true">
          {progress} %
        </span>
      </div>
      <Outlook followed={followed} />
      {status === "failed" && <Failure followed={followed} />}
      <Statistics session={session} message={message} clockOffsetMs={followed.clockOffsetMs} />
      <ConnectionLine
        connection={isOver(status) ? "closed" : connection}
        isStale={isStale}
        pollIntervalS={config?.poll_interval_s ?? POLL_INTERVAL_S}
      />
      {decisionError !== null && <Alert>{asProblem(decisionError).message}</Alert>}
      <Decisions followed={followed} />
    </section>
  );
}

/** The server's own words; those of a failure stand below. */
function sentence({ session, message }: FollowedSession): string {
  if (session.status === "failed") return "Failed";
  return message?.message ?? `${BADGES[session.status]}…`;
}

/** `About 2 minutes left · finishes 10:32`, the place in the queue, or when it was finished. */
function Outlook({ followed: { session, message, clockOffsetMs } }: { followed: FollowedSession }) {
  const now = useNow(TICK_MS) + clockOffsetMs;
  const words = outlook();
  return (
    <p className="figures" data-part="figures">
      {words || "\u00a0"}
    </p>
  );

  function outlook(): string {
    const { status, estimated_start, finished_at } = session;
    if (status === "queued") return begins(estimated_start, now, clockOffsetMs);
    if (isOver(status)) return finished_at ? ended(session, finished_at) : "";
    const completion = message?.estimated_completion;
    const left = remaining(completion, now);
    return [left, left && finishes(completion, now, clockOffsetMs)].filter(Boolean).join(" · ");
  }
}

function ended({ status }: Session, finishedAt: string): string {
  const word = status === "completed" ? "Finished" : "Ended";
  return `${word} ${timeOfDay(Date.parse(finishedAt), Date.now())}`;
}

function Failure({ followed: { session } }: { followed: FollowedSession }) {
  const { error, segments, duration_s, has_audio } = session;
  const kept = segments > 0 && duration_s !== null;
  return (
    <div className="alert" data-part="failure">
      <strong>{error?.message ?? "The transcription failed."}</strong>
      <span>{has_audio ? afterFailure(error?.code) : "Upload the recording again."}</span>
      {kept && <span>The text up to there is kept below.</span>}
    </div>
  );
}

function Decisions({ followed }: { followed: FollowedSession }) {
  const { session, isDeciding, cancel, retry } = followed;
  const canRetry =
    (session.status === "failed" || session.status === "cancelled") && session.has_audio;
  if (session.status === "completed" || (isOver(session.status) && !canRetry)) return null;
  return (
    <div className="actions">
      {/* One button in one place, so that the focus stays when the one becomes the other. */}
      <Button
        kind={canRetry && isWorthRetrying(session.error?.code) ? "main" : "quiet"}
        onPress={canRetry ? retry : cancel}
        isPending={isDeciding}
      >
        {canRetry ? "Try again" : "Cancel transcription"}
      </Button>
      {!isOver(session.status) && <NotifyButton />}
    </div>
  );
}
