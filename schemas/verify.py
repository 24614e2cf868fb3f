# Reads our frames with an independent Avro implementation (fastavro): the golden bytes, or any frames from standard input.
"""Usage: python3 schemas/verify.py golden | decode

golden   decode every frame under schemas/golden/, compare it with the value beside it, and encode it again
decode   standard input holds one frame in hexadecimal a line; prints one JSON line {"id","name","value"} for each

Exit codes: 0 every frame was read, 1 one was not (the reason is on standard error), 2 usage or a missing piece.
The first run makes a virtual environment under target/ and installs fastavro there; later runs need no network.
"""

import datetime
import fcntl
import io
import json
import os
import pathlib
import subprocess
import sys
import uuid

FASTAVRO_VERSION = "1.13.1"
SCHEMAS = pathlib.Path(__file__).resolve().parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", SCHEMAS.parent / "target"))
ENVIRONMENT = TARGET / f"avro-venv-{FASTAVRO_VERSION}"
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
FRAME_HEADER_BYTES = 5
INSTALL_SECONDS_MAX = 180


class Refused(Exception):
    """A frame that is not what the schemas promise."""


def missing_piece(what, mend):
    print(f"schemas/verify.py: {what}; {mend}", file=sys.stderr)
    sys.exit(2)


def run_quietly(command, what, mend):
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS_MAX)
    except (OSError, subprocess.TimeoutExpired) as error:
        missing_piece(f"{what}: {error}", mend)
    if done.returncode != 0:
        missing_piece(f"{what}:\n{done.stdout}{done.stderr}".rstrip(), mend)


def enter_environment():
    """Continues in our own virtual environment, which is made once; a lock lets several runs start at the same time."""
    python = ENVIRONMENT / "bin" / "python"
    ready = ENVIRONMENT / "ready"
    if pathlib.Path(sys.prefix).resolve() == ENVIRONMENT.resolve():
        return
    TARGET.mkdir(parents=True, exist_ok=True)
    with open(TARGET / "avro-venv.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (ready.exists() and python.exists()):
            run_quietly(
                [sys.executable, "-m", "venv", "--clear", str(ENVIRONMENT)],
                "a Python virtual environment could not be made",
                "on Debian and Ubuntu install it with: apt-get install python3-venv",
            )
            run_quietly(
                [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"fastavro=={FASTAVRO_VERSION}"],
                f"fastavro {FASTAVRO_VERSION} could not be installed",
                "it comes from PyPI once; check the network or pip's settings and run this again",
            )
            ready.touch()
    os.execv(python, [str(python), __file__, *sys.argv[1:]])


def known_schemas():
    """Pinned id -> (full name, parsed schema)."""
    import fastavro

    known = {}
    for name, number in json.loads((SCHEMAS / "ids.json").read_text(encoding="utf-8")).items():
        _, service, message = name.split(".")
        text = (SCHEMAS / service / f"{message}.avsc").read_text(encoding="utf-8")
        known[number] = (name, fastavro.parse_schema(json.loads(text)))
    return known


def plain(value):
    """Logical types back to what lies on the wire, so that it can be written as JSON."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, datetime.datetime):
        return (value - EPOCH) // datetime.timedelta(microseconds=1)
    return value


def read_frame(frame, known):
    """(id, full name, plain value) of one frame; refuses what is no frame, unknown, cut, too long or not canonical."""
    import fastavro

    if len(frame) < FRAME_HEADER_BYTES or frame[0] != 0:
        raise Refused("no Confluent frame: it must start with 00 and four bytes of schema id")
    number = int.from_bytes(frame[1:FRAME_HEADER_BYTES], "big")
    if number not in known:
        raise Refused(f"schema id {number} is not in schemas/ids.json")
    name, schema = known[number]
    datum = io.BytesIO(frame[FRAME_HEADER_BYTES:])
    try:
        value = fastavro.schemaless_reader(datum, schema)
    except Exception as error:  # whatever fastavro throws at bad bytes, the frame is refused
        raise Refused(f"{name} does not decode: {error!r}") from error
    if datum.read(1):
        raise Refused(f"{name} has bytes after its end")
    again = io.BytesIO()
    fastavro.schemaless_writer(again, schema, value)
    if again.getvalue() != frame[FRAME_HEADER_BYTES:]:
        raise Refused(f"{name} encodes to other bytes: {again.getvalue().hex()}")
    return number, name, plain(value)


def check_golden(known):
    seen = set()
    for path in sorted((SCHEMAS / "golden").rglob("*.json")):
        golden = json.loads(path.read_text(encoding="utf-8"))
        for case in golden["cases"]:
            where = f"{path.relative_to(SCHEMAS)}, case {case['case']}"
            try:
                number, name, value = read_frame(bytes.fromhex(case["frame"]), known)
            except Refused as reason:
                raise Refused(f"{where}: {reason}") from reason
            if (number, name) != (golden["id"], golden["name"]) or value != case["value"]:
                raise Refused(f"{where}: read {number} {name} {json.dumps(value)}, expected {json.dumps(case['value'])}")
            seen.add(number)
    without = sorted(name for number, (name, _) in known.items() if number not in seen)
    if without:
        raise Refused(f"no golden bytes for {', '.join(without)}")
    print(f"{len(seen)} messages read with fastavro {FASTAVRO_VERSION}")


def decode_lines(known):
    for count, line in enumerate(sys.stdin, 1):
        if not line.strip():
            continue
        try:
            number, name, value = read_frame(bytes.fromhex(line.strip()), known)
        except (Refused, ValueError) as reason:
            raise Refused(f"line {count}: {reason}") from reason
        print(json.dumps({"id": number, "name": name, "value": value}))


def main():
    verbs = {"golden": check_golden, "decode": decode_lines}
    if len(sys.argv) != 2 or sys.argv[1] not in verbs:
        print(__doc__, file=sys.stderr)
        sys.exit(2)
    enter_environment()
    try:
        verbs[sys.argv[1]](known_schemas())
    except Refused as reason:
        print(f"schemas/verify.py: {reason}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
