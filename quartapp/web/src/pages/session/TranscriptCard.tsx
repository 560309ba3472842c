import { useRef } from "react";
import type { Segment, Session } from "../../api/sessions";
import { Loading } from "../../components/Loading";
import { isOver } from "../../words/status";
import { CopyButton } from "./CopyButton";
import { Downloads } from "./Downloads";
import { Player } from "./Player";
import { Transcript } from "./Transcript";
import { usePlayback } from "./usePlayback";

interface Props {
  session: Session;
  segments: readonly Segment[];
  isLoading: boolean;
}

/** The recording and its text, which follow each other. */
export function TranscriptCard({ session, segments, isLoading }: Props) {
  const audio = useRef<HTMLAudioElement>(null);
  const { place, isPlaying, seek } = usePlayback(audio, segments);
  const isRunning = !isOver(session.status);
  return (
    <section className="card" aria-labelledby="transcript-heading">
      <div className="row">
        <h2 id="transcript-heading">{headingOf(session, segments)}</h2>
        {segments.length > 0 && <CopyButton segments={segments} />}
      </div>
      {isPlayable(session) && <Player session={session} audio={audio} />}
      {segments.length > 0 ? (
        <Transcript
          segments={segments}
          language={session.language}
          isGrowing={isRunning}
          isPlaying={isPlaying}
          place={place}
          onSeek={isPlayable(session) ? seek : null}
        />
      ) : (
        <NoText session={session} isLoading={isLoading} />
      )}
      {!isRunning && session.segments > 0 && <Downloads session={session} />}
    </section>
  );
}

const isPlayable = ({ has_audio, error }: Session) => has_audio && error?.code !== "audio_missing";

function headingOf({ status }: Session, segments: readonly Segment[]): string {
  if (status === "completed") return "Transcript";
  return segments.length > 0 ? "Transcript so far" : "Recording";
}

function NoText({ session, isLoading }: { session: Session; isLoading: boolean }) {
  if (session.status === "completed" && session.segments === 0) {
    return <p className="soft">No words were recognised in this recording.</p>;
  }
  if (isLoading && session.segments > 0) return <Loading />;
  if (isOver(session.status)) return <p className="soft">There is no text.</p>;
  return <p className="soft">The text will appear here as it is recognised.</p>;
}
