import { useInfiniteQuery } from "@tanstack/react-query";
import { useEffect } from "react";
import { Link, useParams } from "react-router";
import { useViewer } from "../../account/Gate";
import { patientsQuery } from "../../api/patients";
import { Loading } from "../../components/Loading";
import { Notice } from "../../components/Notice";
import { PageHeading } from "../../components/PageHeading";
import { Trouble } from "../../components/Trouble";
import { SessionBrowser } from "../recordings/SessionBrowser";

/** One patient's recordings, and uploads for them. */
export default function PatientPage() {
  const { patientId = "" } = useParams();
  const { role } = useViewer();
  const { data, error, refetch, hasNextPage, isFetching, fetchNextPage } = useInfiniteQuery({
    ...patientsQuery,
    enabled: role !== "patient",
  });
  const patient = data?.pages.flatMap((page) => page.patients).find(({ id }) => id === patientId);
  const isFurtherOn = !patient && hasNextPage;
  useEffect(() => {
    if (isFurtherOn && !isFetching && !error) void fetchNextPage();
  }, [isFurtherOn, isFetching, error, fetchNextPage]);
  if (role === "patient") {
    return <Notice heading="Not yours to see" text="Patients are shown to their therapists." />;
  }
  if (!data || isFurtherOn) {
    return error ? <Trouble error={error} onRetry={refetch} /> : <Loading />;
  }
  if (!patient) {
    return <Notice heading="Nothing here" text="No patient of yours has this address." />;
  }
  return (
    <>
      <p className="back">
        <Link to="/patients">← All patients</Link>
      </p>
      <PageHeading>{patient.email}</PageHeading>
      <SessionBrowser key={patient.id} ownerId={patient.id} />
    </>
  );
}
