"""Embedders: unit vectors from three sources, asked once per text; what of a reply is embedded."""

import http.server
import json
import threading

import pytest
import torch

from franken import endpoints
from franken.errors import FrankenError, UsageError
from franken.evaluate.embed import embedder, segment
from franken.models import creature
from franken.models.tiny import tiny


def test_hashing_gives_unit_vectors_that_know_words():
    found = embedder()(
        ["rows r1c1 red square", "rows r1c1 red square", "cols r3c3 blue circle", ""]
    )
    assert found.shape == (4, 1024)
    assert found.norm(dim=1).tolist() == pytest.approx([1.0] * 4)
    assert torch.equal(found[0], found[1])
    assert float(found[0] @ found[2]) < 0.2
    assert float(found[0] @ found[3]) == 0.0


def test_a_model_folder_gives_the_last_tokens_state(tmp_path):
    from transformers import Qwen3Config, Qwen3Model

    tokenizer = creature.build_tokenizer()
    base = tiny("qwen3").config.to_dict() | {"vocab_size": len(tokenizer)}
    torch.manual_seed(0)
    model = Qwen3Model(Qwen3Config(**base)).eval()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    texts = ["rows r1c1 red square", "blue", "scan total so 3"]
    found = embedder(str(tmp_path), batch_size=2)(texts)
    for text, row in zip(texts, found, strict=True):
        with torch.no_grad():
            alone = model(
                **tokenizer(text, return_tensors="pt", return_token_type_ids=False)
            ).last_hidden_state[0, -1]
        assert torch.allclose(row, alone / alone.norm(), atol=1e-5)
    with pytest.raises(UsageError):
        embedder(str(tmp_path / "nowhere"))(["x"])


def test_pickled_weights_are_refused(tmp_path):
    tokenizer = creature.build_tokenizer()
    model = tiny("qwen3")
    model.config.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    torch.save(model.model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(UsageError, match="safetensors"):
        embedder(str(tmp_path))(["x"])


@pytest.fixture
def endpoint():
    """A local server that answers like an OpenAI-compatible one, out of order, and remembers what
    it was asked.
    """
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append((self.path, body, self.headers.get("Authorization")))
            rows = [
                {"index": i, "embedding": [float(len(t)), 1.0]} for i, t in enumerate(body["input"])
            ]
            answer = json.dumps(
                {"data": rows[::-1]} if body["model"] == "m" else {"error": "no such model"}
            ).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *args):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1", asked
    server.shutdown()
    server.server_close()


def test_an_endpoint_is_asked_once_per_text(endpoint, monkeypatch):
    waits = []
    monkeypatch.setattr(endpoints, "sleep", waits.append)
    url, asked = endpoint
    monkeypatch.setenv("FRANKEN_EMBEDDING_KEY", "secret")
    embed = embedder(f"{url}#m")
    found = embed(["aaa", "b", "aaa"])
    expected = torch.tensor([[3.0, 1.0], [1.0, 1.0], [3.0, 1.0]])
    assert torch.allclose(found, expected / expected.norm(dim=1, keepdim=True))
    assert torch.equal(embed(["b", "aaa"]), found[[1, 0]])
    assert asked == [("/v1/embeddings", {"model": "m", "input": ["aaa", "b"]}, "Bearer secret")]
    embed(["b", "cc"])
    assert asked[-1][1]["input"] == ["cc"]
    with pytest.raises(FrankenError, match="no embeddings"):
        embedder(f"{url}#other")(["x"])
    with pytest.raises(FrankenError, match="no embeddings"):
        embedder("http://127.0.0.1:9/v1#m")(["x"])
    assert [round(s) for s in waits] == pytest.approx([1, 2, 4], abs=1)


def test_the_reasoning_is_embedded():
    assert segment("<think> rows 1 2 </think><answer> 3 </answer>") == "rows 1 2"
    assert segment("first I add\n\\boxed{3}") == "first I add"
    assert segment("<think> cut off here") == "cut off here"
    assert segment("<think></think><answer> 3 </answer>") == "<think></think><answer> 3 </answer>"
    assert segment("3") == "3"
