import { useQuery } from "@tanstack/react-query";
import { useParams } from "react-router";
import { asProblem } from "../../api/problem";
import { sessionQuery } from "../../api/sessions";
import { Loading } from "../../components/Loading";
import { Trouble } from "../../components/Trouble";
import { SessionView } from "./SessionView";
import { lossOf } from "./useFollowed";

/** One recording and its transcription. */
export default function SessionPage() {
  const { sessionId = "" } = useParams();
  const { data: session, error, refetch } = useQuery(sessionQuery(sessionId));
  if (session) {
    const loss = error && lossOf(asProblem(error).code);
    return <SessionView key={session.id} session={session} loss={loss} />;
  }
  if (error) return <Trouble error={error} onRetry={refetch} />;
  return <Loading />;
}
