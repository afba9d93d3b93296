"""FineTuneRun's spec: what a user may ask for. The docstrings become the CRD's text and `kubectl explain`.

Must not know how a wish is carried out. Everything but `suspend`, `cancel`, `rollout.approved` and
`ttlSecondsAfterFinished` is immutable: a new intent is a new object.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, model_validator

from finetune_contract.field_errors import field_error
from finetune_contract.model import ContractModel
from finetune_contract.stage_protocol import MOST_PODS, MOST_READER_QUESTIONS
from finetune_contract.text_forms import text_form

Name = Annotated[
    str,
    text_form(
        r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        "write lower case letters, digits and '-', with a letter or digit at both ends",
        shortest=1,
        longest=63,
    ),
]
"""A DNS label."""
OBJECT_NAME = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
OBJECT_NAME_WORDS = "write a Kubernetes object's name: lower case letters, digits, '-' and '.'"
ObjectName = Annotated[str, text_form(OBJECT_NAME, OBJECT_NAME_WORDS, shortest=1, longest=253)]
"""A Kubernetes object name."""
SecretName = Annotated[str, text_form(OBJECT_NAME, OBJECT_NAME_WORDS, shortest=1, longest=253, private=True)]
"""Name of a Secret."""
HttpUrl = Annotated[
    str,
    text_form(
        r"^https?://[^\s/?#@]+([/?#].*)?$",
        "write an address such as https://blog.example.com, with no user and password in it",
        shortest=8,
        longest=2048,
        private=True,
    ),
]
"""An address that everybody may read: what signs in belongs into a Secret."""
Quantity = Annotated[
    str,
    text_form(
        r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$",
        "write a quantity such as 4, 500m or 24Gi",
        shortest=1,
        longest=32,
    ),
]
"""A Kubernetes quantity such as `4`, `500m` or `24Gi`."""
ModelUri = Annotated[
    str,
    text_form(
        r"^(hf://[\w.-]+/[\w.-]+(@[\w./-]+)?|s3://[a-z0-9.-]+/\S+|file://\S+)$",
        "write hf://owner/name@revision, s3://bucket/folder/ or file:///folder",
        longest=1024,
    ),
]
"""Where a model lies."""
CollectionName = Annotated[
    str,
    text_form(
        r"^[A-Z][_0-9A-Za-z]*$",
        "write a capital letter first, then letters, digits and '_', such as WordPressPost",
        shortest=1,
        longest=128,
    ),
]
"""A collection of Weaviate."""
LABEL_KEY = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"
LABEL_KEY_WORDS = "write a key such as nvidia.com/gpu.product"
LabelValue = Annotated[
    str,
    text_form(
        r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$",
        "write text, in quotes where it looks like a number or true: letters, digits, '-', '_' and '.', with a letter "
        "or digit at both ends",
        longest=63,
    ),
]
"""Value of a label or a taint."""
ShortText = Annotated[str, Field(min_length=1, max_length=253)]
Epochs = Annotated[float, Field(gt=0, le=100)]
LearningRate = Annotated[float, Field(gt=0, le=0.1)]
EmbeddingNoise = Annotated[float, Field(ge=0, le=100)]
LoraRank = Annotated[int, Field(ge=1, le=512)]
LoraAlpha = Annotated[int, Field(ge=1, le=2048)]


class SecretRef(ContractModel):
    """A Secret in the run's namespace."""

    name: SecretName
    """Name of the Secret."""


class SecretKeyRef(ContractModel):
    """One key of a Secret in the run's namespace."""

    name: SecretName
    """Name of the Secret."""
    key: Annotated[
        str,
        text_form(
            r"^[-._a-zA-Z0-9]+$",
            "write letters, digits, '-', '_' and '.'",
            shortest=1,
            longest=253,
            private=True,
        ),
    ]
    """Key inside the Secret."""


class BaseModelSpec(ContractModel):
    """The model that is tuned."""

    uri: ModelUri
    """`hf://owner/name@revision` (resolved to a commit), `s3://bucket/prefix/` for closed clusters, or
    `file:///folder` on a laptop."""
    token_secret_ref: SecretKeyRef | None = None
    """Hugging Face token, for models whose licence must be accepted (google/gemma-2-2b)."""


class S3StoreSpec(ContractModel):
    """An S3 bucket and a prefix in it."""

    bucket: Annotated[
        str,
        text_form(
            r"^[a-z0-9][a-z0-9.-]*[a-z0-9]$",
            "write the bucket's name alone: lower case letters, digits, '-' and '.'",
            shortest=3,
            longest=63,
        ),
    ]
    """Bucket; it must exist."""
    prefix: Annotated[
        str,
        text_form(
            r"^([^/\s][^\s]*[^/\s]|[^/\s])?$",
            "write a folder such as models/blog, without spaces and with no slash at either end",
            longest=512,
        ),
    ] = ""
    """Folder inside the bucket, without a slash at either end."""
    endpoint: HttpUrl | None = None
    """Address of an S3 server that is not AWS."""
    region: Annotated[str, Field(min_length=1, max_length=64)] = "us-east-1"
    """Region of the bucket."""
    credentials_secret_ref: SecretRef | None = None
    """Secret with the keys `accessKeyId` and `secretAccessKey`; leave out when pods have a cloud identity."""


class PostStatus(StrEnum):
    """States of a WordPress post that may be read; all but `publish` need credentials."""

    PUBLISH = "publish"
    PRIVATE = "private"
    DRAFT = "draft"
    PENDING = "pending"
    FUTURE = "future"


class FrontProxySpec(ContractModel):
    """A password in front of the whole site, such as that of a staging server."""

    credentials_secret_ref: SecretRef
    """Secret with the keys `username` and `password`; sent as Basic."""
    header: Annotated[
        str,
        text_form(
            r"^[A-Za-z0-9-]+$",
            "write a header's name alone, such as Proxy-Authorization",
            shortest=1,
            longest=64,
        ),
    ] = "Authorization"
    """Header that carries them. A request has one Authorization: choose another header that the proxy reads, such as
    `Proxy-Authorization`, when WordPress is signed in to as well."""


class WordPressSource(ContractModel):
    """Posts and pages over the WordPress REST API."""

    url: HttpUrl
    """Address of the site, as a reader types it."""
    credentials_secret_ref: SecretRef | None = None
    """Secret with the keys `username` and `password` (an application password). Proven before reading."""
    token_secret_ref: SecretKeyRef | None = None
    """Bearer token, where a plugin gives one out; in the place of `credentialsSecretRef`."""
    front_proxy: FrontProxySpec | None = None
    """Second credentials, for a proxy in front of the site."""
    statuses: Annotated[list[PostStatus], Field(min_length=1, max_length=5)] = [PostStatus.PUBLISH]
    """Which posts to read. What is not published is shown to all readers of the chat: name it only if that is meant."""
    post_types: Annotated[list[ShortText], Field(min_length=1, max_length=16)] = ["post", "page"]
    """Content types to read."""
    root_categories: Annotated[list[ShortText], Field(max_length=32)] = []
    """Keep posts under these root categories (Blogs, Documentation); empty keeps all. Pages always stay."""

    @model_validator(mode="after")
    def _names_nothing_twice(self) -> Self:
        _refuse_repeats("postTypes", self.post_types)
        _refuse_repeats("rootCategories", self.root_categories)
        _refuse_repeats("statuses", [status.value for status in self.statuses])
        return self

    @model_validator(mode="after")
    def _signs_in_once(self) -> Self:
        if self.credentials_secret_ref is not None and self.token_secret_ref is not None:
            raise field_error(
                "tokenSecretRef", "stands beside credentialsSecretRef", "sign in with one of them"
            )
        signs_in = self.credentials_secret_ref is not None or self.token_secret_ref is not None
        if signs_in and self.front_proxy is not None and self.front_proxy.header.lower() == "authorization":
            raise field_error(
                "frontProxy.header",
                "Authorization carries the sign-in to WordPress already",
                "choose another header that the proxy reads, such as Proxy-Authorization",
            )
        if not signs_in and (
            hidden := [status.value for status in self.statuses if status is not PostStatus.PUBLISH]
        ):
            raise field_error(
                "statuses",
                f"{hidden[0]} is shown to signed-in users only",
                "set credentialsSecretRef, or leave publish alone",
            )
        return self


class WebsiteSource(ContractModel):
    """Pages of any web site: its sitemap first, then its links. robots.txt is obeyed."""

    url: HttpUrl
    """Where to begin; only pages of this host are read."""
    max_pages: Annotated[int, Field(ge=1, le=100_000)] = 1000
    """Pages to read at most."""
    requests_per_second: Annotated[float, Field(gt=0, le=20)] = 2.0
    """Rate limit; a Crawl-delay in robots.txt that is slower wins."""
    content_selector: Annotated[str, Field(max_length=253)] = ""
    """CSS selector of the part of a page that is its text; empty finds it."""
    exclude_paths: Annotated[list[ShortText], Field(max_length=64)] = []
    """Paths that begin so are left out, such as `/shop/`."""
    allow_private_addresses: bool = False
    """Read a host whose address is private or link-local, such as an intranet's."""


class MarkdownSource(ContractModel):
    """Markdown files with front matter. Exactly one of `folder` and `s3` is set."""

    folder: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """Folder that the stage can read: on a laptop, or in the trainer image."""
    s3: S3StoreSpec | None = None
    """Bucket and prefix; every `.md` file under it is read."""
    base_url: HttpUrl
    """Address that the files are published under; a file's own `url` in its front matter comes first."""

    @model_validator(mode="after")
    def _lies_in_one_place(self) -> Self:
        if (self.folder is None) == (self.s3 is None):
            found = "has folder and s3" if self.folder else "has neither folder nor s3"
            raise field_error("", found, "set exactly one of folder, s3")
        return self


class PropertyNames(ContractModel):
    """Names of the properties in a collection that others made. An empty name: the collection has no such property."""

    id: ShortText = "postId"
    """Identity; the same over runs."""
    title: ShortText = "postTitle"
    """Title."""
    excerpt: Annotated[str, Field(max_length=253)] = "postExcerpt"
    """Excerpt."""
    content: ShortText = "postContent"
    """Text, as Markdown or HTML."""
    date: Annotated[str, Field(max_length=253)] = "postDate"
    """Date of publication, of type date."""
    author: Annotated[str, Field(max_length=253)] = "postAuthor"
    """Name of the author."""
    categories: Annotated[str, Field(max_length=253)] = "postCategories"
    """Categories: an array, or one text with commas."""
    tags: Annotated[str, Field(max_length=253)] = "postTags"
    """Tags: an array, or one text with commas."""
    url: ShortText = "postUrl"
    """Address that readers open."""


class WeaviateSource(ContractModel):
    """An existing Weaviate collection; it is only read."""

    url: HttpUrl
    """REST address, such as `http://weaviate:8080`."""
    grpc_port: Annotated[int, Field(ge=1, le=65535)] = 50051
    """Port of the gRPC service on the same host."""
    collection: CollectionName
    """Collection to read."""
    api_key_secret_ref: SecretKeyRef | None = None
    """API key; leave out for anonymous access."""
    properties: PropertyNames = PropertyNames()
    """What the nine properties are called there."""


SOURCE_SETTINGS = ("name", "max_delete_fraction")
"""Fields of SourceSpec that are no kind of source."""


class SourceSpec(ContractModel):
    """One place that documents come from. Exactly one kind is set."""

    name: Name
    """Name of the source, unique in the run; part of every document's identity."""
    max_delete_fraction: Annotated[float, Field(ge=0, le=1)] = 0.2
    """A source that has lost more of its documents than this at once stops the run, and nothing is deleted."""
    wordpress: WordPressSource | None = None
    """Read a WordPress site."""
    website: WebsiteSource | None = None
    """Read the pages of a web site."""
    markdown: MarkdownSource | None = None
    """Read Markdown files."""
    weaviate: WeaviateSource | None = None
    """Read a Weaviate collection that others keep."""

    @model_validator(mode="after")
    def _has_exactly_one_kind(self) -> Self:
        _require_one_kind(self, besides=SOURCE_SETTINGS)
        return self


class VectorsSpec(ContractModel):
    """Where the vectors `title`, `excerpt` and `content` come from. Exactly one kind is set."""

    sentence_model: ModelUri | None = None
    """Small sentence model that the dataset stage runs on the CPU (mean of the last layer)."""
    module: (
        Annotated[
            str,
            text_form(r"^text2vec-[a-z0-9-]+$", "write a module such as text2vec-transformers", longest=64),
        ]
        | None
    ) = None
    """Module of the server, such as `text2vec-transformers`; it must be enabled there."""
    module_settings: Annotated[dict[str, ShortText], Field(max_length=16)] = {}
    """Handed to the module, such as `model: text-embedding-3-small`; whole numbers and true or false as such."""

    @model_validator(mode="after")
    def _has_exactly_one_kind(self) -> Self:
        _require_one_kind(self, besides=("module_settings",))
        return self


class WeaviateSpec(ContractModel):
    """A Weaviate server and one collection in it."""

    url: HttpUrl
    """REST address, such as `http://weaviate:8080`."""
    grpc_port: Annotated[int, Field(ge=1, le=65535)] = 50051
    """Port of the gRPC service on the same host."""
    collection: CollectionName = "WordPressPost"
    """Collection with the nine post properties; made when missing, never changed to fit."""
    api_key_secret_ref: SecretKeyRef | None = None
    """API key; leave out for anonymous access."""
    vectors: VectorsSpec | None = None
    """Vectors beside BM25; left out, the collection has none and needs no model."""


class KnowledgeBaseSpec(ContractModel):
    """Where the cleaned documents are kept and searched when readers ask."""

    weaviate: WeaviateSpec | None = None
    """Keep the posts in Weaviate."""


class ExampleKind(StrEnum):
    """What a training example teaches."""

    GROUNDED = "grounded"
    CLOSED_BOOK = "closed_book"
    URL = "url"
    METADATA = "metadata"
    FOLLOW_UP = "follow_up"
    REFUSAL = "refusal"
    GENERATED = "generated"


class PromptFormat(StrEnum):
    """How a question becomes the text that the model sees."""

    CHAT = "chat"
    ALPACA = "alpaca"
    QUESTION_ANSWER = "question-answer"


class SplitSpec(ContractModel):
    """How examples are kept back for evaluation."""

    evaluation: Annotated[float, Field(ge=0.02, le=0.5)] = 0.1
    """Share of the question phrasings that training never sees: the recall set, about documents that were taught."""
    transfer: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """Share of the documents that training never sees: the transfer set. Near-duplicates stay on one side; sites with
    fewer than 100 documents keep all for training."""
    seed: Annotated[int, Field(ge=0, le=2_147_483_647)] = 7
    """Seed of the split; a document keeps its side over runs with the same seed."""


class PersonalDataPolicy(StrEnum):
    """What happens to e-mail addresses, phone numbers and the like. Keys and tokens are always redacted."""

    OFF = "off"
    FLAG = "flag"
    REDACT = "redact"


class GeneratorSpec(ContractModel):
    """A language model that writes questions and answers, for the kind `generated`. What it writes is checked against
    the document, word for word, before it may teach."""

    url: HttpUrl
    """Any OpenAI-compatible endpoint, such as `http://vllm:8000/v1`."""
    model: ShortText
    """Name of the model there."""
    api_key_secret_ref: SecretKeyRef | None = None
    """API key, if the endpoint wants one."""
    max_requests: Annotated[int, Field(ge=1, le=1_000_000)] = 2000
    """Budget of a run; sections beyond it have no generated examples. Answers are kept, and the next run asks on."""
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    """Sampling temperature."""


class DatasetSpec(ContractModel):
    """From documents to training examples."""

    sources: Annotated[list[SourceSpec], Field(min_length=1, max_length=8)]
    """Places that documents come from."""
    knowledge_base: KnowledgeBaseSpec | None = None
    """Where the documents are kept. Left out on a laptop: a local file then serves."""
    example_kinds: Annotated[list[ExampleKind], Field(min_length=1, max_length=8)] = [
        ExampleKind.GROUNDED,
        ExampleKind.CLOSED_BOOK,
        ExampleKind.URL,
        ExampleKind.METADATA,
        ExampleKind.FOLLOW_UP,
        ExampleKind.REFUSAL,
    ]
    """Kinds of examples to make."""
    example_shares: Annotated[
        dict[ExampleKind, Annotated[float, Field(gt=0, le=1)]], Field(max_length=8)
    ] = {}
    """How the kinds mix, such as `grounded: 0.5`; a kind that is not named has its usual share."""
    typo_share: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """Share of the questions that are asked with typing mistakes."""
    generator: GeneratorSpec | None = None
    """Needed by the kind `generated`, and by no other."""
    personal_data: PersonalDataPolicy = PersonalDataPolicy.FLAG
    """E-mail addresses, phone numbers and the like: `flag` counts them in the report, `redact` takes them out."""
    review_file: Annotated[
        str,
        text_form(
            r"^([^/\s]\S*)?$", "write a path below the store's prefix, such as review.csv", longest=512
        ),
    ] = ""
    """CSV of a person's corrections in the store, under its prefix (on a laptop: a file); applied by row id."""
    prompt_format: PromptFormat = PromptFormat.CHAT
    """`chat` uses the model's own template; `question-answer` is for base models that have none."""
    min_documents: Annotated[int, Field(ge=1, le=1_000_000)] = 20
    """Fewer documents than this stop the run before a GPU is asked for."""
    max_examples_per_document: Annotated[int, Field(ge=1, le=200)] = 40
    """Cap, so that a long document does not drown the others."""
    min_examples: Annotated[int, Field(ge=1, le=1_000_000)] = 50
    """Fewer training examples than this stop the run before a GPU is asked for."""
    split: SplitSpec = SplitSpec()
    """How examples are kept back for evaluation."""

    @model_validator(mode="after")
    def _names_nothing_twice(self) -> Self:
        _refuse_repeats("exampleKinds", self.example_kinds)
        _refuse_repeats("sources", [source.name for source in self.sources])
        return self

    @model_validator(mode="after")
    def _has_who_writes_what_is_generated(self) -> Self:
        if ExampleKind.GENERATED in self.example_kinds and self.generator is None:
            raise field_error("generator", "is needed by the kind generated", "set it, or leave the kind out")
        return self


class ComputeDtype(StrEnum):
    """Number format of the computation; `auto` measures the device and takes the faster."""

    AUTO = "auto"
    BFLOAT16 = "bfloat16"
    FLOAT32 = "float32"


class QuantizationSpec(ContractModel):
    """How the frozen base weights are held (QLoRA, arXiv:2305.14314)."""

    type: Annotated[str, text_form(r"^(nf4|fp4)$", "choose nf4 or fp4", longest=8)] = "nf4"
    """4-bit data type."""
    double_quantization: bool = True
    """Quantise the quantisation constants too; saves 0.4 bits a weight."""
    compute_dtype: ComputeDtype = ComputeDtype.AUTO
    """Number format of the matrix products."""


class LoraSpec(ContractModel):
    """The adapter (LoRA, arXiv:2106.09685), on every linear layer of the decoder."""

    rank: LoraRank = 16
    """Width of the adapter matrices; adapter size and memory grow in proportion."""
    alpha: LoraAlpha = 32
    """Scale of the adapter; twice the rank is usual."""
    dropout: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Dropout on the adapter's input while training."""
    rank_stabilized: bool = False
    """Scale by alpha / sqrt(rank) in the place of alpha / rank (rsLoRA, arXiv:2312.03732), for ranks of 64 and more."""


class OptimizerKind(StrEnum):
    """What takes the steps: AdamW, or AdamW with moments of 8 bits, a quarter of the memory."""

    ADAMW = "adamw"
    ADAMW_8BIT = "adamw-8bit"


MOST_TRIALS = 16
"""Trials of a sweep at most."""


class SweepSpec(ContractModel):
    """Settings to try, every combination of them: the adapter with the lowest evaluation loss is taken. A setting that
    is not named, or has no value, stays as the training says."""

    learning_rate: Annotated[list[LearningRate], Field(max_length=MOST_TRIALS)] = []
    """Values of `learningRate`."""
    rank: Annotated[list[LoraRank], Field(max_length=MOST_TRIALS)] = []
    """Values of `lora.rank`; `lora.alpha` stays."""
    alpha: Annotated[list[LoraAlpha], Field(max_length=MOST_TRIALS)] = []
    """Values of `lora.alpha`."""
    epochs: Annotated[list[Epochs], Field(max_length=MOST_TRIALS)] = []
    """Values of `epochs`."""
    embedding_noise: Annotated[list[EmbeddingNoise], Field(max_length=MOST_TRIALS)] = []
    """Values of `embeddingNoise`."""
    parallelism: Annotated[int, Field(ge=1, le=MOST_TRIALS)] = 1
    """Pods that train side by side, each with a GPU of its own; no more of them than trials are started. A pod that
    finds no GPU waits for one. The adapter is the same however many there are."""

    @classmethod
    def settings(cls) -> list[str]:
        """What can be tried, by the name of the Python field."""
        return [name for name in cls.model_fields if name != "parallelism"]

    def values(self) -> dict[str, Sequence[float]]:
        """What is tried, by the name of the Python field; no setting without values."""
        return {name: values for name in self.settings() if (values := getattr(self, name))}

    @model_validator(mode="after")
    def _tries_several_and_not_too_many(self) -> Self:
        for name, values in self.values().items():
            _refuse_repeats(type(self).model_fields[name].alias or name, values)
        sizes = [len(values) for values in self.values().values()]
        trials = math.prod(sizes)
        if trials < 2:
            raise field_error("", "has nothing to compare", "name at least two values of a setting")
        if trials > MOST_TRIALS:
            raise field_error(
                "",
                f"{' x '.join(map(str, sizes))} values make {trials} trials",
                f"at most {MOST_TRIALS}: take values away",
            )
        return self


class TrainingSpec(ContractModel):
    """4-bit QLoRA."""

    epochs: Epochs = 3.0
    """Passes over the training examples."""
    max_steps: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    """Optimizer steps at most; 0 leaves it to `epochs`."""
    learning_rate: LearningRate = 2e-4
    """Peak learning rate, after warm-up, before cosine decay."""
    warmup_ratio: Annotated[float, Field(ge=0, le=0.5)] = 0.05
    """Share of the steps that warm up."""
    sequence_length: Annotated[int, Field(ge=64, le=131_072)] = 1024
    """Longest example in tokens; longer ones are dropped with a reason, never cut."""
    effective_batch_size: Annotated[int, Field(ge=1, le=4096)] = 16
    """Examples an optimizer step sees; micro-batches accumulate to it."""
    micro_batch_size: Annotated[int, Field(ge=1, le=1024)] = 4
    """Examples in memory at once; it must divide `effectiveBatchSize`."""
    gradient_checkpointing: bool = False
    """Recompute activations instead of holding them: less memory, a third more time."""
    lora: LoraSpec = LoraSpec()
    """The adapter."""
    quantization: QuantizationSpec = QuantizationSpec()
    """How the frozen base weights are held."""
    optimizer: OptimizerKind = OptimizerKind.ADAMW
    """What takes the steps; `adamw-8bit` saves six bytes a weight of the adapter."""
    embedding_noise: EmbeddingNoise = 0.0
    """Alpha of the noise on the embeddings while training (NEFTune, arXiv:2310.05914), such as 5; 0 for none."""
    checkpoint_every_seconds: Annotated[int, Field(ge=10, le=86_400)] = 600
    """A killed pod loses at most this much work."""
    evaluate_every_steps: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    """Steps between two measurements of the loss on questions that training never sees; 0 measures as often as costs at
    most 2 % of the time, and in a short run only at its beginning and end."""
    seed: Annotated[int, Field(ge=0, le=2_147_483_647)] = 42
    """Seed of data order, adapter initialisation and dropout."""
    sweep: SweepSpec | None = None
    """Settings to try, each trial on one GPU; the best adapter is taken."""

    @model_validator(mode="after")
    def _micro_batches_fill_the_batch(self) -> Self:
        batch, micro = self.effective_batch_size, self.micro_batch_size
        if batch % micro:
            divisors = [str(size) for size in range(1, min(batch, 1024) + 1) if batch % size == 0]
            raise field_error(
                "microBatchSize",
                f"{micro} does not divide effectiveBatchSize {batch}",
                f"choose {_either(divisors)}",
            )
        return self


class GgufType(StrEnum):
    """Number format of the file that llama.cpp serves."""

    F16 = "f16"
    Q8_0 = "q8_0"
    Q4_0 = "q4_0"
    Q4_K_M = "q4_k_m"


class PackagingSpec(ContractModel):
    """What is made of the adapter."""

    gguf: GgufType = GgufType.Q8_0
    """Number format of the GGUF file; q4_k_m needs half the memory of q8_0 and loses some accuracy."""
    max_loss_increase: Annotated[float, Field(ge=0, le=10)] = 0.2
    """The packaged model's loss on evaluation questions may be this much above the trained adapter's, in nats per
    answer token; more stops the run before anything is stored."""


class GateMetric(StrEnum):
    """A number of the evaluation that a gate may judge."""

    ANSWER_RECALL = "answer_recall"
    ANSWER_F1 = "answer_f1"
    REFUSAL_ACCURACY = "refusal_accuracy"
    STOP_RATE = "stop_rate"


class GateSpec(ContractModel):
    """A condition on the evaluation. At least one of `minimum` and `minimumGain` is set."""

    metric: GateMetric
    """What is judged."""
    minimum: Annotated[float, Field(ge=0, le=1)] | None = None
    """The new model must reach this."""
    minimum_gain: Annotated[float, Field(ge=-1, le=1)] | None = None
    """The new model must be this much above the base model."""

    @model_validator(mode="after")
    def _judges_something(self) -> Self:
        if self.minimum is None and self.minimum_gain is None:
            raise field_error("", "a gate needs minimum or minimumGain", "set one of them, or both")
        return self


class EvaluationSpec(ContractModel):
    """The proof that tuning helped, on questions that training never saw."""

    max_questions: Annotated[int, Field(ge=4, le=2000)] = 60
    """Questions to ask each model."""
    max_answer_tokens: Annotated[int, Field(ge=8, le=1024)] = 96
    """Longest answer."""
    gates: Annotated[list[GateSpec], Field(max_length=16)] = [
        GateSpec(metric=GateMetric.ANSWER_RECALL, minimum_gain=0.05)
    ]
    """All must hold, or the model is kept but not rolled out."""


class StoreSpec(ContractModel):
    """Where datasets, checkpoints, models and reports are kept."""

    s3: S3StoreSpec
    """An S3 bucket. A laptop run keeps the same files in its workspace folder instead."""


class GpuSpec(ContractModel):
    """GPUs for one pod."""

    count: Annotated[int, Field(ge=1, le=16)] = 1
    """How many; training runs one process on each."""
    resource_name: Annotated[
        str,
        text_form(
            r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$",
            "write an extended resource's name such as nvidia.com/gpu",
            shortest=3,
            longest=253,
        ),
    ] = "nvidia.com/gpu"
    """Extended resource of the device plugin."""
    nodes: Annotated[int, Field(ge=1, le=MOST_PODS)] = 1
    """Pods of one training, each with `count` GPUs, on different nodes where it can be. Evaluation takes one pod and
    one GPU."""


class StageResources(ContractModel):
    """What a stage's pod asks for. Requests equal limits, except for CPU, which has no limit."""

    cpu: Quantity = "1"
    """CPU request."""
    memory: Quantity = "4Gi"
    """Memory request and limit."""
    gpu: GpuSpec | None = None
    """GPUs; left out for CPU training of small models."""
    shared_memory: Quantity = "1Gi"
    """Size of /dev/shm."""
    scratch: Quantity = "20Gi"
    """Size of the work folder."""


class ResourcesSpec(ContractModel):
    """Resources by kind of stage: CPU stages never hold a GPU."""

    train: StageResources = StageResources()
    """Training and evaluation."""
    other: StageResources = StageResources()
    """Dataset and packaging."""


class Toleration(ContractModel):
    """A taint that the pods accept."""

    key: Annotated[str, text_form(LABEL_KEY, LABEL_KEY_WORDS, longest=316)] | None = None
    """Taint key; left out with `operator: Exists` tolerates everything."""
    operator: Annotated[str, text_form(r"^(Exists|Equal)$", "choose Exists or Equal", longest=8)] = "Equal"
    """Exists or Equal."""
    value: LabelValue | None = None
    """Taint value."""
    effect: (
        Annotated[
            str,
            text_form(
                r"^(NoSchedule|PreferNoSchedule|NoExecute)$",
                "choose NoSchedule, PreferNoSchedule or NoExecute",
                longest=32,
            ),
        ]
        | None
    ) = None
    """Effect to match; left out matches all."""

    @model_validator(mode="after")
    def _compares_a_value_with_a_key(self) -> Self:
        if self.value and self.operator == "Exists":
            raise field_error(
                "value", "stands beside operator Exists", "leave it out, or set operator to Equal"
            )
        if not self.key and self.operator == "Equal":
            raise field_error("key", "is needed by operator Equal", "name it, or set operator to Exists")
        return self


class SchedulingSpec(ContractModel):
    """Where the pods of GPU stages may run."""

    node_selector: Annotated[dict[str, LabelValue], Field(max_length=16)] = {}
    """Labels that the node must have."""
    tolerations: Annotated[list[Toleration], Field(max_length=16)] = []
    """Taints that the pods accept."""
    priority_class_name: ObjectName | None = None
    """Priority class of the pods."""
    runtime_class_name: ObjectName | None = None
    """RuntimeClass of the pods, such as `nvidia`, where the container runtime needs one for GPUs."""
    queue_name: ObjectName | None = None
    """Kueue LocalQueue. GPU Jobs are made suspended with its label, and wait until Kueue lets them run."""

    @model_validator(mode="after")
    def _selects_by_labels(self) -> Self:
        wrong = next((key for key in self.node_selector if not re.match(LABEL_KEY, key)), None)
        if wrong is not None:
            raise field_error("nodeSelector", f'"{wrong}" is no label\'s key', LABEL_KEY_WORDS)
        return self


class RetriesSpec(ContractModel):
    """How often a stage may be started again, by class of failure. Bad input is never retried."""

    infrastructure: Annotated[int, Field(ge=0, le=20)] = 3
    """Servers that do not answer, Jobs that were deleted, pods that stand still."""
    preemption: Annotated[int, Field(ge=0, le=1000)] = 20
    """Pods that gave way to more important ones; they resume from the last checkpoint. What Kueue takes is free."""
    eviction: Annotated[int, Field(ge=0, le=1000)] = 10
    """Pods that a drained or overfull node put out; they resume from the last checkpoint."""
    node_loss: Annotated[int, Field(ge=0, le=1000)] = 10
    """Pods whose node went away; they resume from the last checkpoint."""
    image_pull: Annotated[int, Field(ge=0, le=20)] = 3
    """Images that cannot be pulled for five minutes."""
    out_of_memory: Annotated[int, Field(ge=0, le=20)] = 6
    """Steps down when the GPU's memory runs out (see `policy.outOfMemory`)."""


class OutOfMemoryStrategy(StrEnum):
    """What to do when the GPU's memory runs out."""

    REDUCE_MEMORY = "ReduceMemory"
    FAIL = "Fail"


class OutOfMemorySpec(ContractModel):
    """What the next attempt of the training does about it when the GPU's memory ran out."""

    strategy: OutOfMemoryStrategy = OutOfMemoryStrategy.REDUCE_MEMORY
    """ReduceMemory halves `microBatchSize` down to 1 at the same `effectiveBatchSize`, then sets
    `gradientCheckpointing`; Fail ends the run."""
    min_sequence_length: Annotated[int, Field(ge=64, le=131_072)] | None = None
    """With ReduceMemory: at last halve `sequenceLength`, but not below this. Left out, no example is dropped for it."""


class BudgetSpec(ContractModel):
    """What a run may cost. One that is stopped keeps its checkpoints: a new one with more budget goes on from them."""

    max_gpu_hours: Annotated[
        Annotated[float, Field(gt=0, le=1_000_000)] | None, Field(alias="maxGPUHours")
    ] = None
    """Hours times GPUs over all attempts; the run is stopped before it takes more."""
    idle_gpu_stop_seconds: Annotated[int, Field(ge=0, le=604_800, alias="idleGPUStopSeconds")] = 1800
    """A pod that holds a GPU and tells of no new step for this long is stopped and started again; 0 never does."""


class PolicySpec(ContractModel):
    """Limits of a run."""

    retries: RetriesSpec = RetriesSpec()
    """Budgets by class of failure."""
    out_of_memory: OutOfMemorySpec = OutOfMemorySpec()
    """When the GPU's memory runs out."""
    budget: BudgetSpec = BudgetSpec()
    """What the run may cost."""
    stage_deadline_seconds: Annotated[int, Field(ge=60, le=2_592_000)] = 86_400
    """One attempt of a stage may take this long."""
    queue_deadline_seconds: Annotated[int, Field(ge=0, le=31_536_000)] = 86_400
    """An attempt may wait this long for a queue or a node; 0 waits as long as it takes."""
    active_deadline_seconds: Annotated[int, Field(ge=0, le=31_536_000)] = 0
    """Pods of training and evaluation may hold nodes this long, all attempts together; waiting and suspension do not
    count. 0 sets no limit."""


class DeploymentTarget(ContractModel):
    """The Deployment that serves the model, and the two containers in it that read which one."""

    name: ObjectName
    """Deployment in the run's namespace."""
    others: Annotated[list[ObjectName], Field(max_length=8)] = []
    """Further Deployments with the same two containers, each rolled out once the one before serves the model. When one
    fails, it alone gets its previous model back, and the ones after it are left as they are."""
    fetch_container: Name = "model-fetch"
    """Init container that downloads the model; gets MODEL_URI and MODEL_MANIFEST_SHA256."""
    server_container: Name = "model-server"
    """Container, or native sidecar, that serves it; gets MODEL_ID."""

    @model_validator(mode="after")
    def _names_each_once(self) -> Self:
        _refuse_repeats("others", [self.name, *self.others])
        return self


class RolloutTarget(ContractModel):
    """What is rolled to the new model. Exactly one kind is set."""

    deployment: DeploymentTarget | None = None
    """A Deployment."""

    @model_validator(mode="after")
    def _has_exactly_one_kind(self) -> Self:
        _require_one_kind(self)
        return self


class RolloutMode(StrEnum):
    """Who decides that the new model goes live."""

    AUTOMATIC = "Automatic"
    MANUAL = "Manual"
    PUBLISH = "Publish"
    NONE = "None"


class SmokeTestSpec(ContractModel):
    """Try the model in a Job with the target's own images, flags and limits before the target is changed."""

    questions: Annotated[int, Field(ge=0, le=20)] = 5
    """So many questions that the model answered right in the evaluation are asked again; 0: no smoke test."""
    min_right: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of them that must be answered right. A quantised model may miss one or the other."""


class ServiceCheckSpec(ContractModel):
    """While the model goes live, the target's Service is asked as readers ask it; without one, its pods alone."""

    name: ObjectName | None = None
    """Service of the target; left out, the one that selects its pods is found. Those of target.deployment.others are
    always found."""
    chat_path: Annotated[
        str, text_form(r"^/[A-Za-z0-9._~/-]*$", "write a path such as /api/chat", longest=200)
    ] = "/api/chat"
    """Where the site takes questions, as finetune_chat does."""
    questions: Annotated[int, Field(ge=0, le=MOST_READER_QUESTIONS)] = 3
    """So many questions that the model answered right in the evaluation are asked through the Service; 0: none."""
    min_right: Annotated[float, Field(gt=0, le=1)] = 0.3
    """Share of them that must be answered right, or the previous model is put back. The site finds its own sources, and
    not always those of the evaluation: one of three tells a model that serves from one that is broken."""
    max_error_rate: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Share of the requests, one a second and three failed ones at least, above which the previous model is put back;
    1: never. They count from the change of the target to the end of the observation."""


class RolloutSpec(ContractModel):
    """How the new model goes live."""

    mode: RolloutMode = RolloutMode.AUTOMATIC
    """Automatic rolls after the gates pass, Manual waits for `approved`, Publish only writes the three values into
    ConfigMap `DEPLOYMENT-model` for whoever changes Git, None only stores the model."""
    approved: bool = False
    """With mode Manual: set to true to go live."""
    target: RolloutTarget | None = None
    """What is rolled; needed unless mode is None."""
    timeout_seconds: Annotated[int, Field(ge=30, le=86_400)] = 900
    """After this long without success the previous model is put back."""
    max_drop: Annotated[float, Field(ge=0, le=1)] = 0.15
    """How far a metric of a gate may lie below what the live model reached in its own evaluation; 1 allows anything.
    With mode Manual it is only told. The questions change with the site, so small drops mean little."""
    smoke_test: SmokeTestSpec = SmokeTestSpec()
    """Before any reader meets the model. May be changed until then."""
    observation_seconds: Annotated[int, Field(ge=10, le=3600)] = 10
    """New pods that serve are watched for so long, on top of timeoutSeconds. A crash of the model server or a wrong
    answer about its model puts the previous model back; only then is the run done."""
    service: ServiceCheckSpec = ServiceCheckSpec()
    """What readers meet, asked from outside the pods. May be changed."""
    force: bool = False
    """Take the three variables also from another field manager that declares them, such as a Git tool. One that applies
    them again gets them back: the run then ends with RevertedByOtherManager."""
    serving_port: Annotated[int, Field(ge=1, le=65535)] = 8000
    """Port of the pods where `/readyz` names the model that is loaded."""

    @model_validator(mode="after")
    def _knows_what_is_rolled(self) -> Self:
        if self.mode is not RolloutMode.NONE and self.target is None:
            raise field_error(
                "target",
                f"is needed with mode {self.mode.value}",
                "name the Deployment in target.deployment.name, or set mode to None",
            )
        deployment = self.target.deployment if self.target else None
        if self.mode is RolloutMode.PUBLISH and deployment is not None and deployment.others:
            raise field_error(
                "target.deployment.others",
                "is set with mode Publish, which writes the record of one Deployment",
                "make a run for each, or set mode to Automatic or Manual",
            )
        return self


class LastStage(StrEnum):
    """Where a run may end."""

    DATASET = "dataset"
    EVALUATE = "evaluate"


Digest = Annotated[
    str, text_form(r"^[0-9a-f]{64}$", "write a sha256: 64 digits and letters a to f", longest=64)
]
"""A sha256, as the status of a run shows it."""


class CompareWithSpec(ContractModel):
    """Work that is finished. A FineTuneSchedule fills this in for the runs that it makes."""

    run_key: Digest | None = None
    """`status.runKey` of a run: one that comes to the same key ends `Unchanged`, and nothing is trained or rolled
    out."""
    dataset_digest: Digest | None = None
    """`status.dataset.digest` of a run: documents that came, went or changed since are counted."""


class FineTuneRunSpec(ContractModel):
    """Read the sources, build a dataset, tune the model, prove it, store it, roll it out."""

    base_model: BaseModelSpec
    """The model that is tuned."""
    dataset: DatasetSpec
    """From documents to training examples."""
    store: StoreSpec
    """Where datasets, checkpoints, models and reports are kept."""
    training: TrainingSpec = TrainingSpec()
    """4-bit QLoRA."""
    packaging: PackagingSpec = PackagingSpec()
    """What is made of the adapter."""
    evaluation: EvaluationSpec = EvaluationSpec()
    """The proof that tuning helped."""
    rollout: RolloutSpec = RolloutSpec(mode=RolloutMode.NONE)
    """How the new model goes live."""
    resources: ResourcesSpec = ResourcesSpec()
    """What the pods ask for."""
    scheduling: SchedulingSpec = SchedulingSpec()
    """Where GPU pods may run."""
    policy: PolicySpec = PolicySpec()
    """Limits of a run."""
    last_stage: LastStage = LastStage.EVALUATE
    """`dataset` ends the run when the dataset is stored, for a look at it before a GPU is asked for."""
    compare_with: CompareWithSpec | None = None
    """What is finished already."""
    trainer_image: (
        Annotated[
            str,
            text_form(
                r"^\S+$",
                "write an image such as registry.example/finetune-trainer@sha256:DIGEST",
                shortest=1,
                longest=512,
            ),
        ]
        | None
    ) = None
    """Image of the stages; the operator's own setting when left out. Pin it by digest in production."""
    service_account_name: ObjectName | None = None
    """Service account of all stages' pods: for a cloud identity, or for registry credentials. They get no API token."""
    suspend: bool = False
    """Stop the running stage and wait. May be changed."""
    cancel: bool = False
    """End the run for good. May be set once."""
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=31_536_000)] = 86_400
    """Finished Jobs and their scratch space are removed after this long, ten minutes at the soonest; the run itself
    stays. May be changed, for Jobs that are still to come."""

    @model_validator(mode="after")
    def _rolls_out_only_what_was_judged(self) -> Self:
        if self.rollout.mode is RolloutMode.AUTOMATIC and not self.evaluation.gates:
            raise field_error(
                "evaluation.gates",
                "is empty, and rollout.mode is Automatic",
                "add a gate, or set rollout.mode to Manual",
            )
        return self

    @model_validator(mode="after")
    def _sweeps_on_one_gpu(self) -> Self:
        gpu = self.resources.train.gpu
        if self.training.sweep is not None and gpu is not None and gpu.count * gpu.nodes > 1:
            raise field_error(
                "training.sweep",
                f"trains each trial on one GPU, and resources.train.gpu asks for {gpu.count * gpu.nodes}",
                "set its count and nodes to 1 (training.sweep.parallelism trains trials side by side), or leave the "
                "sweep out",
            )
        return self


def _refuse_repeats(field: str, names: Sequence[str | float]) -> None:
    """A list that is a set: each name once."""
    twice = next((name for index, name in enumerate(names) if name in names[:index]), None)
    if twice is not None:
        raise field_error(field, f"{twice} is there twice", "name each once")


def _require_one_kind(model: ContractModel, besides: tuple[str, ...] = ()) -> None:
    """A union in the Kubernetes way: one optional field a kind, exactly one of them set."""
    fields = {
        field.alias or name: name for name, field in type(model).model_fields.items() if name not in besides
    }
    present = [alias for alias, name in fields.items() if getattr(model, name) is not None]
    if len(present) != 1:
        found = f"has {' and '.join(present)}" if present else "has no kind"
        raise field_error("", found, f"set exactly one of {', '.join(fields)}")


def _either(options: Sequence[str]) -> str:
    """`1, 2 or 4`; at most twelve of them."""
    options = options if len(options) <= 12 else [*options[:11], options[-1]]
    return options[0] if len(options) == 1 else f"{', '.join(options[:-1])} or {options[-1]}"
