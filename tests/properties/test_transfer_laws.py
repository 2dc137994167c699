"""Laws of moving: a run that is killed anywhere and run again equals one that was not, and sends nothing twice."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.core.listing import published_manifest, read_manifest
from tests.unit.test_transfer import SOURCE, TARGET, World


class Killed(BaseException):
    """The process died here."""


contents = st.dictionaries(st.sampled_from("abcdefgh"), st.binary(max_size=40), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(contents=contents, kill_at=st.integers(min_value=0, max_value=40), moves=st.integers(min_value=1, max_value=3))
def test_killed_anywhere_and_run_again_equals_one_run(contents: dict[str, bytes], kill_at: int, moves: int) -> None:
    world = World(**contents)
    calls = 0

    def die(_call: str, _key: str) -> None:
        nonlocal calls
        calls += 1
        if calls % (kill_at + 1) == kill_at:
            raise Killed

    for _ in range(moves):
        world.far.before = die
        try:
            world.move()
        except Killed:
            published = published_manifest_of(world)
            assert published is None or published == read_manifest(world.near, SOURCE).digest
    world.far.before = lambda _call, _key: None
    world.move()
    assert world.far.contents() == {f"lake/{name}": content for name, content in contents.items()}
    data_sent = [key for key in world.far.sent if ".lintas/" not in key]
    assert len(data_sent) == len(set(data_sent)), "an object that had arrived was sent again"


def published_manifest_of(world: World) -> str | None:
    world.far.before = lambda _call, _key: None
    manifest = published_manifest(world.far, TARGET)
    return manifest.digest if manifest is not None else None


@settings(max_examples=40, deadline=None)
@given(before=contents, after=contents)
def test_the_destination_ends_as_the_source_whatever_it_held(before: dict[str, bytes], after: dict[str, bytes]) -> None:
    world = World(**before)
    world.move()
    world.near.objects.clear()
    for name, content in after.items():
        world.near.write(f"data/{name}", content)
    world.far.sent.clear()
    receipt = world.move(delete=True)
    assert world.far.contents() == {f"lake/{name}": content for name, content in after.items()}
    changed = {name for name, content in after.items() if before.get(name) != content}
    assert {item.path for item in receipt.copied} == changed
