import { useInfiniteQuery } from "@tanstack/react-query";
import { type FormEvent, useEffect, useRef } from "react";
import { Form } from "react-aria-components/Form";
import { useViewer } from "../account/Gate";
import { patientsQuery } from "../api/patients";
import { Button } from "../components/Button";
import { Choice } from "../components/Choice";
import { Cross } from "../components/icons";
import { keepFocus } from "../components/keepFocus";
import { TextField } from "../components/TextField";
import { languages } from "../words/languages";
import { size } from "../words/size";
import { common, type Upload } from "./upload";
import { uploads } from "./useUploads";

interface Props {
  files: readonly Upload[];
  /** On the page of one patient there is no choice whose they are to be. */
  isOfOne: boolean;
}

const VARIOUS = "various";

/** The files that were chosen, some at least: what to call them, then off they go. */
export function ChosenFiles({ files, isOfOne }: Props) {
  const first = useSelectedTitle();
  const begin = (event: FormEvent) => {
    event.preventDefault();
    uploads.start();
    keepFocus();
  };
  return (
    <Form className="chosen" aria-label="Chosen recordings" onSubmit={begin}>
      <ul ref={first}>
        {files.map((file) => (
          <ChosenFile key={file.id} upload={file} />
        ))}
      </ul>
      <div className="choices">
        <LanguageChoice files={files} />
        {!isOfOne && <PatientChoice files={files} />}
      </div>
      <div className="actions">
        <Button kind="main" type="submit">
          {files.length === 1
            ? "Upload and transcribe"
            : `Upload and transcribe ${files.length} recordings`}
        </Button>
        <Button onPress={() => removeAll(files)}>Not now</Button>
      </div>
    </Form>
  );
}

const removeAll = (files: readonly Upload[]) => {
  for (const { id } of files) uploads.remove(id);
  keepFocus();
};

function ChosenFile({ upload }: { upload: Upload }) {
  const { id, file, title } = upload;
  return (
    <li>
      <TextField
        label="Title"
        note={`${file.name}, ${size(file.size)}`}
        value={title}
        maxLength={300}
        autoComplete="off"
        onChange={(changed) => uploads.change(id, { title: changed })}
      />
      <Button
        kind="icon"
        aria-label={`Do not upload ${file.name}`}
        onPress={() => removeAll([upload])}
      >
        <Cross />
      </Button>
    </li>
  );
}

function LanguageChoice({ files }: { files: readonly Upload[] }) {
  const language = common(files, ({ language }) => language);
  const choose = (language: string) => {
    if (language === VARIOUS) return;
    for (const { id } of files) uploads.change(id, { language: language || null });
  };
  return (
    <Choice
      label="Language"
      value={language === undefined ? VARIOUS : (language ?? "")}
      onChange={choose}
    >
      {language === undefined && <option value={VARIOUS}>As chosen for each</option>}
      <option value="">As it is spoken</option>
      {languages().map(({ tag, name }) => (
        <option key={tag} value={tag}>
          {name}
        </option>
      ))}
    </Choice>
  );
}

/** Whose recordings they are to be; for those who have patients. */
function PatientChoice({ files }: { files: readonly Upload[] }) {
  const { role } = useViewer();
  const { data } = useInfiniteQuery({ ...patientsQuery, enabled: role !== "patient" });
  const patients = data?.pages.flatMap((page) => page.patients) ?? [];
  if (role === "patient" || patients.length === 0) return null;
  const patientId = common(files, ({ patientId }) => patientId);
  const choose = (patientId: string) => {
    if (patientId === VARIOUS) return;
    for (const { id } of files) uploads.change(id, { patientId: patientId || null });
  };
  return (
    <Choice
      label="For"
      value={patientId === undefined ? VARIOUS : (patientId ?? "")}
      onChange={choose}
    >
      {patientId === undefined && <option value={VARIOUS}>As chosen for each</option>}
      <option value="">Myself</option>
      {patients.map(({ id, email }) => (
        <option key={id} value={id}>
          {email}
        </option>
      ))}
    </Choice>
  );
}

/** The first title, ready to be typed over; not where that brings up a keyboard on the screen. */
function useSelectedTitle() {
  const list = useRef<HTMLUListElement>(null);
  useEffect(() => {
    if (matchMedia("(pointer: coarse)").matches) return;
    const title = list.current?.querySelector("input");
    title?.focus();
    title?.select();
  }, []);
  return list;
}
