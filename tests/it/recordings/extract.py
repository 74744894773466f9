#!/usr/bin/env python3
"""Makes the fixtures of tests/it/recordings.rs: the row changes of recorded LiteLLM calls, as SQL.

    extract.py FOLDER-OF-RECORDINGS > litellm-VERSION.sql

Of each recording it takes the changes of tables that are mirrored, as test_decoding showed them, transaction by transaction.
"""
import pathlib, re, sys

KEYS = {
    "LiteLLM_UserTable": ["user_id"], "LiteLLM_TeamTable": ["team_id"], "LiteLLM_TeamMembership": ["user_id", "team_id"],
    "LiteLLM_VerificationToken": ["token"], "LiteLLM_ProxyModelTable": ["model_id"], "LiteLLM_ModelTable": ["id"],
    "LiteLLM_AccessGroupTable": ["access_group_id"], "LiteLLM_BudgetTable": ["budget_id"],
    "LiteLLM_OrganizationTable": ["organization_id"], "LiteLLM_OrganizationMembership": ["user_id", "organization_id"],
    "LiteLLM_ProjectTable": ["project_id"],
}
CHANGE = re.compile(r'-- table public\."([^"]+)": (INSERT|UPDATE|DELETE): (.*)$', re.S)
COLUMN = re.compile(r'("?[A-Za-z_][A-Za-z_0-9]*"?)\[((?:[^\[\]]|\[\])+)\]:')


types = {}


def tuple_of(text):
    """{column: SQL literal}, and what follows."""
    row, at = {}, 0
    while True:
        match = COLUMN.match(text, at)
        if not match:
            return row, text[at:]
        name, at = match.group(1).strip('"'), match.end()
        if text[at] == "'":
            end = at + 1
            while True:
                end = text.index("'", end)
                if text[end + 1:end + 2] == "'":
                    end += 2
                    continue
                break
            value, at = text[at:end + 1], end + 1
        else:
            end = text.find(" ", at)
            end = len(text) if end < 0 else end
            value, at = text[at:end], end
        if value != "unchanged-toast-datum":
            row[name] = value
            types[name] = match.group(2)
        at += text[at:at + 1] == " "


def where(table, row):
    return " and ".join(f'"{key}" = {row[key]}' for key in KEYS[table])


def statement(table, what, text):
    if what == "UPDATE":
        old = {}
        if text.startswith("old-key: "):
            old, text = tuple_of(text[len("old-key: "):])
            assert text.startswith("new-tuple: "), text[:80]
            text = text[len("new-tuple: "):]
        new, rest = tuple_of(text)
        assert not rest.strip(), rest[:80]
        sets = ", ".join(f'"{name}" = {value}' for name, value in new.items())
        return f'update "{table}" set {sets} where {where(table, old or new)};'
    row, rest = tuple_of(text)
    assert not rest.strip(), rest[:200]
    if what == "DELETE":
        return f'delete from "{table}" where {where(table, row)};'
    # A NULL that no default would replace need not be said.
    said = {name for name in row if types[name].endswith("[]") or types[name] in ("jsonb", "boolean")}
    row = {name: value for name, value in row.items() if value != "null" or name in said}
    names = ", ".join(f'"{name}"' for name in row)
    return f'insert into "{table}" ({names}) values ({", ".join(row.values())});'


def changes(text):
    """The transactions: lists of statements. A value may go over several lines."""
    transactions, entry = [], None
    lines = text.split("-- ===== row changes in the WAL", 1)[1].splitlines()[1:] if "-- ===== row changes" in text else []
    entries = []
    for line in lines:
        if line.startswith("-- transaction "):
            entries.append(None)
        elif line.startswith("-- table "):
            entries.append(line)
        elif entries and entries[-1] is not None:
            entries[-1] += "\n" + line
    for entry in entries:
        if entry is None:
            transactions.append([])
            continue
        match = CHANGE.match(entry.rstrip("\n"))
        if match and match.group(1) in KEYS:
            transactions[-1].append(statement(*match.groups()))
    return [one for one in transactions if one]


for file in sorted(pathlib.Path(sys.argv[1]).glob("*.sql")):
    text = file.read_text()
    found = changes(text)
    if found:
        print(f"-- {file.stem}: {text.splitlines()[0].removeprefix('-- ')}")
        for transaction in found:
            print("begin;", *transaction, "commit;", sep="\n")
