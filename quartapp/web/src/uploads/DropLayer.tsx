import { useEffect, useEffectEvent, useState } from "react";
import { useMatch, useNavigate } from "react-router";
import { Upload } from "../components/icons";
import { uploads } from "./useUploads";

/** Files may be dropped anywhere on any page; a browser would otherwise leave the page for them. */
export function DropLayer() {
  const patientId = useMatch("/patients/:patientId")?.params.patientId ?? null;
  const isHome = useMatch("/") !== null;
  const navigate = useNavigate();
  const isOver = useDroppedFiles((files) => {
    uploads.choose(files, patientId);
    if (!isHome && patientId === null) navigate("/");
  });
  if (!isOver) return null;
  return (
    <div className="drop-layer" aria-hidden="true">
      <p>
        <Upload /> Drop recordings to upload them
      </p>
    </div>
  );
}

const carriesFiles = (event: DragEvent) => event.dataTransfer?.types.includes("Files") ?? false;

/** Whether files are held over the window. */
function useDroppedFiles(onFiles: (files: FileList) => void): boolean {
  const [isOver, setOver] = useState(false);
  const deliver = useEffectEvent(onFiles);
  useEffect(() => {
    const listening = new AbortController();
    const { signal } = listening;
    // The event comes over and over while files are held; then it is silent.
    let leaving: ReturnType<typeof setTimeout>;
    const hold = (event: DragEvent) => {
      if (!carriesFiles(event)) return;
      event.preventDefault();
      clearTimeout(leaving);
      setOver(true);
      leaving = setTimeout(() => setOver(false), 400);
    };
    const drop = (event: DragEvent) => {
      if (!carriesFiles(event)) return;
      event.preventDefault();
      clearTimeout(leaving);
      setOver(false);
      if (event.dataTransfer) deliver(event.dataTransfer.files);
    };
    addEventListener("dragover", hold, { signal });
    addEventListener("drop", drop, { signal });
    return () => {
      clearTimeout(leaving);
      listening.abort();
    };
  }, []);
  return isOver;
}
