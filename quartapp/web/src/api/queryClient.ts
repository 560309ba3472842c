import { MutationCache, type Query, QueryCache, QueryClient } from "@tanstack/react-query";
import { signedInBefore } from "../account/signedInBefore";
import { type User, type Visitor, visitorQuery } from "./account";
import { isSignedOut } from "./client";
import { asProblem, isTransient } from "./problem";

const MAX_RETRIES = 3;
const RETRY_CAP_MS = 10_000;

/** Whoever asks is told to sign in as soon as any answer says that nobody is signed in. */
export const queryClient: QueryClient = new QueryClient({
  queryCache: new QueryCache({ onError: noticeSignedOut }),
  mutationCache: new MutationCache({ onError: noticeSignedOut }),
  defaultOptions: {
    queries: { retry, retryDelay, refetchInterval, staleTime: 5000 },
  },
});

function noticeSignedOut(error: unknown): void {
  if (isSignedOut(error)) signedOut();
}

function retry(failures: number, error: unknown): boolean {
  return failures < MAX_RETRIES && isTransient(asProblem(error));
}

/** What could not be loaded is asked for again, as long as somebody looks at the page. */
function refetchInterval({ state }: Query): number | false {
  if (state.status !== "error" || !isTransient(asProblem(state.error))) return false;
  return retryDelay(MAX_RETRIES + 1, state.error);
}

function retryDelay(failures: number, error: unknown): number {
  const asked = asProblem(error).retryAfterMs ?? 0;
  return Math.max(asked, Math.min(RETRY_CAP_MS, 1000 * 2 ** failures));
}

/** The sign-in is over; what was loaded with it is forgotten. */
export function signedOut(why: "new" | "signed_out" = "signed_out"): void {
  const visitor = queryClient.getQueryData<Visitor>(visitorQuery.queryKey);
  if (visitor && visitor.user === null) return;
  signedInBefore.set(null);
  enter({ user: null, why });
}

/** Somebody has signed in. */
export function signedIn(user: User): void {
  signedInBefore.set(user.id);
  enter({ user });
}

/** All tabs have one cookie: who signs in or out in one of them does so in all. */
signedInBefore.onChangeElsewhere((userId) => {
  const here = queryClient.getQueryData<Visitor>(visitorQuery.queryKey)?.user ?? null;
  if (userId === null) signedOut();
  else if (userId !== here?.id) void askAgain();
});

async function askAgain(): Promise<void> {
  const visitor = await queryClient.fetchQuery({ ...visitorQuery, staleTime: 0 });
  if (visitor.user) signedIn(visitor.user);
}

function enter(visitor: Visitor): void {
  queryClient.removeQueries({
    predicate: ({ queryKey }) => !["visitor", "config"].includes(String(queryKey[0])),
  });
  queryClient.setQueryData<Visitor>(visitorQuery.queryKey, visitor);
}
