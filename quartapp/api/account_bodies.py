"""The bodies of accounts: sign-ins, tokens, patients, administration."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, BaseModel, Field, SecretStr, StringConstraints

from jobs.model import Role
from quartapp.accounts import Patient, User, parse_address
from quartapp.api.bodies import PlainText, RequestBody, printable
from quartapp.passwords import MAX_LENGTH, MIN_LENGTH
from quartapp.tokens import MAX_DURATION_DAYS, MAX_NAME_LENGTH, Token


class Registration(RequestBody):
    email: Annotated[str, Field(max_length=254), AfterValidator(parse_address)]
    password: SecretStr = Field(min_length=MIN_LENGTH, max_length=MAX_LENGTH)


class Login(RequestBody):
    email: PlainText = Field(max_length=254)
    password: SecretStr = Field(max_length=MAX_LENGTH)


class UserBody(BaseModel):
    id: UUID
    email: str
    role: Role
    created_at: datetime

    @classmethod
    def of(cls, user: User) -> UserBody:
        return cls(id=user.id, email=user.email, role=user.role, created_at=user.created_at)


class SignedIn(BaseModel):
    """`token` is for `Authorization: Bearer`; the cookie of the same sign-in is set beside it."""

    token: str
    user: UserBody


class NewToken(RequestBody):
    name: Annotated[
        str,
        StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_NAME_LENGTH),
        AfterValidator(printable),
        Field(description="What it is for, to tell it from others."),
    ]
    expires_in_days: int = Field(90, ge=1, le=MAX_DURATION_DAYS)


class TokenBody(BaseModel):
    """A token without its text; `last_used_at` is right to a minute."""

    id: UUID
    name: str
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None

    @classmethod
    def of(cls, token: Token) -> TokenBody:
        return cls(
            id=token.id,
            name=token.name,
            created_at=token.created_at,
            expires_at=token.expires_at,
            last_used_at=token.last_used_at,
        )


class TokenMade(TokenBody):
    """`token` is for `Authorization: Bearer`, and is shown this once."""

    token: str


class TokenList(BaseModel):
    tokens: list[TokenBody]


class PatientBody(BaseModel):
    id: UUID
    email: str
    sessions: int = Field(description="How many there are.")
    latest_session_at: datetime | None

    @classmethod
    def of(cls, patient: Patient) -> PatientBody:
        return cls(
            id=patient.id,
            email=patient.email,
            sessions=patient.sessions,
            latest_session_at=patient.latest_session_at,
        )


class PatientList(BaseModel):
    patients: list[PatientBody]
    next_cursor: str | None


class UserList(BaseModel):
    users: list[UserBody]
    next_cursor: str | None


class UserQuery(BaseModel):
    cursor: PlainText | None = Field(None, max_length=254)
    limit: int = Field(100, ge=1, le=500)


class Assignment(BaseModel):
    therapist_id: UUID
    patient_id: UUID


class AssignmentList(BaseModel):
    assignments: list[Assignment]
