import { useQuery } from "@tanstack/react-query";
import { useEffect } from "react";
import { configQuery } from "../../api/account";
import { Button } from "../../components/Button";
import { ConnectionLine } from "../../components/ConnectionLine";
import { PartTrouble } from "../../components/Trouble";
import { ChooseFiles } from "../../uploads/ChooseFiles";
import { ChosenFiles } from "../../uploads/ChosenFiles";
import { UploadRow } from "../../uploads/UploadRow";
import type { Upload } from "../../uploads/upload";
import { uploads, useUploads } from "../../uploads/useUploads";
import { Filters } from "./Filters";
import { SessionRow } from "./SessionRow";
import { useFilter } from "./useFilter";
import { type LiveList, useSessionList } from "./useSessionList";

const POLL_INTERVAL_S = 3;

/** Upload, and a list that lives: of all one may see, or of one person. */
export function SessionBrowser({ ownerId }: { ownerId: string | null }) {
  const { filter, text, isFiltered, setText, setStatus, clear } = useFilter(ownerId);
  const { data: config } = useQuery(configQuery);
  const list = useSessionList(filter);
  const here = useUploadsOf(ownerId, config?.max_upload_bytes);
  const chosen = here.filter(({ phase }) => phase === "chosen");
  const rows = here.filter(({ phase }) => phase !== "chosen");
  const isEmpty = list.isLoaded && !isFiltered && list.sessions.length + rows.length === 0;
  return (
    <>
      <section className="card" aria-label="New recordings">
        <ChooseFiles patientId={ownerId} />
        {chosen.length > 0 && <ChosenFiles files={chosen} isOfOne={ownerId !== null} />}
      </section>
      {!isEmpty && (
        <div className="list-head">
          <Filters text={text} status={filter.status} onText={setText} onStatus={setStatus} />
          <ConnectionLine
            connection={list.connection}
            isStale={list.isStale}
            pollIntervalS={config?.poll_interval_s ?? POLL_INTERVAL_S}
          />
        </div>
      )}
      <Rows list={list} uploads={rows} isFiltered={isFiltered} />
      <AfterRows list={list} isEmpty={isEmpty} isFiltered={isFiltered} onClear={clear} />
    </>
  );
}

interface RowsProps {
  list: LiveList;
  uploads: readonly Upload[];
  isFiltered: boolean;
}

/** Uploads first, each in its place when it has become a session; then the rest, newest first. */
function Rows({ list, uploads: here, isFiltered }: RowsProps) {
  const onTop = here.filter(({ phase }) => !(isFiltered && phase === "done"));
  const shownAbove = new Set(onTop.flatMap(({ session }) => session?.id ?? []));
  return (
    <ul className="sessions" aria-label="Recordings" aria-busy={!list.isLoaded}>
      {onTop.map((upload) => (
        <li key={upload.id}>
          {upload.session ? (
            <SessionRow session={list.latest(upload.session)} list={list} />
          ) : (
            <UploadRow upload={upload} />
          )}
        </li>
      ))}
      {list.sessions.map(
        (session) =>
          !shownAbove.has(session.id) && (
            <li key={session.id}>
              <SessionRow session={session} list={list} />
            </li>
          ),
      )}
    </ul>
  );
}

interface AfterProps {
  list: LiveList;
  isEmpty: boolean;
  isFiltered: boolean;
  onClear: () => void;
}

function AfterRows({ list, isEmpty, isFiltered, onClear }: AfterProps) {
  if (list.error && !list.isLoaded)
    return <PartTrouble error={list.error} onRetry={list.refetch} />;
  if (!list.isLoaded) return <Skeleton />;
  if (isEmpty) {
    return <p className="soft empty">Nothing here yet. Your recordings will be listed here.</p>;
  }
  if (isFiltered && list.sessions.length === 0) {
    return (
      <p className="soft empty">
        No recording matches.{" "}
        <Button kind="link" onPress={onClear}>
          Show all
        </Button>
      </p>
    );
  }
  if (!list.hasMore) return null;
  return (
    <p className="more">
      <Button onPress={list.showMore} isPending={list.isLoadingMore}>
        Show more
      </Button>
    </p>
  );
}

/** The shape of what is coming. */
function Skeleton() {
  return (
    <div className="skeleton" role="status">
      <span className="unseen">Loading…</span>
      <i />
      <i />
      <i />
    </div>
  );
}

/** The uploads that belong on this page; those that became sessions are forgotten with it. */
function useUploadsOf(ownerId: string | null, maxBytes: number | undefined): readonly Upload[] {
  const all = useUploads();
  useEffect(() => {
    if (maxBytes !== undefined) uploads.limit(maxBytes);
  }, [maxBytes]);
  useEffect(() => () => uploads.removeDone(), []);
  return ownerId === null ? all : all.filter(({ patientId }) => patientId === ownerId);
}
