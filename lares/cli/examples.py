"""One or more lines to type for each command, which its help ends with."""

from __future__ import annotations

# What to type, and what it does; a test parses each.
EXAMPLES: dict[str, tuple[tuple[str, str], ...]] = {
    "train": (
        ("lares train interactions.csv", "the quick recipe, into runs/interactions-lares"),
        ("lares train ml-100k --recipe published", "a public set, the paper's settings"),
        ("lares train log.parquet --data.where 'rating >= 4' --model.d_model 128", "own options"),
    ),
    "posttrain": (
        ("lares posttrain runs/interactions-lares", "from a run, on the data of that run"),
    ),
    "evaluate": (
        ("lares evaluate runs/interactions-lares", "on the data of the run"),
        ("lares evaluate runs/interactions-lares --depths 1,2,4 --by_popularity", "in detail"),
        ("lares evaluate runs/interactions-lares --per_user ranks.csv", "every user's rank, too"),
    ),
    "recommend": (
        ("lares recommend runs/interactions-lares --history 12,7,33 --k 5", "one list"),
        ("lares recommend runs/interactions-lares --histories file.csv", "a history a line"),
        (
            "lares recommend runs/interactions-lares --users all --output recs.parquet",
            "of everybody in the data, with scores and ranks",
        ),
        (
            "lares recommend RUN --users ids.txt --items items.csv --output recs.csv",
            "of some users, with titles",
        ),
    ),
    "plot": (
        ("lares plot runs/interactions-lares", "curves, and accuracy by depth, popularity, length"),
        ("lares plot runs/one runs/other --output both.svg", "side by side"),
    ),
    "runs": (
        ("lares runs", "every run under runs/, and what it came to"),
        ("lares runs folder --output runs.csv", "as a file"),
    ),
    "data get": (("lares data get ml-100k", "fetch it; says where it lies"),),
    "data info": (
        ("lares data info interactions.csv", "what is in it, as train would read it"),
        ("lares data info log.txt --delimiter tab --user_column user", "of another form"),
    ),
    "data embed": (
        ("lares data embed items.csv --model sentence-transformers/all-MiniLM-L6-v2", "of titles"),
    ),
    "demo": (("lares demo", "a few minutes, nothing else needed"),),
    "completion": (
        ("lares completion bash", 'a line eval "$(lares completion bash)" in ~/.bashrc reads it'),
    ),
    "doctor": (
        ("lares doctor", "what runs here, and why not"),
        ("lares doctor --check", "every kernel against the reference"),
    ),
}


def examples_of(command: str) -> str:
    """Return the end of a command's help; "" for a command without examples."""
    lines = [f"  {typed}\n      {said}" for typed, said in EXAMPLES.get(command, ())]
    return "\n".join(["examples:", *lines]) if lines else ""
