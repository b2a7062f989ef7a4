"""The manifest of a finished run, `run.json`: what was asked, of which models, by which versions,
and what came back.

One model for all verbs. Each section says which verb writes it; what a run has not is at its
default. Fields that are read by other rooms are typed here, anything else that a verb records stays
readable as an attribute.
"""

from collections.abc import Mapping

from pydantic import Field

from franken.errors import FrankenError
from franken.runs.files import Stored

SCHEMA = 1


class GitCommit(Stored):
    """The commit of franken's source, and whether files in it were changed since."""

    commit: str
    dirty: bool


class Graft(Stored):
    """What a hybrid is made of: `layers` (ranges as typed) of a donor, whole pieces that it gives
    besides (`take`: vision, embed, …), and further (donor, layers) in `more`; `keep` or `drop`
    where it is a part of the donor's update.
    """

    label: str = ""
    donor: str = ""
    layers: str = ""
    take: list[str] = []
    more: list[list[str]] = []
    keep: str = ""
    drop: str = ""


class Config(Stored):
    """The resolved options of a run, as far as others read them."""

    tasks: list[str] | None = None
    samples: int | None = None  # held-out puzzles, or pairs, per task
    n: int | None = None  # draws per prompt
    k: list[int] | int = []  # eval, compare: of acc@k; diff: directions of a subspace
    arms: list[str] = []  # eval
    methods: list[str] = []  # probe
    part: str = "text"  # probe: whose layers
    against: str | None = None  # probe of two models: the second's hash
    seed: int = 0
    data: str | None = None
    graft: Graft | None = None  # eval of a hybrid
    models: list[str] = []  # compare: labels, in order
    window: int | None = None  # merge-sweep: layers of a window
    depth: int | None = None  # merge-sweep: decoder layers
    threshold: float = 0.1  # forks: the JS above which a token is one, in nats

    @property
    def acc_at(self) -> list[int]:
        """The k of acc@k, of verbs that draw answers."""
        return self.k if isinstance(self.k, list) else []


class Identity(Stored):
    """What changes the numbers, as far as others read it; models are content hashes."""

    model: str | None = None  # eval, regrade
    checkpoint: str | None = None  # probe
    against: str | None = None  # probe of two models: the second
    donor: str | None = None  # eval of a hybrid
    checkpoints: dict[str, str] = {}  # diff, trajectory: stage → hash
    models: list[str] = []  # merge-sweep: the base's, then the donor's; forks: a's, then b's


class FallTest(Stored):
    """probe: two tasks of one world, and how many layers later the second is read, paired by image:
    the difference with its 95 % interval, the sign-flip p, and p after Holm over the task pairs.
    """

    tasks: tuple[str, str]
    difference: float
    ci: tuple[float, float]
    p: float
    n: int
    p_adjusted: float | None = None


class ShareTest(Stored):
    """diff: the share of ‖Δ‖² in the middle and late layers, the share that equal layers would
    have, and p by shuffled and by circularly shifted layers (`franken.diff.location`).
    """

    share: float
    expected: float
    p: float
    p_shift: float
    n: int


class Location(Stored):
    """diff: where in a part the update `method` (`sft→rl`) is. Shares are null where nothing
    changed.
    """

    method: str
    part: str
    energy_share: float | None
    element_share: float | None
    thirds: dict[str, float | None] = {}
    test: ShareTest | None = None


class TrajectoryRecord(Stored):
    """trajectory: a run, and after which of its updates its checkpoints were taken."""

    run: str
    updates: list[int]


class Mixture(Stored):
    """diff: how far the update `method` moved the experts and the router of a layer. Relative to
    the earlier norm: `router`, and of the experts the least, the median and the largest; `expert`
    is the one with the largest share of the experts' ‖Δ‖² (null where none moved), `unmoved` how
    many are bit-equal.
    """

    method: str
    layer: int
    router: float | None
    experts: int
    least: float | None
    median: float | None
    largest: float | None
    expert: int | None
    share: float | None
    unmoved: int


class Band(Stored):
    """merge-sweep, scores: lowest, mean and highest gain over `n` random layer sets."""

    low: float
    mean: float
    high: float
    n: int


class ForkPair(Stored):
    """forks: at `n` forks of a model's replies a would rather say one word, and b another."""

    model: str
    a: str
    b: str
    n: int


class Manifest(Stored):
    """Everything a run folder says of itself, beside its rows."""

    schema_version: int = Field(default=SCHEMA, alias="schema")
    verb: str
    label: str
    argv: list[str] = []
    config: Config = Config()
    identity: Identity = Identity()
    models: dict[str, str] = {}
    franken: str | None = None
    git: GitCommit | None = None
    python: str = ""
    packages: dict[str, str | None] = {}
    threads: str | None = None
    time: str = ""
    n_requested: int
    n_ok: int
    n_failed: int
    seconds: float = 0.0
    warnings: list[str] = []

    fall_tests: list[FallTest] = []
    location: list[Location] = []
    trajectories: list[TrajectoryRecord] = []
    mixtures: list[Mixture] = []
    band: dict[str, dict[str, Band]] = {}  # metric → task → band
    answers_requested: int = 0  # compare: of the evaluations that are compared
    answers_failed: int = 0
    fork_pairs: list[ForkPair] = []  # forks: what the two would rather say there
    source: str = ""  # regrade: the run that was judged again
    changes: dict[str, dict[str, int]] = {}  # regrade: task → how many verdicts moved which way


def check_models(manifest: Manifest, folder: object) -> None:
    """Raise FrankenError where the manifest of a run of several models does not say which."""
    identity = manifest.identity
    several = dict.fromkeys(("merge-sweep", "forks"), identity.models)
    paired = dict.fromkeys(("diff", "trajectory"), identity.checkpoints)
    named: Mapping[str, object] = {**paired, **several}
    if not named.get(manifest.verb, True):
        why = "its run.json does not say of which models it is"
        raise FrankenError(f"{folder} is damaged", why, "delete it and run its command again")
