import type { StatusMessage } from "quartapp-status";
import type { Session } from "../../api/sessions";
import { useNow } from "../../components/useNow";
import { clock, spoken } from "../../words/time";

interface Props {
  session: Session;
  message: StatusMessage | null;
  clockOffsetMs: number;
}

/** The figures of a transcription; a dash for what is not known. */
export function Statistics({ session, message, clockOffsetMs }: Props) {
  const processedS = message?.duration_processed ?? null;
  const totalS = message?.duration_total ?? session.duration_s;
  const speed = message?.processing_speed ?? null;
  return (
    <dl className="statistics">
      <Figure name="Audio done">
        {processedS === null ? "–" : <Duration seconds={processedS} />}
        {totalS !== null && (
          <span className="soft">
            {" "}
            of <Duration seconds={totalS} />
          </span>
        )}
      </Figure>
      <Figure name="Speed">
        {speed === null ? "–" : <abbr title="times as fast as it plays">{speed.toFixed(1)} ×</abbr>}
      </Figure>
      <Figure name="Segments">{session.segments}</Figure>
      <Elapsed session={session} clockOffsetMs={clockOffsetMs} />
      {session.attempt > 1 && <Figure name="Attempt">{session.attempt}</Figure>}
    </dl>
  );
}

function Figure({ name, children }: { name: string; children: React.ReactNode }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}

function Duration({ seconds }: { seconds: number }) {
  return (
    <>
      <span aria-hidden="true">{clock(seconds)}</span>
      <span className="unseen">{spoken(seconds)}</span>
    </>
  );
}

function Elapsed({ session, clockOffsetMs }: Omit<Props, "message">) {
  const now = useNow(1000) + clockOffsetMs;
  const { status, started_at, finished_at } = session;
  const endMs = finished_at ? Date.parse(finished_at) : now;
  const isKnown = started_at !== null && status !== "queued";
  return (
    <Figure name="Elapsed">
      {isKnown ? <Duration seconds={(endMs - Date.parse(started_at)) / 1000} /> : "–"}
    </Figure>
  );
}
