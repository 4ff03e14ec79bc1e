"""The number of tokens of a text, by a tokenizer that is given as a file."""

import functools
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from headgate.transforms.batches import by_batches
from headgate.transforms.kinds import need_texts
from headgate.transforms.rows import quoted
from headgate.transforms.step import Columns, Step, StepError, require_columns, with_new

EXTRA = "pip install 'headgate[tokens]'"


@dataclass(frozen=True, kw_only=True)
class CountTokens(Step):
    """Add the number of tokens of texts, as a tokenizer counts them.

    columns: the texts; the tokens of several are added up.
    tokenizer: a file: `tokenizer.json` of the tokenizers library (Hugging Face), or a `.model` of sentencepiece. A
        relative path is of the folder that headgate runs in.
    into: the new column (`tokens`), a bigint.
    sha256: of the file, so that no other one is taken for it; by default what it is now. With another file, what was
        counted before is out of date.
    Tokens that mark beginning or end are not counted, nor is anything cut off. A null text has none; where all are null
    the number is 0.
    Needs the extra `tokens`. Cost: one pass in Arrow batches; the tokenizer is sent to the workers, and reads some MB a
    second.
    """

    name: ClassVar[str] = "count_tokens"
    columns: tuple[str, ...]
    tokenizer: str
    into: str = "tokens"
    sha256: str = ""

    def __post_init__(self) -> None:
        file = Path(self.tokenizer)
        if not self.sha256 and file.is_file():
            object.__setattr__(self, "sha256", hashlib.sha256(file.read_bytes()).hexdigest())

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns(self.columns, have)
        if not self.columns:
            raise StepError("columns: name at least one text")
        need_texts(have, self.name, self.columns)
        self.content()
        return with_new(have, {self.into: "bigint"})

    def content(self) -> bytes:
        """Return the tokenizer's file; raise `StepError` where it is not there, another one, or none."""
        try:
            content = Path(self.tokenizer).read_bytes()
        except OSError as e:
            raise StepError(f"tokenizer: {self.tokenizer}: cannot be read ({e.strerror})") from e
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise StepError(f"tokenizer: {self.tokenizer} is not the file with the sha256 {self.sha256[:12]}…")
        try:
            counter_of(content)
        except ModuleNotFoundError as e:
            raise StepError(f"tokenizer: needs '{e.name}': {EXTRA}") from e
        except Exception as e:
            raise StepError(f"tokenizer: {self.tokenizer}: neither a tokenizer.json nor a sentencepiece model") from e
        return content

    def apply(self, df: DataFrame) -> DataFrame:
        texts = F.struct(*(F.col(quoted(c)).cast("string").alias(f"t{i}") for i, c in enumerate(self.columns)))
        return df.withColumn(self.into, by_batches(counting(self.content()), "bigint", texts))


def counting(content: bytes) -> Callable[[pa.Array], pa.Array]:
    """Return the function of a batch of texts that gives their numbers of tokens."""

    def counted(texts: pa.Array) -> pa.Array:
        count = counter_of(content)
        total = [0] * len(texts)
        for i in range(texts.type.num_fields):
            for row, n in enumerate(count([text or "" for text in texts.field(i).to_pylist()])):
                total[row] += n
        return pa.array(total, pa.int64())

    return counted


@functools.cache
def counter_of(content: bytes) -> Callable[[Sequence[str]], list[int]]:
    """Return the function that counts the tokens of texts, by a tokenizer's file."""
    if content.lstrip()[:1] == b"{":
        os.environ["TOKENIZERS_PARALLELISM"] = "false"  # Spark has a worker for each core already
        from tokenizers import Tokenizer

        tokenizer: Any = Tokenizer.from_str(content.decode())
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return lambda texts: [len(e.ids) for e in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
    import sentencepiece

    model: Any = sentencepiece.SentencePieceProcessor(model_proto=content)
    return lambda texts: [len(ids) for ids in model.encode(list(texts), out_type=int, num_threads=1)]
