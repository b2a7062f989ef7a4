"""Regrading stored answers: a new run, the source untouched, changes counted both ways; with a
judge, whose errors stay errors.
"""

import hashlib
import http.server
import json
import threading

import pandas as pd
import pytest

from franken import tasks
from franken.cli import run_command
from franken.errors import FrankenError, UsageError
from franken.evaluate.metrics import summarise
from franken.evaluate.regrade import changed_by, changes, preview, regrade
from franken.runs import load_run, open_run
from franken.tasks.grading import graded_by
from franken.tasks.judge import judge_at
from franken.tasks.puzzle import Item

READ = tasks.get("read").items(3, 0, "test")
MINE = Item("mine-1", "mine", "How many?", "7", answer_type="integer")
CHOICE = Item("mine-2", "mine", "Which?", "B", options=("red", "blue"), answer_type="option")


def stored(item, output, score, draw=-1, **more):
    return {
        "model": "m",
        "method": "image",
        "task": item.task,
        "sample": item.id,
        "draw": draw,
        "output": output,
        "answer": None,
        "gold": item.answer,
        "score": score,
        "reason": "old",
        "well_formed": False,
        "strategy": "none",
        "truncated": False,
        "error": None,
        "ineligible": None,
        **graded_by(item),
        **more,
    }


ROWS = [
    stored(READ[0], f"<answer>{READ[0].answer}</answer>", 1.0),
    stored(READ[1], f"<answer>{READ[1].answer}</answer>", 0.0),  # wrongly refused
    stored(READ[2], f"<answer>1{READ[2].answer}</answer>", 1.0),  # wrongly accepted
    stored(MINE, "<answer>0.7</answer>", 1.0),
    stored(MINE, "The answer is seven.", 0.0, draw=0),
    stored(CHOICE, "A blue one, so blue", 1.0),
    stored(CHOICE, "(B) blue", 1.0, draw=0),
    stored(CHOICE, None, None, draw=1, error="the image is broken"),
]


@pytest.fixture
def run(tmp_path):
    config = {"tasks": ["read"], "samples": 3, "seed": 0, "data": None, "k": [1]}
    made = open_run("eval", "m", {"x": 1}, tmp_path / "runs", config=config, models={"m": "m"})
    made.append(ROWS)
    return made.finish(summarise(pd.DataFrame(ROWS), k=(1,)), n_requested=len(ROWS))


def content(folder):
    return {
        f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in folder.iterdir() if f.is_file()
    }


def test_verdicts_change_in_a_new_run_and_the_source_stays(run):
    before = content(run)
    folder = regrade(run)
    assert content(run) == before
    assert folder != run
    assert folder.parent.name == "regrade"
    done = load_run(folder)
    assert done.samples["score"].tolist()[:7] == [1, 1, 0, 0, 1, 0, 1]
    assert done.samples["error"].tolist()[7] == "the image is broken"
    assert all(reason != "old" for reason in done.samples["reason"][:7])
    assert done.manifest.changes["all"] == {
        "unchanged": 3,
        "wrong_to_right": 2,
        "right_to_wrong": 3,
    }
    assert done.manifest.changes["read"] == {
        "unchanged": 1,
        "wrong_to_right": 1,
        "right_to_wrong": 1,
    }
    assert (folder / done.manifest.source).resolve() == run.resolve()
    greedy = done.layers[(done.layers["metric"] == "greedy") & (done.layers["task"] == "read")]
    assert greedy["value"].tolist() == [pytest.approx(2 / 3)]


def test_what_changed_is_listed_with_both_reasons(run):
    listed = changed_by(regrade(run), run)
    assert [(c.before, c.now) for c in listed] == [(0, 1), (1, 0), (1, 0), (0, 1), (1, 0)]
    assert listed[3].sample == "mine-1"
    assert (listed[3].gold, listed[3].reason_before) == ("7", "old")
    assert "right" in listed[3].reason_now
    assert listed == changed_by(regrade(run), run)
    assert preview(run)["changed"] == listed


def test_descriptions_are_judged_by_their_facts(tmp_path):
    item = READ[0]
    rows = [
        stored(item, item.description, 0.0, method="describe", gold=item.description),
        stored(item, "nothing", 1.0, method="describe", gold=item.description, draw=0),
    ]
    config = {"tasks": ["read"], "samples": 3, "seed": 0, "data": None, "k": [1]}
    made = open_run("eval", "m", {"x": 4}, tmp_path / "runs", config=config, models={"m": "m"})
    made.append(rows)
    done = load_run(regrade(made.finish([], n_requested=2))).samples
    assert done["score"].tolist() == [1, 0]
    assert done["facts_right"].tolist()[0] == 1


def test_the_command_lists_changes_and_prints_replies_inert(tmp_path, capsys):
    rows = [stored(MINE, "<answer>[red]8[/red] \x1b[2J</answer>", 1.0)]
    config = {"tasks": ["read"], "samples": 3, "seed": 0, "data": None, "k": [1]}
    made = open_run("eval", "m", {"x": 3}, tmp_path / "runs", config=config, models={"m": "m"})
    made.append(rows)
    folder = made.finish(summarise(pd.DataFrame(rows), k=(1,)), n_requested=1)
    assert run_command(["regrade", str(folder)], False) == 0
    printed = capsys.readouterr().out
    assert "1 → 0  mine mine-1 image draw -1" in printed
    assert "[red]8[/red]" in printed
    assert "\x1b" not in printed
    assert run_command(["regrade", str(folder), "--show", "0"], False) == 0
    assert "and 1 more" in capsys.readouterr().out
    assert run_command(["regrade", str(folder), "--json"], False) == 0
    assert json.loads(capsys.readouterr().out)["changed"][0]["now"] == 0


def test_again_is_the_same_run_and_regrading_it_changes_nothing(run):
    folder = regrade(run)
    assert regrade(run) == folder
    twice = regrade(folder)
    assert twice != folder
    assert set(load_run(twice).manifest.changes["all"].items()) >= {
        ("wrong_to_right", 0),
        ("right_to_wrong", 0),
    }


def test_preview_writes_nothing(run, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    found = preview(run)
    assert found["answers"] == 7
    assert found["changes"] == load_run(regrade(run)).manifest.changes
    assert [f for f in before if not f.exists()] == []


def test_old_runs_without_the_columns_are_rebuilt(tmp_path):
    rows = [
        {k: v for k, v in r.items() if k not in ("question", "answer_type", "options", "tolerance")}
        for r in ROWS[:4]
    ]
    config = {"tasks": ["read"], "samples": 3, "seed": 0, "data": None, "k": [1]}
    made = open_run("eval", "old", {"x": 2}, tmp_path, config=config)
    made.append(rows)
    folder = made.finish(summarise(pd.DataFrame(rows), k=(1,)), n_requested=4)
    done = load_run(regrade(folder))
    assert done.samples["score"].tolist()[:3] == [1, 1, 0]
    assert "cannot be found again" in done.samples["error"].tolist()[3]
    assert done.manifest.n_failed == 1
    assert done.manifest.changes["mine"]["right_to_error"] == 1


class Server:
    def __init__(self, answer):
        self.asked = []
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                prompt = json.loads(self.rfile.read(int(self.headers["Content-Length"])))[
                    "messages"
                ][0]["content"]
                server.asked.append(prompt)
                status, text = answer(prompt)
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps({"choices": [{"message": {"content": text}}]}).encode())

            def log_message(self, *_):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def close(self):
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def serve():
    servers = []

    def start(answer):
        servers.append(Server(answer))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def test_a_judges_verdict_stands_beside_the_rules_and_its_errors_stay_errors(run, serve, tmp_path):
    server = serve(
        lambda p: (
            (400, "")
            if "(A) red" in p
            else (200, "VERDICT: right" if "seven" in p else "VERDICT: wrong")
        )
    )
    judge = judge_at(server.url, "stub", tmp_path / "cache")
    plan = preview(run, judge)
    assert plan["judge"]["prompts"] == 7
    assert plan["judge"]["cached"] == 0
    assert not server.asked
    done = load_run(regrade(run, judge=judge))
    rows = done.samples
    assert rows["score"].tolist()[3:5] == [0, 1]
    assert rows["rule_score"].tolist()[3:5] == [0, 1]
    assert rows["score"].isna().tolist() == [False] * 5 + [True] * 3
    assert all("400" in e for e in rows["error"].tolist()[5:7])
    assert rows["rule_score"].tolist()[5:7] == [0, 1]
    assert done.manifest.n_failed == 3
    assert done.manifest.changes["mine"]["right_to_error"] == 2
    assert preview(run, judge)["judge"]["cached"] == 5
    assert "stub" in json.dumps(done.manifest.identity.stored())


def test_a_judge_that_judges_nothing_ends_the_command(run, serve, tmp_path):
    server = serve(lambda p: (401, ""))
    with pytest.raises(FrankenError, match="judged nothing"):
        regrade(run, judge=judge_at(server.url, "stub", tmp_path / "cache"))


def test_the_command(run, tmp_path, capsys):
    assert run_command(["regrade", str(run), "--dry-run", "--json"], False) == 0
    assert json.loads(capsys.readouterr().out)["changes"]["all"]["right_to_wrong"] == 3
    assert not (run.parent.parent / "regrade").exists()
    assert (
        run_command(["regrade", str(run), "--json", "--out", str(tmp_path / "other")], False) == 3
    )
    found = json.loads(capsys.readouterr().out)
    assert found["changes"]["all"]["wrong_to_right"] == 2
    assert found["folder"].startswith(str(tmp_path / "other"))
    assert run_command(["regrade", str(run)], False) == 3
    assert "wrong to right" in capsys.readouterr().out
    assert run_command(["regrade", str(run), "--judge-model", "m"], False) == 2
    assert run_command(["regrade", str(tmp_path / "none")], False) == 1


def test_only_answers_can_be_graded(tmp_path):
    made = open_run("diff", "d", {}, tmp_path, config={})
    made.append([{"a": 1}])
    with pytest.raises(UsageError, match="no answers"):
        regrade(made.finish([], n_requested=1))


def test_changes_by_direction():
    old = [{"task": "a", "score": s, "error": None} for s in (0.0, 1.0, 1.0, None)]
    new = [
        {"task": "a", "score": 1.0, "error": None},
        {"task": "a", "score": None, "error": "e"},
        old[2],
        old[3],
    ]
    assert changes(old, new)["a"] == {
        "unchanged": 1,
        "wrong_to_right": 1,
        "right_to_wrong": 0,
        "right_to_error": 1,
    }
