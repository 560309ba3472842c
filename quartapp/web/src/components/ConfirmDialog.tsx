import type { ReactNode } from "react";
import { Dialog } from "react-aria-components/Dialog";
import { Heading } from "react-aria-components/Heading";
import { Modal, ModalOverlay } from "react-aria-components/Modal";
import { asProblem } from "../api/problem";
import { Alert } from "./Alert";
import { Button } from "./Button";

export interface ConfirmProps {
  heading: string;
  children: ReactNode;
  /** What the button that does it says. */
  action: string;
  /** What the button that does nothing says. */
  refusal: string;
  isPending: boolean;
  error: unknown;
  onConfirm: () => void;
  onClose: () => void;
}

/** Asks before something that cannot be undone. Focus begins on the way back, and returns. */
export default function ConfirmDialog(props: ConfirmProps) {
  const { heading, children, action, refusal, isPending, error, onConfirm, onClose } = props;
  return (
    <ModalOverlay
      className="overlay"
      isOpen
      isDismissable={!isPending}
      onOpenChange={(isOpen) => isOpen || onClose()}
    >
      <Modal className="modal">
        <Dialog role="alertdialog" className="dialog">
          <Heading slot="title">{heading}</Heading>
          <p>{children}</p>
          {error !== null && error !== undefined && <Alert>{asProblem(error).message}</Alert>}
          <div className="actions end">
            <Button autoFocus onPress={onClose} isDisabled={isPending}>
              {refusal}
            </Button>
            <Button kind="main-danger" onPress={onConfirm} isPending={isPending}>
              {action}
            </Button>
          </div>
        </Dialog>
      </Modal>
    </ModalOverlay>
  );
}
