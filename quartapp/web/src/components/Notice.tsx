import type { ReactNode } from "react";
import { Link } from "react-router";
import { PageHeading } from "./PageHeading";

interface Props {
  heading: string;
  text: string;
  children?: ReactNode;
}

/** A page that has nothing to show, and says why and where to go. */
export function Notice({ heading, text, children }: Props) {
  return (
    <section className="card narrow notice">
      <PageHeading>{heading}</PageHeading>
      <p>{text}</p>
      <p className="actions">
        {children}
        <Link className="button quiet" to="/">
          All recordings
        </Link>
      </p>
    </section>
  );
}
