import { useMutation, useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import { Form } from "react-aria-components/Form";
import { makeToken, type TokenMade, tokensQuery } from "../../api/account";
import { asProblem } from "../../api/problem";
import { Alert } from "../../components/Alert";
import { Button } from "../../components/Button";
import { Choice } from "../../components/Choice";
import { TextField } from "../../components/TextField";

const DAYS = [7, 30, 90, 365];

/** The form that makes a token. */
export function MakeToken({ onMade }: { onMade: (token: TokenMade) => void }) {
  const [name, setName] = useState("");
  const [days, setDays] = useState("90");
  const client = useQueryClient();
  const making = useMutation({
    mutationFn: () => makeToken(name.trim(), Number(days)),
    onSuccess: (token) => {
      setName("");
      onMade(token);
      return client.invalidateQueries({ queryKey: tokensQuery.queryKey });
    },
  });
  const submit = (event: FormEvent) => {
    event.preventDefault();
    making.mutate();
  };
  return (
    <Form className="make-token" aria-label="New token" onSubmit={submit}>
      <TextField
        label="Name"
        note="what it is for"
        value={name}
        onChange={setName}
        maxLength={100}
        autoComplete="off"
        isRequired
      />
      <Choice label="Good for" value={days} onChange={setDays}>
        {DAYS.map((number) => (
          <option key={number} value={number}>
            {number === 365 ? "a year" : `${number} days`}
          </option>
        ))}
      </Choice>
      <Button type="submit" isPending={making.isPending}>
        Make a token
      </Button>
      {making.error && <Alert>{asProblem(making.error).message}</Alert>}
    </Form>
  );
}
