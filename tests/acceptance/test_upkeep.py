"""Upkeep by the queue's clock: by one process at a time, and by another when one is killed."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import psycopg

from tests import clips
from tests.fleet import fleet
from tests.product import Product
from tests.sessions import SESSIONS, address, finished, upload

EACH_SECOND = {
    "QUARTAPP_ROLE": "all",
    "QUARTAPP_UPKEEP_CRON": "* * * * * *",
    "QUARTAPP_UPKEEP_POLL_S": "1",
}
# For each begin of a round, when it was due.
NOTE_ROUNDS = """
CREATE TABLE rounds (due bigint);
CREATE FUNCTION note_round() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO rounds VALUES (NEW.scheduled); RETURN NULL;
END $$;
CREATE TRIGGER round AFTER UPDATE ON saq_jobs FOR EACH ROW
  WHEN (NEW.queue = 'upkeep' AND NEW.status = 'active' AND OLD.status = 'queued')
  EXECUTE FUNCTION note_round();
"""
# As a process leaves it that was killed long ago in the middle of a round.
LEFT_ACTIVE = """
UPDATE saq_jobs SET status = 'active', job = convert_to((convert_from(job, 'UTF8')::jsonb
  || '{"status": "active", "started": 1, "touched": 1}')::text, 'UTF8')
WHERE queue = 'upkeep' RETURNING scheduled
"""


def eventually(holds: Callable[[], bool], within_s: float = 60) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, "never came true"
        time.sleep(0.1)


def rounds(product: Product) -> list[int]:
    return [due for (due,) in product.rows("SELECT due FROM rounds ORDER BY due")]


def test_upkeep_is_done_once_whenever_it_is_due_and_goes_on_after_a_kill(
    dsn: str, tmp_path: Path
) -> None:
    with fleet(dsn, tmp_path, EACH_SECOND, webs=1, workers=1) as ((web,), (worker,)):
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(NOTE_ROUNDS)
        with web.client(address()) as client:
            session_id = upload(client, clips.wav_of(clips.tone(1.0))).json()["id"]
            finished(client, session_id)
            assert client.get(f"{SESSIONS}/{session_id}/audio").status_code == 200
            web.rows("UPDATE sessions SET finished_at = now() - interval '31 days' RETURNING 1")
            gone = f"{SESSIONS}/{session_id}/audio"
            eventually(lambda: client.get(gone).status_code == 404)
            assert client.get(gone).json()["code"] == "audio_missing"
            assert client.get(f"{SESSIONS}/{session_id}").json()["has_audio"] is False
            eventually(lambda: web.rows("SELECT count(*) FROM audio_chunks") == [(0,)])
            eventually(lambda: len(rounds(web)) >= 6)
        said = [*web.said("upkeep_removed"), *worker.said("upkeep_removed")]
        assert [(each["kind"], each["count"]) for each in said] == [("audio", 1)]
        web.crash()
        worker.crash()
        done = rounds(web)
        assert len(done) == len(set(done))
        ((left,),) = web.rows(LEFT_ACTIVE)
        worker.start()
        eventually(lambda: max(rounds(worker)) > left)
