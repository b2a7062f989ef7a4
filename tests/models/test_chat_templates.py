"""Chat templates that fail or run away, one by one: an error that says so, soon, in little memory."""

import time

import pytest

from franken.errors import FrankenError
from franken.generate.engine import Prompt, template_text
from franken.models import templates
from franken.models.creature import build_tokenizer

FAILING = {
    "an error of its own": "{{ raise_exception('no') }}",
    "an unknown name": "{{ nobody.knows }}",
    "no template": "{% for %}",
    "recursion": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "a walk outside": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "a type": "{{ 1 + 'x' }}",
    "nothing": "{{ '' }}",
    "a long range": "{% for i in range(10**9) %}x{% endfor %}",
}
RUNNING = {
    "a loop": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "a text that doubles": "{% set n = namespace(a='x') %}{% for i in range(60) %}"
    "{% set n.a = n.a + n.a %}{% endfor %}{{ n.a }}",
    "a text of 10 GB": "{{ 'x' * 10 ** 10 }}",
}


def written(template):
    tokenizer = build_tokenizer()
    tokenizer.chat_template = template
    return template_text(tokenizer, Prompt("How many?"))


@pytest.mark.parametrize("name", FAILING)
def test_a_template_that_fails_is_one_error(name):
    with pytest.raises(FrankenError, match="chat template") as e:
        written(FAILING[name])
    assert e.value.why
    assert e.value.fix


@pytest.mark.parametrize("name", RUNNING)
def test_a_template_that_runs_away_is_stopped(name, monkeypatch):
    monkeypatch.setattr(templates, "SECONDS", 1)
    started = time.monotonic()
    with pytest.raises(FrankenError, match="chat template") as e:
        written(RUNNING[name])
    assert "stopped" in e.value.why
    assert time.monotonic() - started < 20


def test_a_template_that_writes_too_much_is_told(monkeypatch):
    monkeypatch.setattr(templates, "LONGEST", 1000)
    with pytest.raises(FrankenError) as e:
        written("{{ 'x' * 1001 }}")
    assert e.value.why == "it writes 1,001 characters, more than 1,000"


def test_a_template_is_tried_once_and_writes_the_same():
    tokenizer = build_tokenizer()
    assert template_text(tokenizer, Prompt("a")) == template_text(tokenizer, Prompt("a"))
    assert "How many" in template_text(tokenizer, Prompt("How many?"))
