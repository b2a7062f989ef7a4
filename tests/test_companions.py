"""Files beside the weights that are not what transformers expects, and what loading says of
them.
"""

import json
import shutil

import pytest

from franken.checkpoints import resolve
from franken.companions import check_companions
from franken.errors import FrankenError
from franken.models.loading import load

BROKEN = {
    "tokenizer.json": ["[]", "{}", '{"model": {"vocab": [1]}}', '{"model": 7}', "[" * 9999, "\xff"],
    "tokenizer_config.json": ["[]", "1", ""],
    "generation_config.json": ["[]", '{"eos_token_id": "x"}', '{"max_new_tokens": -1}'],
    "preprocessor_config.json": ["[]", "null"],
    "processor_config.json": ['{"image_processor": 7}'],
    "chat_template.jinja": ["x" * (2 << 20)],
}


@pytest.fixture
def creature(tmp_path):
    shutil.copytree(resolve("creature:base"), tmp_path / "creature")
    return tmp_path / "creature"


@pytest.mark.parametrize(("name", "text"), [(n, t) for n, ts in BROKEN.items() for t in ts])
def test_broken_companions_are_refused(creature, name, text):
    check_companions(creature)
    (creature / name).write_text(text, encoding="latin-1")
    with pytest.raises(FrankenError) as caught:
        check_companions(creature)
    assert name in caught.value.what
    assert caught.value.why
    assert caught.value.fix


def test_sizes_that_the_configuration_leaves_out_are_not_made_up(creature):
    """transformers would build the family's largest decoder and fill it with random numbers."""
    config = json.loads((creature / "config.json").read_text())
    (creature / "config.json").write_text(json.dumps({**config, "text_config": {}}))
    with pytest.raises(FrankenError, match="does not load") as caught:
        load(creature, device="cpu")
    assert "layers" in caught.value.why


def test_what_transformers_raises_is_told(creature):
    (creature / "tokenizer.json").write_text('{"model": {"vocab": {}}}')
    with pytest.raises(FrankenError, match="does not load") as caught:
        load(creature, device="cpu")
    assert caught.value.why
