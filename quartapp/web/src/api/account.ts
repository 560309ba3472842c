import { queryOptions } from "@tanstack/react-query";
import { signedInBefore } from "../account/signedInBefore";
import { answered, api, isSignedOut, type Schemas } from "./client";

export type User = Schemas["UserBody"];
export type Token = Schemas["TokenBody"];
export type TokenMade = Schemas["TokenMade"];

/** Who is at the browser: nobody yet, nobody any more, or somebody. */
export type Visitor =
  | { readonly user: null; readonly why: "new" | "signed_out" }
  | { readonly user: User };

export interface Credentials {
  readonly email: string;
  readonly password: string;
}

export const visitorQuery = queryOptions({
  queryKey: ["visitor"],
  queryFn: askWhoIsThere,
  staleTime: Number.POSITIVE_INFINITY,
});

async function askWhoIsThere(): Promise<Visitor> {
  if (!signedInBefore.get()) return { user: null, why: "new" };
  try {
    return { user: await answered(api.GET("/api/v1/auth/me")) };
  } catch (error) {
    if (!isSignedOut(error)) throw error;
    signedInBefore.set(null);
    return { user: null, why: "signed_out" };
  }
}

export async function signIn(body: Credentials): Promise<User> {
  return (await answered(api.POST("/api/v1/auth/login", { body }))).user;
}

export async function register(body: Credentials): Promise<User> {
  return (await answered(api.POST("/api/v1/auth/register", { body }))).user;
}

/** Ends the sign-in, here and for the server. That it was over already is no error. */
export async function signOut(): Promise<void> {
  try {
    await answered(api.POST("/api/v1/auth/logout"));
  } catch (error) {
    if (!isSignedOut(error)) throw error;
  }
}

export const configQuery = queryOptions({
  queryKey: ["config"],
  queryFn: () => answered(api.GET("/api/v1/config")),
  staleTime: Number.POSITIVE_INFINITY,
});

export const tokensQuery = queryOptions({
  queryKey: ["tokens"],
  queryFn: async () => (await answered(api.GET("/api/v1/auth/tokens"))).tokens,
});

/** `token` in the answer is told this once. */
export function makeToken(name: string, days: number): Promise<TokenMade> {
  const body = { name, expires_in_days: days };
  return answered(api.POST("/api/v1/auth/tokens", { body }));
}

export async function revokeToken(tokenId: string): Promise<void> {
  await answered(
    api.DELETE("/api/v1/auth/tokens/{token_id}", { params: { path: { token_id: tokenId } } }),
  );
}
