"""API keys."""

import hashlib
from pathlib import Path

from serving.gateway.access.keys import KeyRing, new_key
from serving.gateway.workers.shared import Shared


def test_a_file_of_keys_counts_beside_the_settings(tmp_path: Path) -> None:
    file, shared = tmp_path / "keys", Shared()
    file.write_text(f"\n# all of them\n{new_key('one', ['predict'])[1]} # here\n")
    ring = KeyRing([new_key("two", ["faces"])[1]], file, lambda: shared.generation)
    assert {key.name for key in ring.current()} == {"one", "two"}
    file.write_text(new_key("three", ["admin"])[1])
    assert {key.name for key in ring.current()} == {"one", "two"}
    shared.renew()
    assert {key.name for key in ring.current()} == {"two", "three"}
    file.write_text("")
    shared.renew()
    assert {key.name for key in ring.current()} == {"two", "three"}


def test_only_the_digest_of_a_key_is_kept() -> None:
    key, entry = new_key("shop", ["predict", "faces"])
    assert entry == f"shop:{hashlib.sha256(key.encode()).hexdigest()}:predict+faces"
