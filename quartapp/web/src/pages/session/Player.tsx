import { type RefObject, useState } from "react";
import { resultUrl, type Session } from "../../api/sessions";

interface Props {
  session: Session;
  audio: RefObject<HTMLAudioElement | null>;
}

/** The recording, by the browser's own player: it knows every key and every assistive device. */
export function Player({ session, audio }: Props) {
  const [isUnplayable, setUnplayable] = useState(false);
  const url = resultUrl(session.id, "audio");
  return (
    <div className="player">
      {/* biome-ignore lint/a11y/useMediaCaption: the transcript stands below */}
      <audio
        ref={audio}
        src={url}
        controls
        preload="metadata"
        aria-label={`Recording: ${session.title}`}
        hidden={isUnplayable}
        onError={() => setUnplayable(true)}
        onLoadedMetadata={() => setUnplayable(false)}
      />
      {isUnplayable && (
        <p className="soft small">
          The recording cannot be played in this browser.{" "}
          <a href={url} download={session.file_name}>
            Download it
          </a>{" "}
          instead.
        </p>
      )}
    </div>
  );
}
