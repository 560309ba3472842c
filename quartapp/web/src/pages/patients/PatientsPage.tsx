import { useInfiniteQuery } from "@tanstack/react-query";
import { Link } from "react-router";
import { useViewer } from "../../account/Gate";
import { type Patient, patientsQuery } from "../../api/patients";
import { Button } from "../../components/Button";
import { Loading } from "../../components/Loading";
import { Notice } from "../../components/Notice";
import { PageHeading } from "../../components/PageHeading";
import { PartTrouble } from "../../components/Trouble";
import { useNow } from "../../components/useNow";
import { ago } from "../../words/time";

/** The patients assigned to a therapist; to an administrator all. */
export default function PatientsPage() {
  const { role } = useViewer();
  if (role === "patient") {
    return <Notice heading="Not yours to see" text="Patients are shown to their therapists." />;
  }
  return (
    <>
      <PageHeading>Patients</PageHeading>
      <PatientList />
    </>
  );
}

function PatientList() {
  const { data, error, refetch, hasNextPage, fetchNextPage, isFetchingNextPage } =
    useInfiniteQuery(patientsQuery);
  if (!data) return error ? <PartTrouble error={error} onRetry={refetch} /> : <Loading />;
  const patients = data.pages.flatMap((page) => page.patients);
  if (patients.length === 0) {
    return (
      <p className="soft empty">
        No patients are assigned to you yet. An administrator of this server does that.
      </p>
    );
  }
  return (
    <>
      <ul className="sessions" aria-label="Patients">
        {patients.map((patient) => (
          <PatientRow key={patient.id} patient={patient} />
        ))}
      </ul>
      {hasNextPage && (
        <p className="more">
          <Button onPress={() => fetchNextPage()} isPending={isFetchingNextPage}>
            Show more
          </Button>
        </p>
      )}
    </>
  );
}

function PatientRow({ patient: { id, email, sessions, latest_session_at } }: { patient: Patient }) {
  const now = useNow(60_000);
  const number = sessions === 1 ? "1 recording" : `${sessions} recordings`;
  return (
    <li>
      <div className="card item">
        <Link className="item-title" to={`/patients/${id}`}>
          {email}
        </Link>
        <p className="item-facts soft small">
          {sessions === 0 ? "No recordings yet" : number}
          {latest_session_at && ` · latest ${ago(latest_session_at, now)}`}
        </p>
      </div>
    </li>
  );
}
