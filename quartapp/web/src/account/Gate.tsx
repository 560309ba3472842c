import { useQuery } from "@tanstack/react-query";
import { createContext, Suspense, use, useEffect } from "react";
import { Outlet, useLocation } from "react-router";
import { type User, visitorQuery } from "../api/account";
import { queryClient, signedOut } from "../api/queryClient";
import { LISTS } from "../api/sessions";
import { announce } from "../components/Announcer";
import { Loading } from "../components/Loading";
import { Trouble } from "../components/Trouble";
import { uploads } from "../uploads/useUploads";
import { SignIn } from "./SignIn";

const OFFLINE = "There is no network. This page comes as soon as there is.";

const ViewerContext = createContext<User | null>(null);

/** Who is signed in. Only below `Gate`. */
export function useViewer(): User {
  const viewer = use(ViewerContext);
  if (viewer === null) throw new Error("useViewer outside of Gate");
  return viewer;
}

/** The pages, for those who are signed in; for others the way in, at the same address. */
export function Gate() {
  const { pathname } = useLocation();
  const { data: visitor, error, refetch } = useQuery(visitorQuery);
  const user = visitor?.user ?? null;
  useUploadsOf(user);
  if (error) return <Trouble error={error} onRetry={refetch} />;
  if (!visitor) return <Loading />;
  if (!visitor.user) return <SignIn why={visitor.why} />;
  return (
    <ViewerContext key={visitor.user.id} value={visitor.user}>
      <Suspense
        key={pathname}
        fallback={<Loading label={navigator.onLine ? "Loading…" : OFFLINE} />}
      >
        <Outlet />
      </Suspense>
    </ViewerContext>
  );
}

let uploader: string | null = null;

/** Uploads wait for their owner to be signed in again, and are nobody else's. */
function useUploadsOf(user: User | null): void {
  const id = user?.id ?? null;
  useEffect(() => {
    uploads.onSignedOut = signedOut;
    uploads.onDone = ({ title }) => {
      announce(`${title} is uploaded.`);
      void queryClient.invalidateQueries({ queryKey: LISTS });
    };
    if (id === null) return;
    if (uploader !== null && uploader !== id) uploads.removeAll();
    uploader = id;
    uploads.resume();
  }, [id]);
}
