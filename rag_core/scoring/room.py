"""Whether there is room for what a model is to read: found with its tokenizer, before it is loaded.

An LLM reranker's prompt keeps the query whole and cuts the passage, so a long query may leave nothing of it. An
embedder cuts a text behind its prompt, so a long instruction may leave nothing of a query. A cross-encoder cuts the
longer one of query and passage until both fit, so something of each is always read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from rag_core.base.errors import DataError, EngineError
from rag_core.base.outside_text import quoted
from rag_core.base.records import RankingSample
from rag_core.engines.embedding_prompt import query_prompt
from rag_core.engines.options import EngineChoice, EngineName, EngineOptions
from rag_core.engines.protocols import Role
from rag_core.engines.reranker_prompt import RerankerPrompt, load_prompt
from rag_core.engines.tokenizer import load_tokenizer
from rag_core.engines.yes_no_prompt import DEFAULT_INSTRUCTION
from rag_core.scoring.samples import SampleFile
from rag_core.scoring.settings import settle

# No tokenizer is loaded where even this many tokens fit: a byte of text is a token at most, and normalising makes up to
# three bytes of one. The fixed text of the yes/no prompt has 80 tokens.
_TOKENS_A_BYTE = 3
_FIXED_TOKENS = 256
_AROUND = 16  # tokens that an embedder's tokenizer puts around a text, and more
_AT_ONCE = 1000  # queries that are tokenised


def settle_run(
    sources: Sequence[SampleFile], engine: EngineChoice, options: EngineOptions
) -> tuple[EngineName, EngineOptions]:
    """Settle what was left open, and leave out of the sources what the model has no room for.

    Raises:
        PipelineError: as `settings.settle` and `check_room`.
    """
    name, options = settle(engine, options, [source.path for source in sources])
    check_room(sources, options)
    return name, options


def check_room(sources: Sequence[SampleFile], options: EngineOptions) -> None:
    """Leave out the samples whose query leaves no room for a passage, as bad rows.

    Args:
        options: settled: with instruction.

    Raises:
        DataError: there is one, and bad rows are not left out.
        EngineError: no query can have room, or the tokenizer cannot be loaded.
    """
    if options.model.kind == "bi-encoder":
        _check_prompts(options)
    elif options.model.kind == "llm-reranker":
        long = [source for source in sources if not _fits(source.longest_query, options)]
        if long:
            prompt = load_prompt(options)
            _check_instruction(prompt, options)
            for source in long:
                source.leave_out(_without_room(source, prompt, options))


def _fits(size: int, options: EngineOptions) -> bool:
    """Tell whether a query of so many bytes leaves room in a prompt, whatever its tokens are."""
    if options.model.question.template is not None:  # which may be of any length
        return False
    instruction = len((options.instruction or DEFAULT_INSTRUCTION).encode())
    return _TOKENS_A_BYTE * (instruction + size) + _FIXED_TOKENS < options.max_length


def _without_room(
    source: SampleFile, prompt: RerankerPrompt, options: EngineOptions
) -> Iterator[tuple[str, DataError]]:
    """Yield (query id, what is wrong) of each sample of which a passage would not be read."""
    rows = ((line, row) for line, row in source.numbered() if not _fits(len(row.query.encode()), options))
    while block := list(islice(rows, _AT_ONCE)):
        lengths = prompt.head_lengths([sample.query for _, sample in block])
        for (line, sample), length in zip(block, lengths, strict=True):
            if length >= options.max_length and not _reads_all(prompt, sample):
                yield (
                    sample.query_id or "",
                    DataError(
                        f"a query of {len(sample.query)} characters takes {length} tokens with its prompt, which "
                        f"leaves no room for a passage in --max_length {options.max_length}",
                        f"Raise --max_length to at least {length + 1} or shorten the query, or pass --skip_bad_rows to "
                        "leave such rows out",
                        path=source.path,
                        line=line,
                    ),
                )


def _reads_all(prompt: RerankerPrompt, sample: RankingSample) -> bool:
    """Tell whether all passages are read after all: the first token of a passage may end the text before it."""
    try:
        prompt.token_ids([(sample.query, passage) for passage, _ in sample.passages()])
    except EngineError:
        return False
    return True


def _check_instruction(prompt: RerankerPrompt, options: EngineOptions) -> None:
    (length,) = prompt.head_lengths([""])
    if length >= options.max_length:
        instruction = options.instruction or DEFAULT_INSTRUCTION
        told = "" if options.model.question.template else f" with an instruction of {len(instruction)} characters"
        raise EngineError(
            f"the prompt{told} takes {length} tokens, which leaves no room for query and passage in --max_length "
            f"{options.max_length}",
            f"Raise --max_length to at least {length + 2}, or shorten the instruction",
        )


def _check_prompts(options: EngineOptions) -> None:
    """Check that an embedder reads something of a text behind the prompt that it puts before it.

    Raises:
        EngineError: it does not.
    """
    limit = min(options.max_length, options.model.max_length or options.max_length)
    for role, prompt in _prompts(options):
        if not prompt or _TOKENS_A_BYTE * len(prompt.encode()) + _AROUND < limit:
            continue
        tokenizer = load_tokenizer(options.model.name)
        limit = min(limit, tokenizer.model_max_length)
        length = len(tokenizer.encode(prompt))  # with the tokens around a text
        if length >= limit:
            raise EngineError(
                f"the prompt of a {role} takes {length} tokens, which leaves no room for the {role} within {limit} "
                f"(prompt {quoted(repr(prompt), 60)})",
                f"Raise --max_length to at least {length + 1}, if the model reads that much, or shorten the prompt",
            )


def _prompts(options: EngineOptions) -> Iterable[tuple[Role, str]]:
    own = options.instruction is None or not options.model.takes_instruction
    yield "query", options.model.prompt("query") if own else query_prompt(options.instruction or "")
    yield "passage", options.model.prompt("passage")
