import { useMutation } from "@tanstack/react-query";
import { Suspense, useState } from "react";
import { useNavigate } from "react-router";
import { signOut } from "../../api/account";
import { asProblem } from "../../api/problem";
import { signedOut } from "../../api/queryClient";
import { Alert } from "../../components/Alert";
import { Button } from "../../components/Button";
import { part } from "../../components/part";
import { uploads } from "../../uploads/useUploads";

const ConfirmDialog = part(() => import("../../components/ConfirmDialog"));

/** Ends the sign-in; asks first when that would stop uploads. */
export function SignOut() {
  const [isAsking, setAsking] = useState(false);
  const navigate = useNavigate();
  const leaving = useMutation({
    mutationFn: signOut,
    onSuccess: () => {
      uploads.removeAll();
      signedOut("new");
      navigate("/", { replace: true });
    },
  });
  const begin = () => (uploads.isUnfinished ? setAsking(true) : leaving.mutate());
  return (
    <>
      {leaving.error && <Alert>{asProblem(leaving.error).message}</Alert>}
      <div className="actions">
        <Button onPress={begin} isPending={leaving.isPending}>
          Sign out
        </Button>
      </div>
      {isAsking && (
        <Suspense>
          <ConfirmDialog
            heading="Sign out while uploading?"
            action="Sign out"
            refusal="Stay"
            isPending={leaving.isPending}
            error={leaving.error}
            onConfirm={() => leaving.mutate()}
            onClose={() => setAsking(false)}
          >
            Recordings that are still being uploaded will not arrive.
          </ConfirmDialog>
        </Suspense>
      )}
    </>
  );
}
