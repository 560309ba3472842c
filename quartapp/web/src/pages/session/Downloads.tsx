import { resultUrl, type Session } from "../../api/sessions";
import { Download } from "../../components/icons";

const FORMS = [
  ["txt", "Text"],
  ["srt", "Subtitles (SRT)"],
  ["vtt", "Subtitles (VTT)"],
  ["json", "JSON with times"],
] as const;

/** The text to take away, in each form. */
export function Downloads({ session }: { session: Session }) {
  return (
    <nav className="downloads" aria-label="Downloads">
      <span className="soft">
        <Download /> Download
      </span>
      {FORMS.map(([form, name]) => (
        <a
          key={form}
          href={resultUrl(session.id, `transcript.${form}`)}
          download={`${session.title}.${form}`}
        >
          {name}
        </a>
      ))}
      {session.has_audio && (
        <a href={resultUrl(session.id, "audio")} download={session.file_name}>
          Recording
        </a>
      )}
    </nav>
  );
}
