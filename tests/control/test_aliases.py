"""What the configuration file makes of aliases, beside what other hands make of them."""

from tokenworks.config.records import AliasConfig
from tokenworks.control.aliases import book
from tokenworks.control.storage import aliases
from tokenworks.control.storage.aliases import Version
from tokenworks.core.aliases.reading import read

ONE, OTHER, THIRD = {"to": "a"}, {"to": "b"}, {"to": {"a": 1, "b": 2}}


def test_versions_follow_the_file_and_a_restart_undoes_nothing(with_database):
    async def work(database):
        async def started(definition):
            stated = {} if definition is None else {"chat": AliasConfig("chat", definition)}
            async with database.write() as connection:
                await book.take_configuration(connection, stated, 5)
                return {each.name: (each.version, each.definition) for each in await book.records(connection)}

        async def changed(number, definition):
            async with database.write() as connection:
                await aliases.add(connection, Version("chat", number, definition, False, "somebody", "", 5))

        assert await started(ONE) == {"chat": (1, ONE)}
        assert await started(ONE) == {"chat": (1, ONE)}
        await changed(2, OTHER)
        assert await started(ONE) == {"chat": (2, OTHER)}, "the file says nothing new"
        assert await started(THIRD) == {"chat": (3, THIRD)}
        assert await started(None) == {}
        assert await started(None) == {}
        await changed(5, OTHER)
        assert await started(None) == {"chat": (5, OTHER)}, "it is somebody else's by now"
        assert await started(OTHER) == {"chat": (6, OTHER)}, "and the file's again"
        await changed(7, ONE)
        assert await started(None) == {"chat": (7, ONE)}
        async with database.read() as connection:
            made = await aliases.of(connection, "chat", 10)
        assert [each.version for each in made] == [7, 6, 5, 4, 3, 2, 1]
        assert (made[3].definition, made[3].note, made[3].author) == (None, "taken out of the file", book.FILE)

    with_database(work)


def test_what_could_not_be_in_force_together():
    every = {name: read(name, {"to": to}) for name, to in (("a", "b"), ("b", "m"), ("c", "gone"))}
    assert book.problem(every, ["m"], ["a", "b"]) is None
    assert (
        book.problem(every, ["m"], ["c"]) == "'c' names 'gone', which is neither a model nor an alias; "
        "there are: a, b, m"
    )
    assert book.problem(every, ["m", "a"], ["a"]) == "'a' is the name of a model; give the alias another one"
    every["b"] = read("b", {"to": "m", "canary": {"to": "a", "percent": 1}})
    assert book.problem(every, ["m"], []) == "the way a -> b -> a leads to itself; let one of them name a model"
