"""Whole rounds: from the question to the table, with real helpers and masked reports."""

import json
from pathlib import Path

from collector.store import RoundStore
from dandelion.verify import verify_release
from tests.collector.rig import rig
from tests.oracle_membership import assert_exactly_once


async def test_a_round_from_question_to_table(tmp_path: Path, store: RoundStore) -> None:
    """Acknowledged and published are the same clients, each once; the artefact verifies alone."""
    async with rig(tmp_path, store) as it:
        round_id, d = await it.open()
        assert await it.send(d, range(20)) == [201] * 20
        assert await it.send(d, range(20)) == [200] * 20
        shown = await it.until(round_id, "released", "abandoned", "damaged")
        assert shown["phase"] == "released", shown
        status, artefact = await it.get(f"/v1/releases/{round_id}")
        assert status == 200
        verified = verify_release(artefact, collector=d.collector)
        assert verified.n == 20
        assert_exactly_once(verified.sums, range(20), d.linf)
        _, body = await it.get(f"/v1/releases/{round_id}/table")
        table = json.loads(body)
        assert table["reports"] == 20
        counts = [it["estimate"] for it in table["cells"] if it["name"] == "COUNT(load)"]
        assert [round(count) for count in counts] == [1] * 20 + [0] * 44
        _, ledger = await it.admin("GET", "ledger")
        assert ledger["intact"]
        assert [entry["kind"] for entry in ledger["entries"]] == ["charge", "release"]
