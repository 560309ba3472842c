import { Navigate, Route, Routes } from "react-router";
import { Gate } from "./account/Gate";
import { Layout } from "./components/Layout";
import { part } from "./components/part";
import { NotFoundPage } from "./pages/NotFoundPage";
import { RecordingsPage } from "./pages/recordings/RecordingsPage";

const SessionPage = part(() => import("./pages/session/SessionPage"));
const PatientsPage = part(() => import("./pages/patients/PatientsPage"));
const PatientPage = part(() => import("./pages/patients/PatientPage"));
const AccountPage = part(() => import("./pages/account/AccountPage"));

/** Every address of the pages. All but the unknown ones need a sign-in, which `Gate` asks for in
 * place, so that the address stays where one wanted to go. */
export function App() {
  return (
    <Routes>
      <Route element={<Layout />}>
        <Route element={<Gate />}>
          <Route index element={<RecordingsPage />} />
          <Route path="sign-in" element={<Navigate to="/" replace />} />
          <Route path="register" element={<Navigate to="/" replace />} />
          <Route path="sessions/:sessionId" element={<SessionPage />} />
          <Route path="patients" element={<PatientsPage />} />
          <Route path="patients/:patientId" element={<PatientPage />} />
          <Route path="account" element={<AccountPage />} />
        </Route>
        <Route path="*" element={<NotFoundPage />} />
      </Route>
    </Routes>
  );
}
