"""The one door for chat templates: programs that came with a checkpoint, in Jinja's sandbox.

A template is tried once, in a forked process with little time and memory, before it writes a
prompt: one that never ends, or doubles its text for ever, is stopped there. What it raises later is
a FrankenError. Left out: a template that runs away for certain words alone.
"""

import os
import resource
import signal
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from franken.errors import FrankenError

SECONDS = 5  # of CPU; writing a prompt takes milliseconds
MEMORY = 256 << 20  # bytes more than before
LONGEST = 4 << 20  # characters of a prompt
RAN_AWAY = 9
Messages = Sequence[Mapping[str, Any]]


def write_chat(template: Any, messages: Messages, *, for_answer: bool) -> str:
    """The messages as the template of a processor or tokenizer writes them; `for_answer` opens the
    reply as well. Raises FrankenError for a template that fails or runs away.
    """
    _try_once(template)
    try:
        text = template.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=for_answer
        )
    except Exception as e:  # noqa: BLE001 - a template is a program, and may raise anything
        raise _broken(f"{type(e).__name__}: {e}".splitlines()[0][:300]) from e
    if not isinstance(text, str) or not text.strip():
        raise _broken("it writes nothing")
    if len(text) > LONGEST:
        raise _broken(f"it writes {len(text):,} characters, more than {LONGEST:,}")
    return text


def adds_special_tokens(template: Any, text: str) -> bool:
    """Whether tokenising a written prompt is to add the tokens that begin a text, as transformers
    does for its chats: a processor's where the template has not written them itself, a tokenizer's
    never.
    """
    tokenizer = getattr(template, "tokenizer", None)
    if tokenizer is None:
        return False
    return tokenizer.bos_token is None or not text.startswith(tokenizer.bos_token)


@lru_cache(maxsize=64)
def _try_once(template: Any) -> None:
    """Raises FrankenError for a template that takes too long or too much. One that fails is told
    by `write_chat`, with the messages that it fails on.
    """
    pid = os.fork()
    if pid == 0:
        _render_and_exit(template)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == RAN_AWAY:
        raise _broken(
            f"it was stopped: it takes more than {SECONDS} s, or {MEMORY >> 20} MiB of memory"
        )


def _render_and_exit(template: Any) -> None:
    """Write a short and a long question about one image, with limits, and end this process."""
    status = 0
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(6 * SECONDS)  # the clock: for what waits and does not compute
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
        _limit_memory()
        for question in ("Q", "How many? " * 500):
            content = [{"type": "image"}, {"type": "text", "text": question}]
            template.apply_chat_template(
                [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
            )
    except MemoryError:
        status = RAN_AWAY
    except Exception:  # noqa: BLE001 - told where it is used
        pass
    finally:
        os._exit(status)


def _limit_memory() -> None:
    """Allow this process little more than it has. Only Linux says how much that is."""
    try:
        with open("/proc/self/statm") as file:
            has = int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return
    resource.setrlimit(resource.RLIMIT_AS, (has + MEMORY, has + MEMORY))


def _broken(why: str) -> FrankenError:
    return FrankenError(
        "the chat template of the checkpoint cannot be used",
        why=why,
        fix="fetch chat_template.jinja and tokenizer_config.json again",
    )
