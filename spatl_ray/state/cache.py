"""A bounded cache of records: what was used longest ago goes first."""

from __future__ import annotations

from collections import OrderedDict


class Cache:
    """Records by client, each with the round of its state.

    Args:
        most: bytes of all records together; 0 keeps none.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.held = 0
        self._records: OrderedDict[int, tuple[int, bytes]] = OrderedDict()

    def get(self, client: int, round_: int) -> bytes | None:
        """A client's record of a round, if it is here."""
        found = self._records.get(client)
        if found is None or found[0] != round_:
            return None
        self._records.move_to_end(client)
        return found[1]

    def put(self, client: int, round_: int, record: bytes) -> None:
        """Hold a record instead of the client's earlier one."""
        if client in self._records:
            self._drop(client)
        if len(record) > self.most:
            return
        self._records[client] = (round_, record)
        self.held += len(record)
        while self.held > self.most:
            self._drop(next(iter(self._records)))

    def _drop(self, client: int) -> None:
        self.held -= len(self._records.pop(client)[1])
