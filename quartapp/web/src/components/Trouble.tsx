import { asProblem, type Problem } from "../api/problem";
import { Button } from "./Button";
import { Notice } from "./Notice";

interface Props {
  error: unknown;
  onRetry: () => void;
}

/** In place of a part of a page that could not be loaded. */
export function PartTrouble({ error, onRetry }: Props) {
  return (
    <div className="alert row" role="alert">
      <span>{asProblem(error).message}</span>
      <Button onPress={onRetry}>Try again</Button>
    </div>
  );
}

/** In place of a page that could not be loaded. */
export function Trouble({ error, onRetry }: Props) {
  const problem = asProblem(error);
  if (problem.status === 403) return <NotYours problem={problem} />;
  if (problem.status === 404) return <NotThere problem={problem} />;
  return (
    <Notice heading="That did not work" text={problem.message}>
      <Button kind="main" onPress={onRetry}>
        Try again
      </Button>
    </Notice>
  );
}

function NotYours({ problem }: { problem: Problem }) {
  const text = `${problem.message} Sign in with the account it belongs to, or ask its owner.`;
  return <Notice heading="Not yours to see" text={text} />;
}

function NotThere({ problem }: { problem: Problem }) {
  const text = `${problem.message} It may have been deleted, or the address is not complete.`;
  return <Notice heading="Nothing here" text={text} />;
}
