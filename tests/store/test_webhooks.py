"""Webhooks and their deliveries in the database, and the addresses that they may have."""

import ipaddress
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from functools import partial

import pytest
from hypothesis import given, strategies as st
from sqlalchemy import delete, func, select, update

from models_store.database.clock import db_now
from models_store.database.database import Database
from models_store.database.schema import WebhookDeliveryRow, WebhookRow
from models_store.errors import ConflictError, NotFoundError, RequestError
from models_store.jobs.figures import JobFigures
from models_store.jobs.jobs import Jobs
from models_store.jobs.leases import JobWork
from models_store.webhooks.addresses import check_url, is_public
from models_store.webhooks.deliveries import PAUSES_S, Deliveries, Outcome
from models_store.webhooks.webhooks import Event, Webhook, Webhooks
from tests.store.makers import PROJECT, a_job, a_version, claimed, submitted

URL = "https://example.org/hook"
ALL: list[Event] = ["job.succeeded", "job.failed", "job.cancelled"]


@pytest.fixture
def webhooks(database: Database) -> Webhooks:
    return Webhooks(database)


@pytest.fixture
def deliveries(database: Database) -> Deliveries:
    return Deliveries(database)


@pytest.fixture
def webhook(webhooks: Webhooks) -> Webhook:
    return webhooks.create(PROJECT, URL, events=ALL)


def waits(database: Database) -> int:
    with database.read() as session:
        count = select(func.count()).where(WebhookDeliveryRow.ended_at.is_(None))
        return session.scalar(count) or 0


def make_due(database: Database) -> None:
    with database.write() as session:
        session.execute(update(WebhookDeliveryRow).values(due_at=db_now()))


def test_what_waits_and_what_is_kept_of_a_webhook_is_bounded(
    database, webhooks, deliveries, webhook, monkeypatch
):
    monkeypatch.setattr("models_store.database.announcements.MAX_WAITING", 3)
    monkeypatch.setattr("models_store.webhooks.deliveries.MAX_KEPT", 2)
    other = webhooks.create(PROJECT, URL, events=["job.failed"])
    for _ in range(2):
        webhooks.test(PROJECT, other.id)
    [due] = deliveries.take(8, {}, lease_s=60)
    deliveries.end(due.id, due.attempt, Outcome(status=200))
    deliveries.take(8, {}, lease_s=60)
    for _ in range(3):
        webhooks.test(PROJECT, webhook.id)
    with pytest.raises(ConflictError):
        webhooks.test(PROJECT, webhook.id)
    jobs = Jobs(database)
    jobs.cancel(PROJECT, submitted(jobs).id)
    made = webhooks.deliveries(PROJECT, webhook.id, limit=10).items
    assert len(made) == 3
    for _ in made:
        [due] = deliveries.take(8, {}, lease_s=60)
        deliveries.end(due.id, due.attempt, Outcome(status=200))
    kept = webhooks.deliveries(PROJECT, webhook.id, limit=10).items
    assert [one.id for one in kept] == [one.id for one in made[:2]]
    assert len(webhooks.deliveries(PROJECT, other.id, limit=10).items) == 2


def test_every_end_of_a_job_is_written_with_it(database, webhooks, webhook):
    failures = webhooks.create(PROJECT, URL, events=["job.failed"])
    webhooks.create("other", URL, events=ALL)
    jobs, work = Jobs(database), JobWork(database)
    done, broken, gone = (submitted(jobs) for _ in range(3))
    for job in (done, broken):
        held = claimed(work)
        if job is done:
            work.finish(job.id, 1, metrics={}, version=a_version(held))
        else:
            work.fail(job.id, 1, code="diverged", detail="It diverged.")
    jobs.cancel(PROJECT, gone.id)

    made = webhooks.deliveries(PROJECT, webhook.id, limit=10).items[::-1]
    assert [one.event for one in made] == ALL
    assert [one.data["id"] for one in made] == [done.id, broken.id, gone.id]
    assert made[0].data["model"] == {"name": "shuttle", "version": 1}
    assert made[1].data["error"] == {"code": "diverged", "detail": "It diverged."}
    [failure] = webhooks.deliveries(PROJECT, failures.id, limit=10).items
    assert failure.data["id"] == broken.id
    assert waits(database) == 4


def test_a_delivery_is_taken_once_and_again_after_its_lease(
    database, webhooks, deliveries, webhook
):
    webhooks.test(PROJECT, webhook.id)
    webhooks.test(PROJECT, webhook.id)
    other = webhooks.create(PROJECT, URL, events=ALL)
    webhooks.test(PROJECT, other.id)
    taken = deliveries.take(8, {}, lease_s=60)
    # The oldest of each webhook, and never one that somebody has.
    assert [one.attempt for one in taken] == [1, 1]
    assert len(deliveries.take(8, {}, lease_s=60)) == 1
    assert deliveries.take(8, {}, lease_s=60) == []
    make_due(database)
    again = deliveries.take(8, {}, lease_s=60)
    assert {one.id for one in again} == {one.id for one in taken}
    assert [one.attempt for one in again] == [2, 2]
    deliveries.end(taken[0].id, 1, Outcome(status=200))  # too late: another attempt began
    assert waits(database) == 3
    deliveries.end(again[0].id, 2, Outcome(status=204))
    assert waits(database) == 2


def test_slow_receivers_of_a_project_keep_two_places(database, webhooks, deliveries):
    hooks = [webhooks.create(project, URL, events=ALL) for project in ("other", *[PROJECT] * 5)]
    for hook in hooks:
        webhooks.test(hook.project, hook.id)
    with database.write() as session:
        longest = WebhookDeliveryRow.webhook_id == hooks[-1].id
        session.execute(update(WebhookDeliveryRow).where(longest).values(due_at=db_now(-60)))
    assert [due.webhook_id for due in deliveries.take(1, {}, lease_s=60)] == [hooks[-1].id]
    taken = deliveries.take(8, {}, lease_s=60)
    assert sorted(due.project for due in taken) == sorted([PROJECT, PROJECT, "other"])
    assert deliveries.take(5, {PROJECT: 2, "other": 1}, lease_s=60) == []
    assert len(deliveries.take(7, {PROJECT: 1}, lease_s=60)) == 1


def test_failures_are_tried_again_with_growing_pauses_and_end_in_disabling(
    database, webhooks, deliveries, webhook
):
    webhooks.test(PROJECT, webhook.id)
    for pause_s in PAUSES_S:
        [due] = deliveries.take(8, {}, lease_s=60)
        with database.read() as session:
            before = session.scalars(select(db_now())).one()
        deliveries.end(due.id, due.attempt, Outcome(status=500, error="The receiver answered 500."))
        with database.read() as session:
            after = session.scalars(select(db_now())).one()
        [shown] = webhooks.deliveries(PROJECT, webhook.id, limit=10).items
        assert before + timedelta(seconds=0.9 * pause_s - 1) < shown.due_at
        assert shown.due_at < after + timedelta(seconds=1.2 * pause_s + 1)
        assert (shown.attempts, shown.status, shown.ended_at) == (due.attempt, 500, None)
        make_due(database)
    webhooks.test(PROJECT, webhook.id)
    [due] = deliveries.take(8, {}, lease_s=60)
    deliveries.end(due.id, due.attempt, Outcome(error="The receiver did not answer in time."))
    assert webhooks.get(PROJECT, webhook.id).disabled_at is not None
    assert waits(database) == 0
    job = submitted(Jobs(database))
    Jobs(database).cancel(PROJECT, job.id)
    assert waits(database) == 0
    assert webhooks.rotate(PROJECT, webhook.id).secret != webhook.secret
    assert webhooks.get(PROJECT, webhook.id).disabled_at is None


def test_a_receiver_that_is_gone_is_left_at_once(database, webhooks, webhook):
    deliveries = Deliveries(database, pauses_s=(0,))
    webhooks.test(PROJECT, webhook.id)
    for outcome in (Outcome(status=500, error="It failed."), Outcome(status=200)):
        [due] = deliveries.take(8, {}, lease_s=60)
        deliveries.end(due.id, due.attempt, outcome)
    assert webhooks.get(PROJECT, webhook.id).disabled_at is None, "its last attempt succeeded"
    webhooks.test(PROJECT, webhook.id)
    [due] = deliveries.take(8, {}, lease_s=60)
    other = webhooks.create(PROJECT, URL, events=ALL)
    webhooks.test(PROJECT, other.id)
    deliveries.end(due.id, 1, Outcome(status=410, error="The receiver answered 410."))
    assert webhooks.get(PROJECT, webhook.id).disabled_at is not None
    deliveries.end(due.id, 1, Outcome(status=200))
    gone, done = webhooks.deliveries(PROJECT, webhook.id, limit=9).items
    assert (gone.delivered, gone.status, done.error) == (False, 410, None)
    assert webhooks.get(PROJECT, other.id).disabled_at is None
    assert waits(database) == 1
    told = {figure.name: figure.values for figure in JobFigures(database).read()}
    assert told["webhook_deliveries"] == {("failing",): 0, ("given_up",): 1}
    assert told["webhooks_disabled"] == {(): 1}
    with database.write() as session:
        old = WebhookDeliveryRow.id == done.id
        session.execute(update(WebhookDeliveryRow).where(old).values(ended_at=db_now(-7 * 86_400)))
    deliveries.forget()
    assert [one.id for one in webhooks.deliveries(PROJECT, webhook.id, limit=9).items] == [gone.id]


def test_projects_see_their_own_and_deletions_leave_nothing(database, webhooks, webhook):
    webhooks.test(PROJECT, webhook.id)
    for call in (webhooks.get, webhooks.rotate, webhooks.delete, webhooks.test):
        with pytest.raises(NotFoundError):
            call("other", webhook.id)
    assert webhooks.list("other") == []
    [listed] = webhooks.list(PROJECT)
    assert listed.secret is None
    webhooks.delete(PROJECT, webhook.id)
    assert waits(database) == 0
    assert a_job().project == PROJECT


def test_the_end_of_a_delivery_waits_for_whoever_deletes_its_webhook(
    database, webhooks, deliveries, webhook
):
    webhooks.test(PROJECT, webhook.id)
    [due] = deliveries.take(8, {}, lease_s=60)
    gone = partial(deliveries.end, due.id, due.attempt, Outcome(status=410, error="It is gone."))
    with ThreadPoolExecutor(1) as pool:
        with database.write() as session:  # as `delete` does
            locked = select(WebhookRow).where(WebhookRow.id == webhook.id).with_for_update()
            session.scalars(locked).one()
            ended = pool.submit(gone)
            with suppress(TimeoutError):  # on PostgreSQL it waits
                ended.result(0.5)
            mine = select(WebhookDeliveryRow).where(WebhookDeliveryRow.id == due.id)
            row = session.scalar(mine.with_for_update(skip_locked=True))
            assert row is not None, "it holds nothing while it waits"
            session.delete(row)
            session.flush()
            session.execute(delete(WebhookRow).where(WebhookRow.id == webhook.id))
        ended.result()
    assert webhooks.list(PROJECT) == []


def test_an_address_that_is_never_called_is_refused() -> None:
    for url in (
        "http://example.org/",
        "ftp://example.org/",
        "https://",
        "https://user:secret@example.org/",
        "https://example.org/#part",
        "https://example.org:0/",
        "https://example.org:99999/",
        "https://exämple.org/",
        "https://example.org/a b",
        "https://example.org/" + "x" * 2000,
        "https://127.0.0.1/",
        "https://10.1.2.3/",
        "https://169.254.169.254/latest/meta-data/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[fe80::1%25eth0]/",
        "https://[64:ff9b::7f00:1]/",
        "https://[2002:7f00:1::]/",
        "https://[fec0::1]/",
        "https://[3fff::1]/",
        "https://[::127.0.0.1]/",
        "https://192.88.99.1/",
        "https://192.0.0.8/",
        "https://0.0.0.0/",
        "https://224.0.0.1/",
        "https://[",
    ):
        with pytest.raises(RequestError):
            check_url(url, private=False)


def test_other_addresses_are_accepted() -> None:
    for url in (
        URL,
        "https://example.org:8443/a?b=c",
        "https://8.8.8.8/",
        "https://[2606:4700::1]/",
    ):
        check_url(url, private=False)
    check_url("http://127.0.0.1:9000/hook", private=True)


@given(st.ip_addresses(v=4))
def test_an_address_of_ipv4_is_judged_alike_in_ipv6(address: ipaddress.IPv4Address) -> None:
    mapped = ipaddress.IPv6Address(b"\0" * 10 + b"\xff\xff" + address.packed)
    assert is_public(mapped) == is_public(address)
    if address.is_private or address.is_loopback or address.is_link_local:
        assert not is_public(address)
