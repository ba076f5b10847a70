"""Templates get no access to Python and no unbounded time or size."""

import pytest
from jinja2 import TemplateError

from tokenworks.worker.chat.sandbox import Exhausted, RawJSON, Refused, Sandbox


def run(source: str, **values: object) -> str:
    ticks = iter(range(10**9))
    sandbox = Sandbox(clock=lambda: next(ticks) / 1000)  # one loop's turn is a millisecond: 2,000 are too many
    return sandbox.run(sandbox.compiled(source), values)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{% for i in range(3) %}{{ i }}{% if i == 1 %}{% break %}{% endif %}{% endfor %}", "01"),
        ("{{ {'a': 'é', 'b': [1, none, true]} | tojson }}", '{"a": "é", "b": [1, null, true]}'),
        ("{{ 'a' ~ 1 + 'b' }}", "a1b"),
        ("{{ ['a', 1] | join(', ') }}{{ 'a-b' | replace('-', '+') }}{{ 'x,y'.split(',')[1] }}", "a, 1a+by"),
        ("{{ '-'.join(['a', 'b']) }}{{ 'aab'.replace('a', '') }}", "a-bb"),
        ("{% set ns = namespace(n=0) %}{% for i in [1, 2] %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}", "3"),
        ("{%- if true %}\n  {{- 'x' }}\n{%- endif %}\n", "x"),
        ("{{ strftime_now('%Y') | int > 2000 }}", "True"),
        ("{% generation %}a{% for i in [1] %}{{ i }}{% endfor %}{% endgeneration %}b", "a1b"),
        ("{{ '{}-{}'.format(1, 'b') }}{{ 'a\nb' | indent(2) }}{{ '<' | safe }}", "1-ba\n  b<"),
        ("{% set x = [] %}{% for i in [1, 2] %}{% set _ = x.append(i) %}{% endfor %}{{ x }}", "[1, 2]"),
        ("{{ missing }}|{{ given }}", "|<b>"),
    ],
)
def test_what_templates_use_works(source: str, text: str) -> None:
    assert run(source, given="<b>") == text


def test_json_is_written_again_as_it_came() -> None:
    raw = '{"b":1e2,  "a": "\\u00e9"}'
    assert run("{{ value | tojson }}", value=RawJSON(raw, {"b": 100.0, "a": "é"})) == raw


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% for i in range(10 * 1000 * 1000) %}{% endfor %}",
        "{% set ns = namespace(s='x') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
        "{% set ns = namespace(s='x') %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
        "{% set ns = namespace(s=[1]) %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
        "{% set ns = namespace(s='xx') %}{% for i in range(9) %}{% set ns.s = ns.s | replace('x', ns.s) %}{% endfor %}",
        "{% set ns = namespace(s='xx') %}{% for i in range(60) %}{% set ns.s = ns.s.replace('x', ns.s) %}{% endfor %}",
        "{% set ns = namespace(s='xx') %}{% for i in range(60) %}{% set ns.s = ns.s.join([ns.s, ns.s]) %}{% endfor %}",
        "{{ 'x' * 1000000000 }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    ],
)
def test_growth_ends(source: str) -> None:
    with pytest.raises(Exhausted):
        run(source)


@pytest.mark.parametrize("written", ["{{ ns.s }}", "{{ ns.s | tojson }}", "{{ ns.s | join }}", "{{ ns.s | string }}"])
def test_lists_of_themselves_are_not_written_out(written: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokenworks.worker.chat.sandbox.CHARACTERS", 10_000)
    source = "{% set ns = namespace(s='x') %}{% for i in range(60) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}"
    with pytest.raises(Exhausted):
        run(source + written)


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.__class__.__init__.__globals__ }}",
        "{{ '{:999999999}'.format(1) }}",
        "{{ '{0.__class__}'.format(1) }}",
        "{{ '{!r}'.format(1) }}",
        "{{ '%999999999d' % 1 }}",
        "{{ 'x'.ljust(999999999) }}",
        "{{ 'x' | center(999999999) }}",
        "{{ 10 ** 100000000 }}",
        "{{ [[1] * 1000] * 1000000 }}",
        "{{ messages.insert(0, 1) }}",
        "{{ {}.update({'a': 1}) }}",
        "{% include 'other' %}",
        "{{ cycler }}{{ lipsum() }}",
    ],
)
def test_what_leads_out_is_refused(source: str) -> None:
    with pytest.raises((TemplateError, TypeError)):
        run(source, messages=[1])


def test_a_templates_own_refusal_keeps_its_words() -> None:
    with pytest.raises(Refused, match="roles must alternate"):
        run("{{ raise_exception('roles must alternate') }}")
