"""A process whose calls stand in line: ``python -m tests.backends.waiter JSON``.

It says what happens to them on its standard output, a line of JSON each, as soon as it does.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import threading
import time
from typing import Any

from quotaguard.backends import Backend, open_backend
from quotaguard.clock import SystemClock
from quotaguard.core.drive import adrive, drive
from quotaguard.core.ops import (
    Candidate,
    Charge,
    Park,
    Queued,
    Release,
    Reservation,
    Reserve,
    Settle,
)
from quotaguard.core.plan import SHORTEST_PARK, Plan
from quotaguard.limits import Limit

OWNER = ("org", "acme")
BOOKS = Limit(1e9, "output_tokens", "month", scope="org", on_expire="return_all")
"""A window beside the bucket: nothing comes back to it, so its sum is exact."""
_lock = threading.Lock()


def say(what: str, id: str, **facts: Any) -> None:
    """A line about a call."""
    text = json.dumps({"what": what, "id": id, "at": time.time(), **facts})
    with _lock:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def call(limit: Limit, id: str, amount: float, patience: float, lease: float = 600.0) -> Reserve:
    """A call that takes the amount of the bucket."""
    charges = tuple(Charge(OWNER, each, amount, amount, 0.0) for each in (limit, BOOKS))
    return Reserve(id, (Candidate(None, charges),), lease, patience)


def admitted(op: Reserve) -> Plan[bool]:
    """Wait for it; False if it would take longer than its patience."""
    began = time.time()
    told = None
    while True:
        answer = yield op._replace(patience=max(0.0, op.patience - (time.time() - began)))
        if isinstance(answer, Queued):
            if told is None:
                told = answer.refusal.wait()
                say("waits", op.id, told=told)
            yield Park(op.id, max(answer.wait, SHORTEST_PARK))
            continue
        granted = isinstance(answer, Reservation)
        say("admitted" if granted else "refused", op.id, told=told, waited=time.time() - began)
        return granted


def settled(id: str, amount: float) -> Plan[None]:
    """Charge what was used; what is said first may have been done if nothing is said then."""
    say("settling", id, amount=amount)
    yield Settle(id, (amount, amount))
    say("settled", id, amount=amount)


def one(backend: Backend, plan: dict[str, Any]) -> None:
    """One call that waits."""
    op = call(Limit.parse(plan["limit"]), plan["name"], plan["amount"], plan["patience"])
    if drive(admitted(op), backend):
        drive(settled(op.id, plan["amount"]), backend)


def flood(backend: Backend, plan: dict[str, Any]) -> None:
    """Small calls, one after another from several threads, until it is over."""
    limit, until = Limit.parse(plan["limit"]), time.time() + plan["seconds"]

    def run(thread: int) -> None:
        for number in range(1_000_000):
            if time.time() > until:
                return
            op = call(limit, f"{plan['name']}-{thread}-{number}", plan["amount"], plan["patience"])
            if drive(admitted(op), backend):
                drive(settled(op.id, plan["amount"]), backend)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(plan["threads"])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def echo(backend: Backend, plan: dict[str, Any]) -> None:
    """Calls that come in turn, one for each line of standard input, and give all back."""
    limit = Limit.parse(plan["limit"])
    for line in sys.stdin:
        op = call(limit, line.strip(), plan["amount"], 600.0)
        if drive(admitted(op), backend):
            drive(settled(op.id, 0.0), backend)


def crowd(backend: Backend, plan: dict[str, Any]) -> None:
    """Many tasks that wait, hold, give up, and are cancelled, until it is over."""
    limit, until = Limit.parse(plan["limit"]), time.time() + plan["seconds"]
    chance = random.Random(plan["name"])

    async def live(number: int) -> None:
        turn = 0
        while time.time() < until:
            turn += 1
            amount = float(chance.randint(1, 40))
            patience = chance.choice([0.5, 5.0, 60.0])
            op = call(limit, f"{plan['name']}-{number}-{turn}", amount, patience, plan["lease"])
            task = asyncio.ensure_future(adrive(admitted(op), backend))
            if chance.random() < 0.2:
                await asyncio.wait({task}, timeout=chance.random())
                task.cancel()
            try:
                held = await task
            except asyncio.CancelledError:
                await backend.aexecute(Release(op.id))
                say("cancelled", op.id)
                continue
            if not held:
                await asyncio.sleep(0.05)
                continue
            if chance.random() < 0.02:
                say("forgotten", op.id)
                continue
            await asyncio.sleep(chance.random() * 0.05)
            await adrive(settled(op.id, chance.randint(0, int(amount))), backend)

    async def run() -> None:
        await asyncio.gather(*map(live, range(plan["calls"])))
        if hasattr(backend, "aclose"):
            await backend.aclose()

    asyncio.run(run())


def line_up(backend: Backend, plan: dict[str, Any]) -> None:
    """Many tasks that come one after another and wait."""
    limit = Limit.parse(plan["limit"])

    async def run() -> None:
        tasks = []
        for number in range(plan["calls"]):
            op = call(limit, f"{plan['name']}-{number:05}", plan["amount"], 600.0)
            tasks.append(asyncio.ensure_future(adrive(admitted(op), backend)))
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        if hasattr(backend, "aclose"):
            await backend.aclose()

    asyncio.run(run())


def main() -> None:
    """Do what the plan says."""
    plan = json.loads(sys.argv[1])
    backend = open_backend(plan["url"], SystemClock())
    say("ready", plan["name"])
    {"one": one, "flood": flood, "echo": echo, "crowd": crowd, "line_up": line_up}[plan["does"]](
        backend, plan
    )
    backend.close()


if __name__ == "__main__":
    main()
