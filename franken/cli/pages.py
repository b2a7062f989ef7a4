"""What `franken --help` says: the verbs by the question they answer, a line and examples for each,
and where to go next.
"""

from typing import NamedTuple

SEE, CHANGED, TRANSFERS, NEEDED = (
    "Where does it see, where does it reason?",
    "What did training change?",
    "Does the change transfer?",
    "Was it necessary? Train it",
)
ASKED, WHOLE, HOUSE = (
    "How good is it, and what is asked?",
    "Everything at once",
    "This installation",
)


class Page(NamedTuple):
    """A verb's place in the help: its panel, its line, and command lines that run as they are, each
    with what it does.
    """

    panel: str
    line: str
    examples: tuple[tuple[str, str], ...]


PAGES = {
    "probe": Page(
        SEE,
        "Swap, ablate, patch and read every decoder layer.",
        (
            (
                "franken probe creature:sft --tasks read --samples 20",
                "swaps and zero ablation on the built-in model",
            ),
            (
                "franken probe creature:sft --method attention,lens,patch --samples 10",
                "what layers look at, say and carry",
            ),
            (
                "franken probe creature:sft --against creature:base --method stitch --tasks read",
                "whose layers bring the first model's answers back in the second",
            ),
            (
                "franken probe creature:sft --dry-run",
                "forward passes and memory, before anything is loaded",
            ),
        ),
    ),
    "probe-compare": Page(
        SEE,
        "What differs between two checkpoints under one probe.",
        (
            (
                "franken probe-compare runs/probe/A-1a2b3c4d runs/probe/B-5e6f7a8b",
                "two runs of `franken probe`, paired by sample",
            ),
        ),
    ),
    "forks": Page(
        SEE,
        "Where two models part, token by token, and what that carries.",
        (
            (
                "franken forks creature:sft runs/rl/final --tasks count,sum --samples 20",
                "divergence and visual dependency of every token, and cross-sampling",
            ),
            (
                "franken forks sft rl --from runs/eval/sft-1a2b3c4d --from runs/eval/rl-5e6f7a8b "
                "--rules none",
                "only score the replies of two evaluations",
            ),
            (
                "franken forks creature:base creature:sft --budget 1 --dry-run",
                "one token of the other model a reply; what it would cost",
            ),
        ),
    ),
    "diff": Page(
        CHANGED,
        "Compare two or three checkpoints, tensor by tensor.",
        (
            (
                "franken diff creature:base creature:sft",
                "how much, where, and how far above rounding",
            ),
            (
                "franken diff creature:base creature:sft --spectra --layers 2-6",
                "in how many directions; layers 2..5",
            ),
            (
                "franken diff creature:sft --along rl",
                "the way of a training run over the checkpoints that it kept",
            ),
        ),
    ),
    "merge": Page(
        TRANSFERS,
        "Make a hybrid by layer range, exactly, and prove it.",
        (
            (
                "franken merge creature:base creature:sft --layers 2-6 --out hybrid",
                "layers 2..5 of the second in the first",
            ),
            (
                "franken merge creature:base creature:sft --layers late --components mlp --dry-run",
                "only say what each tensor would be",
            ),
            ("franken merge --list-methods", "blends, ties, dare, … with their papers"),
        ),
    ),
    "merge-sweep": Page(
        TRANSFERS,
        "The gain of every window of layers, beside random sets.",
        (
            (
                "franken merge-sweep creature:sft creature:base --window 2 --tasks read --samples "
                "20 --n 2",
                "seven hybrids and their controls",
            ),
        ),
    ),
    "train": Page(
        NEEDED,
        "SFT, GRPO, MUPO and relatives; the same command resumes.",
        (
            ("franken train --list", "the built-in recipes"),
            (
                "franken train creature-rl --out runs/rl --set stages.0.steps=20",
                "twenty steps of RL on the built-in model",
            ),
            (
                "franken train mupo-7b --plan --device-memory 80",
                "what a real one would need, before anything is fetched",
            ),
        ),
    ),
    "freeze-train": Page(
        NEEDED,
        "Train with layers frozen, and prove that they did not move.",
        (
            (
                "franken freeze-train creature-rl --freeze text:0-3 --out runs/frozen --set "
                "stages.0.steps=20",
                "one run",
            ),
            (
                "franken freeze-train creature-rl --arms early,late,random:2 --seeds 2 --out "
                "runs/study --dry-run",
                "what a study would run",
            ),
        ),
    ),
    "train-figures": Page(
        NEEDED,
        "Draw training runs against each other, with bands over seeds.",
        (
            (
                "franken train-figures runs/rl runs/frozen --out comparison.png",
                "reward, accuracy, diversity over updates",
            ),
        ),
    ),
    "eval": Page(
        ASKED,
        "Models side by side: acc@k, arms, diversity, errors.",
        (
            (
                "franken eval creature:base creature:sft --samples 20 --n 4",
                "paired by prompt, with intervals",
            ),
            (
                "franken eval creature:sft --arms image,text,blind --samples 20",
                "is it perception or reasoning?",
            ),
            (
                "franken eval creature:base --graft late=creature:sft:5-8 --samples 20",
                "a hybrid in memory: layers 5..7 of SFT in the base",
            ),
        ),
    ),
    "eval-compare": Page(
        ASKED,
        "Evaluations that exist, side by side.",
        (
            (
                "franken eval-compare runs/eval/A-1a2b3c4d runs/eval/B-5e6f7a8b",
                "paired by prompt; no model is asked",
            ),
        ),
    ),
    "m-scores": Page(
        ASKED,
        "M_vis, M_v2r, M_rea, and what hybrids gain.",
        (
            (
                "franken m-scores runs/eval/sft-1a2b3c4d runs/eval/rl-5e6f7a8b --parent sft "
                "--donor rl",
                "evaluations with --arms image,text,black,black-text",
            ),
        ),
    ),
    "grade": Page(
        ASKED,
        "Grade one reply, and explain the verdict.",
        (
            (
                "franken grade --gold 5 --reply 'The answer is five.'",
                "what was read, how it was compared, why",
            ),
            (
                "franken grade --gold B --options 'dog|cat' --reply 'B, it has whiskers' --json",
                "a choice, as JSON",
            ),
        ),
    ),
    "regrade": Page(
        ASKED,
        "Judge stored answers again, without a model.",
        (
            (
                "franken regrade runs/eval/A-1a2b3c4d",
                "a new run, how many verdicts changed, and which",
            ),
        ),
    ),
    "tasks": Page(
        ASKED,
        "Puzzles and data: list, show, render, look, verify, baselines.",
        (
            ("franken tasks list", "every task in a line"),
            ("franken tasks show clock:2", "one item in full, with its worked solutions"),
            ("franken tasks render maze --n 6 --out mazes.png", "a contact sheet"),
            ("franken tasks look mine.jsonl", "a data set as a model will be asked it"),
        ),
    ),
    "autopsy": Page(
        WHOLE,
        "All of the above for one Base, SFT, RL, on one page.",
        (
            (
                "franken autopsy creature:base creature:sft --out study --samples 10",
                "a small one, of two checkpoints",
            ),
            (
                "franken autopsy creature:base creature:sft --out study --budget 10m --dry-run",
                "what fits into ten minutes",
            ),
        ),
    ),
    "quickstart": Page(
        WHOLE,
        "Train a tiny model with RL, then the autopsy.",
        (("franken quickstart", "six to ten minutes; ctrl-C and again goes on"),),
    ),
    "report": Page(
        WHOLE,
        "A page over runs that exist, or a study's page again.",
        (
            ("franken report quickstart", "a study's page again, without a model"),
            ("franken report runs --out page", "a page of whatever is in runs/"),
        ),
    ),
    "show": Page(
        WHOLE,
        "Any run as a table, CSV, LaTeX or JSON; the papers' tables.",
        (
            ("franken show quickstart --table list", "which tables a folder can show"),
            (
                "franken show quickstart --table hybrids --latex",
                "as Frankenstein's table 2, with intervals and paired tests",
            ),
        ),
    ),
    "organism": Page(
        HOUSE,
        "A pair of checkpoints whose difference is known, to try methods.",
        (
            (
                "franken organism symmetric creature:sft --out same-function",
                "other weights that compute the same",
            ),
            (
                "franken organism graft:layer:3 creature:base creature:sft --out one-layer",
                "the update of layer 3, and of nothing else",
            ),
        ),
    ),
    "doctor": Page(
        HOUSE,
        "Versions, devices, and a self-test of every model family.",
        (("franken doctor", "begin here when nothing works"),),
    ),
}

NEXT = (
    "Checkpoints are folders of safetensors, hub ids in the local cache, creature:base and "
    "creature:sft. Layers count from 0, 16-28 is 16..27. --json prints one object, --dry-run what "
    "would be done, --debug keeps tracebacks, --plugin FILE.py adds tasks, probes, rewards, … of "
    "your own, --bound NAME=NUMBER changes a bound of what comes in (docs/troubleshooting.md).",
    "Exit codes: 0 ok, 1 failure, 2 usage, 3 some samples failed, 4 verification failed, "
    "130 interrupted (the same command goes on).",
    "Begin with:  franken quickstart",
    "Next:  README.md, docs/ (troubleshooting, extending, real-models), notebooks in analyses/, "
    "franken VERB --help",
)


TASKS = {  # examples of `franken tasks …`
    "list": ("franken tasks list", "every task in a line"),
    "show": ("franken tasks show rotting_kiwi --index 3", "question, facts, worked solutions"),
    "render": (
        "franken tasks render clock:2 --n 6 --pairs --out clocks.png",
        "pairs that differ in one fact",
    ),
    "verify": ("franken tasks verify AlgoPuzzleVQA/data", "the published answers against ours"),
    "look": (
        "franken tasks look mine.jsonl --columns answer=gold --model creature:sft --html look.html",
        "how its rows will be asked, and why some fail",
    ),
    "baselines": ("franken tasks baselines clock rotting_kiwi+choice", "what guessing scores"),
}


def examples(verb: str) -> str:
    """The end of a verb's help."""
    return _listed(PAGES[verb].examples)


def of_tasks(command: str) -> str:
    """The end of the help of a `franken tasks` command."""
    return _listed((TASKS[command],))


def _listed(lines: tuple[tuple[str, str], ...]) -> str:
    return "\n\n".join(["Examples:", *(f"{command}  # {what}" for command, what in lines)])


def front() -> str:
    """The end of `franken --help`."""
    first = ("probe", "diff", "merge", "freeze-train", "eval")
    lines = [PAGES[verb].examples[0][0] for verb in first]
    return "\n\n".join(["Examples:", *lines, *NEXT])
