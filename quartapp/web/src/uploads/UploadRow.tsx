import { Bar } from "../components/Bar";
import { Button } from "../components/Button";
import { keepFocus } from "../components/keepFocus";
import { useNow } from "../components/useNow";
import { nextStep } from "../words/nextStep";
import { size } from "../words/size";
import type { Upload } from "./upload";
import { uploads } from "./useUploads";

/** A file on its way, as a row of the list it will be in. */
export function UploadRow({ upload }: { upload: Upload }) {
  const { id, file, title, phase } = upload;
  const name = title || file.name;
  const remove = () => {
    uploads.remove(id);
    keepFocus();
  };
  return (
    <div className="card item" data-phase={phase}>
      <span className="item-title" dir="auto">
        {name}
      </span>
      <span className="badge" data-part="badge">
        {phase === "refused" ? "Not uploaded" : "Uploading"}
      </span>
      {phase === "refused" ? (
        <Refusal upload={upload} />
      ) : (
        <>
          <Bar label={`Upload of ${name}`} percent={percentOf(upload)} isThin />
          <p className="item-line" data-part="message">
            <Progress upload={upload} />
          </p>
        </>
      )}
      <div className="item-actions">
        <Decisions upload={upload} />
        <Button aria-label={`${removal(upload)} ${name}`} onPress={remove}>
          {removal(upload)}
        </Button>
      </div>
    </div>
  );
}

const removal = ({ phase }: Upload) => (phase === "refused" ? "Remove" : "Cancel");

function percentOf({ phase, sentBytes, file }: Upload): number | null {
  if (phase === "checking") return null;
  return file.size === 0 ? 0 : Math.floor((100 * sentBytes) / file.size);
}

function Progress({ upload }: { upload: Upload }) {
  const { phase, sentBytes, file } = upload;
  if (phase === "waiting") return "Waits until the others are uploaded";
  if (phase === "checking") return "Uploaded. Checking the recording…";
  if (phase === "pausing") return <Pause upload={upload} />;
  return `Uploading… ${percentOf(upload)} % (${size(sentBytes)} of ${size(file.size)})`;
}

function Pause({ upload: { problem, retryAtMs } }: { upload: Upload }) {
  const now = useNow(1000);
  if (problem?.status === 401) return "Waits until you have signed in again.";
  const why = problem?.status === 0 ? "The server cannot be reached." : problem?.message;
  const waitS = Math.max(0, Math.ceil(((retryAtMs ?? now) - now) / 1000));
  return `${why} Trying again ${waitS > 0 ? `in ${waitS} s` : "now"}. Nothing is lost.`;
}

function Refusal({ upload: { problem } }: { upload: Upload }) {
  return (
    <p className="alert" role="alert">
      {problem?.message} {problem && nextStep(problem.code)}
    </p>
  );
}

/** What may still help. */
function Decisions({ upload: { id, phase, problem } }: { upload: Upload }) {
  if (phase === "pausing" && problem?.status !== 401) {
    return <Button onPress={() => uploads.retry(id)}>Try now</Button>;
  }
  if (phase !== "refused") return null;
  if (problem?.code === "language_unsupported") {
    return <Button onPress={() => uploads.reconsider(id)}>Change the language</Button>;
  }
  if (WORTH_ANOTHER_TRY.has(problem?.code ?? "")) {
    return <Button onPress={() => uploads.retry(id)}>Try again</Button>;
  }
  return null;
}

const WORTH_ANOTHER_TRY = new Set([
  "storage_full",
  "recogniser_crashed",
  "recogniser_stalled",
  "unexpected",
]);
