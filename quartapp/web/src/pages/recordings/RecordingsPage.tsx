import { PageHeading } from "../../components/PageHeading";
import { SessionBrowser } from "./SessionBrowser";

/** Where one lands: upload, and all that was uploaded. */
export function RecordingsPage() {
  return (
    <>
      <PageHeading>Recordings</PageHeading>
      <SessionBrowser ownerId={null} />
    </>
  );
}
