"""The part of the script that reads rows: loaded, made into text by form, tokenized, cut or packed.

A row becomes pieces of text, each trained on or not; the tokenizer's offsets tell which piece a token ends in. So a
prompt and its completion are tokenized as one text, as they are when the model is used.
"""

from __future__ import annotations

from string import Template

from advisor.answer import DataFile, DataForm, DataFormat
from advisor.export.run import quoted
from advisor.specs import Workload

BUILDERS: dict[DataFormat, str] = {
    "jsonl": "json",
    "json": "json",
    "csv": "csv",
    "parquet": "parquet",
    "text": "text",
}
_CHAT_FORMS: tuple[DataForm, ...] = ("messages", "prompt_completion", "alpaca", "sharegpt")

_TEMPLATE = '''
# For a tokenizer without a chat template; it is saved with the tokenizer, so use it for prompts as well.
PLAIN_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '### ' + message['role'].capitalize() + ':\\n' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Assistant:\\n' }}{% endif %}"
)


def chat_pieces(messages, first=0):
    """(text, trained on?) pieces of a conversation: trained on is what the assistant says from message `first` on.

    None in place of yes or no marks an answer that cannot be found: some templates render earlier ones in another way.
    """
    while messages and messages[-1]["role"] != "assistant":
        messages = messages[:-1]  # nothing is learned from what follows the last answer
    if not messages:
        return []

    def render(part, **options):
        return tokenizer.apply_chat_template(part, tokenize=False, **options)

    text, pieces, done = render(messages).rstrip(), [], 0
    for number, message in enumerate(messages):
        if message["role"] == "assistant" and number >= first:
            before, after = render(messages[:number], add_generation_prompt=True), render(messages[: number + 1])
            if not (text.startswith(before) and text.startswith(after.rstrip())):
                pieces.append(("", None))
                continue
            start, end = max(done, len(before)), min(len(text), len(after))
            pieces += [(text[done:start], False), (text[start:end], True)]
            done = end
    return [*pieces, (text[done:], False)]
'''

_ENCODE = Template('''
def encode(row):
    """Tokens that end with EOS, and labels: -100 where nothing is to be learned."""
    pieces, eos = pieces_of(row), tokenizer.eos_token_id
    text = "".join(piece for piece, _ in pieces)
    if not text.strip():
        return {"input_ids": [eos], "labels": [-100], "length": 1$none_lost}
    trained = [is_trained for piece, is_trained in pieces for _ in piece]  # by character
    found = tokenizer(text, add_special_tokens=$special, return_offsets_mapping=True, verbose=False)
    tokens, spans = found["input_ids"], found["offset_mapping"]
    labels = [
        token if end > start and trained[end - 1] else -100 for token, (start, end) in zip(tokens, spans, strict=True)
    ]
    if tokens[-1] != eos:
        tokens, labels = [*tokens, eos], [*labels, eos]
    labels[-1] = eos
    return {
        "input_ids": tokens$cut,
        "labels": labels$cut,
        "length": len(tokens),$lost
    }
''')
_NONE_LOST = ', "not_found": 0'
_LOST = '\n        "not_found": sum(is_trained is None for _, is_trained in pieces),'

_PACK = '''

def pack(batch):
    """Rows of SEQ_LEN tokens, filled from one row after the other; they can attend to what stands before them."""
    columns = {name: list(chain.from_iterable(batch[name])) for name in ("input_ids", "labels")}
    starts = range(0, len(columns["input_ids"]), SEQ_LEN)
    return {name: [tokens[i : i + SEQ_LEN] for i in starts] for name, tokens in columns.items()}
'''

_READ = Template("""
def read(path):
    rows = load_dataset("$builder", data_files=path, split="train")
    missing = {$columns} - set(rows.column_names)
    if missing:
        raise SystemExit(f"{path}: no column {', '.join(sorted(missing))}, only {', '.join(rows.column_names)}")
    return rows
""")

_PREPARE = Template('''
def teaches(row):
    """Whether any token after the first is to be predicted."""
    return any(label != -100 for label in row["labels"][1:])


def prepare(rows, name):
    """Tokenize, and say what was left out."""
    if options.smoke:
        rows = rows.select(range(min($smoke_rows, len(rows))))
    rows = rows.map(encode, remove_columns=rows.column_names)
    kept = rows.filter(teaches)
    left_out = len(rows) - len(kept)
$count    if len(kept) == 0:
        raise SystemExit(f"{name}: no row has anything to learn from")
    return $result


rows, eval_rows = read(options.data), None
if options.eval_file:
    eval_rows = read(options.eval_file)
elif options.eval_fraction:
    rows, eval_rows = rows.train_test_split(options.eval_fraction, seed=0).values()
rows = prepare(rows, "training")
if eval_rows is not None:
    eval_rows = prepare(eval_rows, "evaluation")
''')
_COUNT_CUT = """\
    cut = sum(length > SEQ_LEN for length in kept["length"])
    print(f"{name}: {len(kept):,} rows, {cut:,} cut to {SEQ_LEN} tokens; {left_out:,} left out: nothing to learn")
"""
_COUNT_PACKED = """\
    print(f"{name}: {len(kept):,} rows, packed to {SEQ_LEN} tokens; {left_out:,} left out: nothing to learn")
"""
_COUNT_LOST = """\
    lost = sum(kept["not_found"])
    if lost:
        print(f"{name}: {lost:,} earlier answers are read, not learned: the chat template changes them later")
"""


def is_chat(data: DataFile) -> bool:
    """Whether rows of this form go through a chat template."""
    return data.form in _CHAT_FORMS


def rows_section(data: DataFile, workload: Workload, smoke_rows: int) -> str:
    """Source code that leaves tokenized `rows`, and `eval_rows` or None, as datasets with input_ids and labels."""
    packing, chat = workload.packing, is_chat(data)
    encode = _ENCODE.substitute(
        special={"text": "True", "prompt_completion": "isinstance(row[PROMPT], str)"}.get(data.form, "False"),
        cut="" if packing else "[:SEQ_LEN]",
        none_lost=_NONE_LOST if chat else "",
        lost=_LOST if chat else "",
    )
    columns = '["length", "not_found"]' if chat else '"length"'
    packed = ".map(pack, batched=True, batch_size=10_000).filter(teaches)" if packing else ""
    prepare = _PREPARE.substitute(
        smoke_rows=smoke_rows,
        count=(_COUNT_PACKED if packing else _COUNT_CUT) + (_COUNT_LOST if chat else ""),
        result=f"kept.remove_columns({columns}){packed}",
    )
    parts = [_template_set() if chat else "", _pieces(data), encode, _PACK if packing else "", _read(data), prepare]
    return ("" if chat else "\n") + "\n\n\n".join(part.strip("\n") for part in parts if part)


def _read(data: DataFile) -> str:
    """The function `read`, which loads a file of this format and checks its columns."""
    columns = ", ".join(quoted(column) for column in data.columns or ("text",))
    return _READ.substitute(builder=BUILDERS[data.format], columns=columns)


def _template_set() -> str:
    setting = "if tokenizer.chat_template is None:\n"
    setting += '    print("the tokenizer has no chat template: PLAIN_TEMPLATE of this script is used")\n'
    setting += "    tokenizer.chat_template = PLAIN_TEMPLATE"
    head, blank, function = _TEMPLATE.strip("\n").partition("\n\n\n")
    return f"{head}\n{setting}{blank}{function}"


def _pieces(data: DataFile) -> str:
    """The function `pieces_of` for rows of this form."""
    names = [quoted(column) for column in data.columns or ("text",)]
    if data.form == "text":
        body = f"    return [(row[{names[0]}] or {quoted('')}, True)]"
    elif data.form == "messages":
        body = f"    return chat_pieces(row[{names[0]}])"
    elif data.form == "sharegpt":
        body = (
            '    roles = {"human": "user", "gpt": "assistant"}\n'
            f"    turns = row[{names[0]}]\n"
            '    return chat_pieces([{"role": roles.get(turn["from"], turn["from"]), "content": turn["value"]} '
            "for turn in turns])"
        )
    elif data.form == "alpaca":
        asked = f"row[{names[0]}]"
        if len(names) == 3:
            asked = f'"\\n\\n".join(part for part in ({asked}, row[{names[1]}]) if part)'
        body = (
            f"    request = {asked}\n"
            f'    answer = {{"role": "assistant", "content": row[{names[-1]}]}}\n'
            '    return chat_pieces([{"role": "user", "content": request}, answer])'
        )
    else:
        body = (
            "    prompt, completion = row[PROMPT], row[COMPLETION]\n"
            "    if isinstance(prompt, list):  # of messages\n"
            "        return chat_pieces(prompt + completion, first=len(prompt))\n"
            "    return [(prompt, False), (completion, True)]"
        )
    constants = f"PROMPT, COMPLETION = {names[0]}, {names[1]}\n\n\n" if data.form == "prompt_completion" else ""
    return f'{constants}def pieces_of(row):\n    """(text, trained on?) pieces of a row."""\n{body}'
