import { useMutation, useQueryClient } from "@tanstack/react-query";
import { type ReactNode, Suspense, useState } from "react";
import { deleteSession, LISTS, type Session } from "../api/sessions";
import { uploads } from "../uploads/useUploads";
import { announce } from "./Announcer";
import { Button } from "./Button";
import { keepFocus } from "./keepFocus";
import { part } from "./part";

const ConfirmDialog = part(() => import("./ConfirmDialog"));

interface Props {
  session: Session;
  kind: "icon" | "danger";
  label: string;
  children: ReactNode;
  onDeleted?: () => void;
}

/** A button that deletes a recording, once it was asked for twice. */
export function DeleteRecording({ session, kind, label, children, onDeleted }: Props) {
  const [isAsking, setAsking] = useState(false);
  const deleting = useDeleting(session, () => {
    setAsking(false);
    onDeleted?.();
  });
  return (
    <>
      <Button kind={kind} aria-label={label} onPress={() => setAsking(true)}>
        {children}
      </Button>
      {isAsking && (
        <Suspense>
          <ConfirmDialog
            heading="Delete this recording?"
            action="Delete"
            refusal="Keep it"
            isPending={deleting.isPending}
            error={deleting.error}
            onConfirm={() => deleting.mutate()}
            onClose={() => setAsking(false)}
          >
            <strong dir="auto">{session.title}</strong> and its transcript will be gone for good.
          </ConfirmDialog>
        </Suspense>
      )}
    </>
  );
}

function useDeleting(session: Session, onDeleted: () => void) {
  const client = useQueryClient();
  return useMutation({
    mutationFn: () => deleteSession(session.id),
    onSuccess: async () => {
      for (const upload of uploads.snapshot()) {
        if (upload.session?.id === session.id) uploads.remove(upload.id);
      }
      announce(`${session.title} was deleted.`);
      onDeleted();
      client.removeQueries({ queryKey: ["session", session.id] });
      await client.invalidateQueries({ queryKey: LISTS });
      keepFocus();
    },
  });
}
