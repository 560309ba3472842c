import { useMutation, useQuery } from "@tanstack/react-query";
import { type FormEvent, useRef, useState } from "react";
import { Form } from "react-aria-components/Form";
import { useLocation } from "react-router";
import { type Credentials, configQuery, register, signIn } from "../api/account";
import { asProblem } from "../api/problem";
import { signedIn } from "../api/queryClient";
import { Alert } from "../components/Alert";
import { Button } from "../components/Button";
import { PageHeading } from "../components/PageHeading";
import { TextField } from "../components/TextField";

const MIN_PASSWORD = 8;

const MODES = {
  signIn: {
    heading: "Sign in",
    submit: "Sign in",
    question: "New here?",
    other: "Make an account",
    autoComplete: "current-password",
    enter: signIn,
  },
  register: {
    heading: "Make an account",
    submit: "Make account",
    question: "Have an account?",
    other: "Sign in",
    autoComplete: "new-password",
    enter: register,
  },
} as const;

const WHYS = {
  new: "Upload a recording, watch it being transcribed, take the text with you.",
  signed_out: "You have been signed out. Sign in to go on.",
} as const;

/** The way in; afterwards the page at this address is shown. */
export function SignIn({ why }: { why: keyof typeof WHYS }) {
  const { pathname } = useLocation();
  const [mode, setMode] = useState<keyof typeof MODES>(
    pathname === "/register" ? "register" : "signIn",
  );
  const words = MODES[mode];
  const form = useRef<HTMLFormElement>(null);
  const entering = useMutation({
    mutationFn: (credentials: Credentials) => words.enter(credentials),
    onSuccess: signedIn,
    onError: (error) => {
      if (asProblem(error).status === 401) passwordOf(form.current)?.select();
    },
  });

  function submit(event: FormEvent<HTMLFormElement>) {
    event.preventDefault();
    const fields = new FormData(event.currentTarget);
    const email = String(fields.get("email")).trim();
    entering.mutate({ email, password: String(fields.get("password")) });
  }

  function turn() {
    entering.reset();
    setMode(mode === "signIn" ? "register" : "signIn");
  }

  return (
    <section className="card narrow">
      <PageHeading key={mode}>{words.heading}</PageHeading>
      <p className="soft">{WHYS[why]}</p>
      <Closed mode={mode}>
        <Form ref={form} onSubmit={submit}>
          <TextField
            label="Email"
            name="email"
            type="email"
            autoComplete="username"
            maxLength={254}
            isRequired
            autoFocus
          />
          <TextField
            key={mode}
            label="Password"
            name="password"
            type="password"
            autoComplete={words.autoComplete}
            maxLength={256}
            isRequired
            {...(mode === "register" && {
              minLength: MIN_PASSWORD,
              description: `At least ${MIN_PASSWORD} characters.`,
            })}
          />
          {entering.error && <Alert>{asProblem(entering.error).message}</Alert>}
          <Button kind="main" type="submit" isPending={entering.isPending} className="wide">
            {words.submit}
          </Button>
        </Form>
      </Closed>
      <Other mode={mode} onTurn={turn} />
    </section>
  );
}

type Mode = keyof typeof MODES;

function passwordOf(form: HTMLFormElement | null): HTMLInputElement | null {
  return form?.querySelector<HTMLInputElement>("[name=password]") ?? null;
}

/** What is shown instead of the form where nobody may register. */
function Closed({ mode, children }: { mode: Mode; children: React.ReactNode }) {
  const isClosed = useRegistrationClosed();
  if (mode === "signIn" || !isClosed) return children;
  return (
    <p className="alert calm">
      Registration is closed here. Ask whoever runs this server for an account.
    </p>
  );
}

function Other({ mode, onTurn }: { mode: Mode; onTurn: () => void }) {
  const isClosed = useRegistrationClosed();
  if (mode === "signIn" && isClosed) {
    return <p className="switch soft small">Accounts are made by whoever runs this server.</p>;
  }
  return (
    <p className="switch">
      {MODES[mode].question}{" "}
      <Button kind="link" onPress={onTurn}>
        {MODES[mode].other}
      </Button>
    </p>
  );
}

function useRegistrationClosed(): boolean {
  return useQuery(configQuery).data?.registration === "closed";
}
