# A ticket desk in Python whose events the relay publishes: shows how any program uses the outbox.
"""Usage: python3 tickets.py install | open TITLE | comment ID TEXT | close ID | upkeep

DATABASE_URL names the database. Exit codes: 0 done, 1 refused (the reason is on standard error), 2 usage.
"""

import json
import os
import pathlib
import sys
import uuid

import psycopg

HERE = pathlib.Path(__file__).resolve().parent
MIGRATIONS = HERE.parent.parent.parent / "crates" / "outbox" / "migrations"
TOPIC = os.environ.get("TICKETS_TOPIC", "tickets.events")
PARTITIONS_DROPPED_MAX = 400


def append(connection, ticket, version, kind, data):
    """Appends one event in the transaction that is open; the ticket's row is locked already."""
    event_id = uuid.uuid4()
    headers = {
        "ce_specversion": "1.0",
        "ce_id": str(event_id),
        "ce_source": "/tickets",
        "ce_type": kind,
        "ce_subject": str(ticket),
        "ce_sequence": str(version),
        "content-type": "application/json",
    }
    connection.execute(
        "select outbox_append(%s::uuid[], %s::text[], %s::bytea[], %s::text[], %s::bytea[])",
        ([event_id], [TOPIC], [str(ticket).encode()], [json.dumps(headers)], [json.dumps(data).encode()]),
    )


def change(connection, ticket, assignment, kind, data):
    """One change of a ticket: locks it, counts its version up, appends the event, commits all or nothing."""
    with connection.transaction():
        row = connection.execute(
            f"update ticket set {assignment}, version = version + 1 where id = %s and state = 'open' returning version",
            (ticket,),
        ).fetchone()
        if row is None:
            raise SystemExit(f"ticket {ticket} does not exist or is closed")
        append(connection, ticket, row[0], kind, data)


def open_ticket(connection, title):
    with connection.transaction():
        ticket, version = connection.execute(
            "insert into ticket (title) values (%s) returning id, version", (title,)
        ).fetchone()
        append(connection, ticket, version, "TicketOpened", {"title": title})
    print(ticket)


def install(connection):
    outbox = [MIGRATIONS / name for name in ("0101_outbox.sql", "0104_retention.sql", "0121_bounded_drop.sql")]
    with connection.transaction():
        for file in (*outbox, HERE / "tickets.sql"):
            connection.execute(file.read_text(encoding="utf-8"))


def upkeep(connection):
    """Partitions for the days to come; those that are published and past their time are dropped, one a transaction."""
    connection.execute("select outbox_partitions_make()")
    for _ in range(PARTITIONS_DROPPED_MAX):
        try:
            dropped = connection.execute("select outbox_partition_drop('7 days')").fetchone()[0]
        except psycopg.errors.LockNotAvailable:
            return  # Somebody has an old transaction open: tomorrow.
        if dropped is None:
            return


def main(arguments):
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
        match arguments:
            case ["install"]:
                install(connection)
            case ["open", title]:
                open_ticket(connection, title)
            case ["comment", ticket, text]:
                change(connection, int(ticket), "state = state", "TicketCommented", {"text": text})
            case ["close", ticket]:
                change(connection, int(ticket), "state = 'closed'", "TicketClosed", {})
            case ["upkeep"]:
                upkeep(connection)
            case _:
                print(__doc__, file=sys.stderr)
                sys.exit(2)


if __name__ == "__main__":
    main(sys.argv[1:])
