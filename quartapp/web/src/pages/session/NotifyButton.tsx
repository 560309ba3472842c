import { useState } from "react";
import { ToggleButton } from "react-aria-components/ToggleButton";
import { Bell } from "../../components/icons";
import { wantsNotice } from "./notice";

/** Asks for a browser notification at the end. The browser's own question comes only from here. */
export function NotifyButton() {
  const [isWanted, setWanted] = useState(wantsNotice.get);
  const [isDenied, setDenied] = useState(isForbidden);
  if (!("Notification" in window)) return null;
  if (isDenied) {
    return <span className="soft small">Notifications are blocked in this browser.</span>;
  }
  const change = async (wanted: boolean) => {
    const isAllowed = !wanted || (await Notification.requestPermission()) === "granted";
    setDenied(isForbidden());
    wantsNotice.set(wanted && isAllowed);
    setWanted(wanted && isAllowed);
  };
  return (
    <ToggleButton className="button quiet toggle" isSelected={isWanted} onChange={change}>
      <Bell /> {isWanted ? "You will be told at the end" : "Tell me at the end"}
    </ToggleButton>
  );
}

const isForbidden = () => "Notification" in window && Notification.permission === "denied";
