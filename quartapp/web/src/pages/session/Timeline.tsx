import { useInfiniteQuery, useQueryClient } from "@tanstack/react-query";
import { useEffect, useState } from "react";
import { historyQuery, type Session } from "../../api/sessions";
import { Button } from "../../components/Button";
import { Loading } from "../../components/Loading";
import { PartTrouble } from "../../components/Trouble";
import { dateAndTime } from "../../words/time";
import { type Entry, timeline } from "./timelineEntries";

/** What happened to a session, from the beginning; folded away until somebody wants to know. */
export function Timeline({ session }: { session: Session }) {
  const [isOpen, setOpen] = useState(false);
  return (
    <details className="card timeline" onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>
        <h2>What happened</h2>
      </summary>
      {isOpen && <Events session={session} />}
    </details>
  );
}

function Events({ session }: { session: Session }) {
  const history = useInfiniteQuery(historyQuery(session.id));
  useRenewal(session);
  if (!history.data) {
    return history.error ? (
      <PartTrouble error={history.error} onRetry={history.refetch} />
    ) : (
      <Loading />
    );
  }
  const entries = timeline(history.data.pages.flatMap((page) => page.events));
  return (
    <>
      <ol>
        {entries.map((entry) => (
          <EventLine key={entry.id} entry={entry} />
        ))}
      </ol>
      {history.hasNextPage && (
        <Button onPress={() => history.fetchNextPage()} isPending={history.isFetchingNextPage}>
          Show more
        </Button>
      )}
    </>
  );
}

function EventLine({ entry: { timestamp, percent, words, detail, tone } }: { entry: Entry }) {
  const time = new Date(timestamp).toLocaleTimeString();
  return (
    <li data-tone={tone}>
      <time className="soft" dateTime={timestamp} title={dateAndTime(timestamp)}>
        {time}
      </time>
      <span className="timeline-percent soft">{percent} %</span>
      <span>
        {words} {detail && <span className="soft small">{detail}</span>}
      </span>
    </li>
  );
}

/** While it is open it keeps up, by whole tens of percent. */
function useRenewal({ id, status, attempt, progress }: Session): void {
  const client = useQueryClient();
  const tens = Math.floor(progress / 10);
  // biome-ignore lint/correctness/useExhaustiveDependencies: each change is a reason
  useEffect(() => {
    void client.invalidateQueries({ queryKey: historyQuery(id).queryKey });
  }, [client, id, status, attempt, tens]);
}
