import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Suspense, useState } from "react";
import { revokeToken, type Token, type TokenMade, tokensQuery } from "../../api/account";
import { Button } from "../../components/Button";
import { Loading } from "../../components/Loading";
import { part } from "../../components/part";
import { PartTrouble } from "../../components/Trouble";
import { useNow } from "../../components/useNow";
import { ago } from "../../words/time";
import { MakeToken } from "./MakeToken";
import { NewToken } from "./NewToken";

const ConfirmDialog = part(() => import("../../components/ConfirmDialog"));

/** Tokens for programs that act for this person. */
export function Tokens() {
  const [made, setMade] = useState<TokenMade | null>(null);
  return (
    <section className="card" aria-labelledby="tokens-heading">
      <h2 id="tokens-heading">API tokens</h2>
      <p className="soft">
        For programs that upload and read for you. See the <a href="/docs">API</a>.
      </p>
      {made && <NewToken key={made.id} token={made} onHide={() => setMade(null)} />}
      <TokenList onRevoked={(id) => setMade((shown) => (shown?.id === id ? null : shown))} />
      <MakeToken onMade={setMade} />
    </section>
  );
}

interface Revocable {
  onRevoked: (tokenId: string) => void;
}

function TokenList({ onRevoked }: Revocable) {
  const { data: tokens, error, refetch } = useQuery(tokensQuery);
  if (!tokens) return error ? <PartTrouble error={error} onRetry={refetch} /> : <Loading />;
  if (tokens.length === 0) return <p className="soft">You have no tokens.</p>;
  return (
    <ul className="tokens" aria-label="Your tokens">
      {tokens.map((token) => (
        <TokenRow key={token.id} token={token} onRevoked={onRevoked} />
      ))}
    </ul>
  );
}

function TokenRow({ token, onRevoked }: { token: Token } & Revocable) {
  const [isAsking, setAsking] = useState(false);
  const client = useQueryClient();
  const revoking = useMutation({
    mutationFn: () => revokeToken(token.id),
    onSuccess: () => {
      onRevoked(token.id);
      return client.invalidateQueries({ queryKey: tokensQuery.queryKey });
    },
  });
  return (
    <li>
      <span>
        <strong dir="auto">{token.name}</strong>
        <Facts token={token} />
      </span>
      <Button aria-label={`Revoke ${token.name}`} onPress={() => setAsking(true)}>
        Revoke
      </Button>
      {isAsking && (
        <Suspense>
          <ConfirmDialog
            heading="Revoke this token?"
            action="Revoke"
            refusal="Keep it"
            isPending={revoking.isPending}
            error={revoking.error}
            onConfirm={() => revoking.mutate()}
            onClose={() => setAsking(false)}
          >
            Programs that use <strong dir="auto">{token.name}</strong> will be refused from now on.
          </ConfirmDialog>
        </Suspense>
      )}
    </li>
  );
}

function Facts({ token: { created_at, expires_at, last_used_at } }: { token: Token }) {
  const now = useNow(60_000);
  const until = new Date(expires_at).toLocaleDateString(undefined, { dateStyle: "medium" });
  const used = last_used_at ? `used ${ago(last_used_at, now)}` : "never used";
  return (
    <span className="soft small">
      made {ago(created_at, now)} · {used} · good until {until}
    </span>
  );
}
