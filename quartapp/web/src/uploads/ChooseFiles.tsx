import { Upload } from "../components/icons";
import { uploads } from "./useUploads";

const ACCEPTED =
  "audio/*,video/*,.mp3,.m4a,.wav,.flac,.ogg,.opus,.webm,.mp4,.mov,.mkv,.aac,.wma,.aif,.aiff,.amr,.3gp";

interface Props {
  patientId: string | null;
}

/** Where one begins: a button for files, and word that they may be dropped. */
export function ChooseFiles({ patientId }: Props) {
  return (
    <div className="drop">
      <label className="button main">
        <Upload /> Choose recordings
        <input
          className="unseen"
          type="file"
          multiple
          accept={ACCEPTED}
          onChange={({ currentTarget }) => {
            if (currentTarget.files) uploads.choose(currentTarget.files, patientId);
            currentTarget.value = ""; // so that the same file can be chosen again
          }}
        />
      </label>
      <span className="soft">
        <span className="drop-hint">or drop them anywhere on this page. </span>
        Audio of any kind, or video with sound.
      </span>
    </div>
  );
}
