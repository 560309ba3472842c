import { useQuery } from "@tanstack/react-query";
import { useParams } from "react-router";
import { sessionQuery } from "../../api/sessions";
import { Loading } from "../../components/Loading";
import { Trouble } from "../../components/Trouble";
import { SessionView } from "./SessionView";

/** One recording and its transcription. */
export default function SessionPage() {
  const { sessionId = "" } = useParams();
  const { data: session, error, refetch } = useQuery(sessionQuery(sessionId));
  if (session) return <SessionView key={session.id} session={session} />;
  if (error) return <Trouble error={error} onRetry={refetch} />;
  return <Loading />;
}
