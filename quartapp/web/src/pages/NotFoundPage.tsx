import { Notice } from "../components/Notice";

/** For addresses that lead nowhere. */
export function NotFoundPage() {
  return <Notice heading="No such page" text="There is nothing at this address. Is it complete?" />;
}
