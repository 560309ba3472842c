import { useState } from "react";
import { useViewer } from "../../account/Gate";
import { chooseTheme, storedTheme, type Theme } from "../../account/theme";
import { Choice } from "../../components/Choice";
import { PageHeading } from "../../components/PageHeading";
import { SignOut } from "./SignOut";
import { Tokens } from "./Tokens";

const ROLES = {
  patient: "You see your own recordings.",
  therapist: "Therapist: you see your own recordings and those of patients assigned to you.",
  admin: "Administrator: you see everything.",
} as const;

/** Who one is here, and what belongs to that. */
export default function AccountPage() {
  const { email, role, created_at } = useViewer();
  const since = new Date(created_at).toLocaleDateString(undefined, { dateStyle: "long" });
  return (
    <>
      <PageHeading>Account</PageHeading>
      <section className="card" aria-label="You">
        <p className="account-email">{email}</p>
        <p className="soft">
          {ROLES[role]} Account since {since}.
        </p>
        <SignOut />
      </section>
      <Tokens />
      <section className="card" aria-labelledby="appearance-heading">
        <h2 id="appearance-heading">Appearance</h2>
        <ThemeChoice />
      </section>
    </>
  );
}

function ThemeChoice() {
  const [theme, setTheme] = useState(storedTheme);
  const choose = (chosen: string) => {
    chooseTheme(chosen as Theme);
    setTheme(chosen as Theme);
  };
  return (
    <Choice label="Colours" value={theme} onChange={choose}>
      <option value="system">As on this device</option>
      <option value="light">Light</option>
      <option value="dark">Dark</option>
    </Choice>
  );
}
