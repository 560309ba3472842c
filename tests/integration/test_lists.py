"""Lists of sessions and patients: searched, filtered, paged, and never of what one may not see."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from tests.product import Product
from tests.sessions import SESSIONS, address

PATIENTS = "/api/v1/patients"


def code(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    return answer.status_code, answer.json()["code"]


def insert_session(
    product: Product, owner_id: UUID, title: str, file_name: str, status: str = "completed"
) -> None:
    """One that is over, so that nobody works on it."""
    product.rows(
        "INSERT INTO sessions (id, owner_id, title, file_name, audio_type, size_bytes, sha256, "
        "status, stage, progress, finished_at) "
        "VALUES (%s, %s, %s, %s, 'audio/wav', 1000, '', %s, 'done', 100, now()) RETURNING 1",
        uuid4(),
        owner_id,
        title,
        file_name,
        status,
    )


@dataclass(frozen=True)
class Cast:
    """Two patients, one of them assigned to the therapist, each with recordings."""

    patient: httpx.Client
    patient_id: UUID
    stranger: httpx.Client
    stranger_id: UUID
    therapist: httpx.Client
    admin: httpx.Client


RECORDINGS = [
    ("First interview", "memo-001.wav", "completed"),
    ("Second interview", "memo-002.wav", "completed"),
    ("50% off_sale \\ today", "ad.mp3", "completed"),
    ("5000 offsale", "other.mp3", "completed"),
    ("Überweisung an die ÄRZTIN", "brief.ogg", "cancelled"),
    ("Notes", "Interview notes.m4a", "cancelled"),
]


@pytest.fixture(scope="module")
def people(product: Product) -> Iterator[Cast]:
    clients = [
        product.client(address(), role) for role in ("patient", "patient", "therapist", "admin")
    ]
    patient, stranger, therapist, admin = clients
    ids = [UUID(client.get("/api/v1/auth/me").json()["id"]) for client in clients]
    assigned = f"/api/v1/admin/assignments/{ids[2]}/{ids[0]}"
    assert admin.put(assigned).status_code == 204
    for title, file_name, status in RECORDINGS:
        insert_session(product, ids[0], title, file_name, status)
    insert_session(product, ids[1], "An interview of a stranger", "stranger.wav")
    insert_session(product, ids[2], "The therapist's own interview", "own.wav")
    yield Cast(patient, ids[0], stranger, ids[1], therapist, admin)
    for client in clients:
        client.close()


def titles(client: httpx.Client, **query: Any) -> list[str]:
    answer = client.get(SESSIONS, params=query)
    assert answer.status_code == 200, answer.text
    return [session["title"] for session in answer.json()["sessions"]]


@pytest.mark.parametrize(
    ("q", "expected"),
    [
        ("interview", ["Notes", "Second interview", "First interview"]),
        ("INTERVIEW", ["Notes", "Second interview", "First interview"]),
        (" interview ", ["Notes", "Second interview", "First interview"]),
        ("memo-002", ["Second interview"]),
        ("50%", ["50% off_sale \\ today"]),
        ("off_sale", ["50% off_sale \\ today"]),
        ("\\", ["50% off_sale \\ today"]),
        ("ärztin", ["Überweisung an die ÄRZTIN"]),
        ("ÜBER", ["Überweisung an die ÄRZTIN"]),
        ("%", ["50% off_sale \\ today"]),
        ("_", ["50% off_sale \\ today"]),
        ("nothing of the kind", []),
        ("' OR 1=1 --", []),
        ("stranger", []),
        ("", [title for title, _, _ in reversed(RECORDINGS)]),
        ("   ", [title for title, _, _ in reversed(RECORDINGS)]),
    ],
)
def test_a_search_is_for_a_part_of_title_or_file_name(
    people: Cast, q: str, expected: list[str]
) -> None:
    assert titles(people.patient, q=q) == expected


def test_a_filter_by_status_goes_with_a_search(people: Cast) -> None:
    assert titles(people.patient, status="cancelled") == ["Notes", "Überweisung an die ÄRZTIN"]
    assert titles(people.patient, status="cancelled", q="interview") == ["Notes"]
    assert titles(people.patient, status="failed") == []


@pytest.mark.parametrize(
    "query",
    [{"status": "done"}, {"owner_id": "me"}, {"q": "x" * 301}, {"q": "a\0"}],
    ids=lambda query: next(iter(query)),
)
def test_what_cannot_be_asked_for_is_refused(people: Cast, query: dict[str, str]) -> None:
    assert code(people.patient.get(SESSIONS, params=query)) == (422, "invalid_request")


def test_pages_of_a_search_hold_every_find_once(people: Cast) -> None:
    found: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        query = {"q": "interview", "limit": "1", **cursor}
        page = people.therapist.get(SESSIONS, params=query).json()
        found += [session["title"] for session in page["sessions"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert found == [
        "The therapist's own interview",
        "Notes",
        "Second interview",
        "First interview",
    ]


class TestOwner:
    """Whose sessions: said of each, and asked for."""

    def test_each_session_says_whose_it_is(self, people: Cast) -> None:
        emails = {
            session["owner_id"]: session["owner_email"]
            for session in people.therapist.get(SESSIONS).json()["sessions"]
        }
        expected = [people.patient, people.therapist]
        users = [client.get("/api/v1/auth/me").json() for client in expected]
        assert emails == {user["id"]: user["email"] for user in users}

    def test_one_session_says_it_as_well(self, people: Cast) -> None:
        listed = people.therapist.get(SESSIONS, params={"q": "memo-001"}).json()["sessions"][0]
        assert people.therapist.get(f"{SESSIONS}/{listed['id']}").json() == listed
        assert listed["owner_email"] == people.patient.get("/api/v1/auth/me").json()["email"]

    def test_a_therapist_asks_for_one_patient(self, people: Cast) -> None:
        found = titles(people.therapist, owner_id=people.patient_id, q="interview")
        assert found == ["Notes", "Second interview", "First interview"]

    def test_an_admin_asks_for_anybody(self, people: Cast) -> None:
        assert titles(people.admin, owner_id=people.stranger_id) == ["An interview of a stranger"]
        assert titles(people.admin, owner_id=uuid4()) == []

    def test_nobody_asks_for_those_of_a_stranger(self, people: Cast) -> None:
        for client, owner_id in (
            (people.therapist, people.stranger_id),
            (people.therapist, uuid4()),
            (people.patient, people.stranger_id),
            (people.stranger, people.patient_id),
        ):
            answer = client.get(SESSIONS, params={"owner_id": str(owner_id)})
            assert code(answer) == (403, "forbidden")

    def test_ones_own_may_be_asked_for(self, people: Cast) -> None:
        assert titles(people.stranger, owner_id=people.stranger_id) == [
            "An interview of a stranger"
        ]


class TestPatients:
    """Who is looked after, for those who do."""

    def test_a_therapist_sees_those_assigned(self, people: Cast) -> None:
        body = people.therapist.get(PATIENTS).json()
        newest = people.patient.get(SESSIONS, params={"limit": 1}).json()["sessions"][0]
        (patient,) = body["patients"]
        assert patient == {
            "id": str(people.patient_id),
            "email": people.patient.get("/api/v1/auth/me").json()["email"],
            "sessions": len(RECORDINGS),
            "latest_session_at": newest["created_at"],
        }
        assert body["next_cursor"] is None

    def test_one_who_is_assigned_no_longer_is_not_seen(
        self, product: Product, people: Cast
    ) -> None:
        with product.client(address(), "therapist") as therapist:
            therapist_id = therapist.get("/api/v1/auth/me").json()["id"]
            pair = f"/api/v1/admin/assignments/{therapist_id}/{people.patient_id}"
            people.admin.put(pair)
            assert len(therapist.get(PATIENTS).json()["patients"]) == 1
            people.admin.delete(pair)
            assert therapist.get(PATIENTS).json()["patients"] == []
            query = {"owner_id": str(people.patient_id)}
            assert code(therapist.get(SESSIONS, params=query)) == (403, "forbidden")

    def test_one_without_sessions_is_there_too(self, product: Product, people: Cast) -> None:
        quiet = product.create_user(address())
        with product.client(address(), "therapist") as therapist:
            therapist_id = therapist.get("/api/v1/auth/me").json()["id"]
            people.admin.put(f"/api/v1/admin/assignments/{therapist_id}/{quiet}")
            (patient,) = therapist.get(PATIENTS).json()["patients"]
            assert (patient["sessions"], patient["latest_session_at"]) == (0, None)

    def test_a_patient_is_refused(self, people: Cast) -> None:
        assert code(people.patient.get(PATIENTS)) == (403, "forbidden")

    def test_an_admin_sees_every_patient_in_pages(self, people: Cast) -> None:
        seen: list[str] = []
        cursor: str | None = ""
        while cursor is not None:
            page = people.admin.get(PATIENTS, params={"limit": 2, "cursor": cursor}).json()
            assert len(page["patients"]) <= 2
            seen += [patient["id"] for patient in page["patients"]]
            cursor = page["next_cursor"]
        users = people.admin.get("/api/v1/admin/users", params={"limit": 500}).json()["users"]
        assert sorted(seen) == sorted(user["id"] for user in users if user["role"] == "patient")


def test_the_settings_for_clients_are_those_of_the_server(product: Product) -> None:
    body = httpx.get(f"{product.url}/api/v1/config").json()
    assert body.pop("version")
    assert body == {
        "registration": "open",
        "max_upload_bytes": 500 * 2**20,
        "poll_interval_s": 3,
        "stream_retry_s": 30,
    }
