"""What waits in the batcher: tickets in groups of those that may join, each group in its order."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Hashable, Sequence

from serinus_runtime.tickets import Ticket

NEVER = float("inf")
_LEVELS_PER_TIMEOUT = 10
"""A level of priority is worth this part of the queue timeout."""


class Group:
    """Tickets with the same `key`, which may be run as one batch; `rows` are those of all of them."""

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.tickets: deque[Ticket] = deque()
        self.rows = 0


class Waiting:
    """Tickets that wait for at most `timeout` seconds. It knows no clock: `now` is an argument.

    While no ticket has a priority or a deadline of its own that matters, groups are in the order of arrival, and only
    their heads are looked at. As soon as one has (`mixed`), places are found by `Ticket.rank`, until nothing waits.
    """

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self._level_seconds = timeout / _LEVELS_PER_TIMEOUT
        self.groups: dict[Hashable, Group] = {}
        """None of them is empty."""
        self.rows = 0
        self.nbytes = 0
        """Of memory that is held while they wait."""
        self.mixed = False
        self.next_due = NEVER
        """While mixed: nothing that waits is too late before this moment."""

    def add(self, ticket: Ticket) -> None:
        """Puts `ticket` into its place."""
        group = self.groups.get(ticket.key)
        if group is None:
            group = self.groups[ticket.key] = Group(ticket.key)
        group.rows += ticket.rows
        self.rows += ticket.rows
        self.nbytes += ticket.held
        deadline = ticket.deadline
        if not self.mixed:
            if not ticket.priority and (deadline is None or deadline >= ticket.enqueued + self.timeout):
                group.tickets.append(ticket)
                return
            self._mix()
        self.next_due = min(self.next_due, self._due(ticket))
        rank = ticket.rank = ticket.enqueued + ticket.priority * self._level_seconds
        tickets = group.tickets
        if not tickets or tickets[-1].rank <= rank:
            tickets.append(ticket)
        else:
            tickets.insert(bisect_right(tickets, rank, key=_rank), ticket)

    def _mix(self) -> None:
        """What waits came in order and has no deadline that matters; what comes may be different."""
        self.mixed = True
        self.next_due = NEVER
        for group in self.groups.values():
            for ticket in group.tickets:
                ticket.rank = ticket.enqueued
                self.next_due = min(self.next_due, self._due(ticket))

    def _due(self, ticket: Ticket) -> float:
        """When it is too late to run `ticket`."""
        late = ticket.enqueued + self.timeout
        return late if ticket.deadline is None else min(late, ticket.deadline)

    def first(self) -> Group:
        """The group whose head goes first; there must be one."""
        if len(self.groups) == 1:
            (group,) = self.groups.values()
            return group
        heads = [group.tickets[0] for group in self.groups.values()]
        return self.groups[min(heads, key=_rank if self.mixed else _enqueued).key]

    def oldest(self) -> Ticket:
        """The ticket that waits for longest; there must be one."""
        if self.mixed:
            return min((ticket for group in self.groups.values() for ticket in group.tickets), key=_enqueued)
        if len(self.groups) == 1:
            (only,) = self.groups.values()
            return only.tickets[0]
        return min((group.tickets[0] for group in self.groups.values()), key=_enqueued)

    def take(self, group: Group, size: int, now: float, late: list[Ticket]) -> tuple[list[Ticket], int]:
        """The next batch of `group`, with its rows: as many tickets as have at most `size` rows together, or one.

        What is too late goes to `late`, and who has left is forgotten.
        """
        batch: list[Ticket] = []
        rows = dropped = held = 0
        tickets = group.tickets
        overdue = now - self.timeout
        while tickets and (not batch or rows + tickets[0].rows <= size):
            ticket = tickets.popleft()
            dropped += ticket.rows
            held += ticket.held
            if ticket.cancelled:
                continue
            if ticket.enqueued <= overdue or (ticket.deadline is not None and ticket.deadline <= now):
                late.append(ticket)
                continue
            batch.append(ticket)
            rows += ticket.rows
        self._dropped(group, dropped, held)
        return batch, rows

    def weed(self, now: float) -> list[Ticket]:
        """Takes out what is too late, and who has left."""
        late: list[Ticket] = []
        for group in list(self.groups.values()):
            tickets = group.tickets
            found: Sequence[Ticket]
            if self.mixed:
                found = [ticket for ticket in tickets if ticket.cancelled or self._due(ticket) <= now]
                kept = [ticket for ticket in tickets if not (ticket.cancelled or self._due(ticket) <= now)]
                tickets.clear()
                tickets.extend(kept)
            else:
                found = []
                while tickets and (tickets[0].cancelled or tickets[0].enqueued <= now - self.timeout):
                    found.append(tickets.popleft())
            self._dropped(group, sum(ticket.rows for ticket in found), sum(ticket.held for ticket in found))
            late += found
        if self.mixed:
            waiting = (ticket for group in self.groups.values() for ticket in group.tickets)
            self.next_due = min(map(self._due, waiting), default=NEVER)
        return late

    def _dropped(self, group: Group, rows: int, held: int) -> None:
        group.rows -= rows
        self.rows -= rows
        self.nbytes -= held
        if not group.tickets:
            del self.groups[group.key]
            if not self.groups:
                self.mixed = False


def _rank(ticket: Ticket) -> float:
    return ticket.rank


def _enqueued(ticket: Ticket) -> float:
    return ticket.enqueued
