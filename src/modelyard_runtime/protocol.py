"""What the yard's server and the programs beside user code tell each other: names, defaults and checks, once for both sides.

Every message is a dataclass that is sent as a JSON document, in a file or over a socket. A field that is not known is left out and one
that is missing takes its default, so that what another version wrote can be read; a value of the wrong type raises `Malformed`.
"""

import dataclasses
import enum
import functools
from typing import Any, Callable, Dict, List, Optional, Tuple, Type, TypeVar, Union, cast, get_type_hints

BATCHING_FILE = "together"
"""The file beside a model server's socket that says: requests that are pipelined on one connection are predicted in one call."""
MAX_BODY = 100 * 2**20
"""Bytes of a request's body that an endpoint takes: the router and the model server refuse more."""
STARTUP_FILE = "startup.json"
"""The file beside a model server's socket that holds its StartupReport."""
MAX_REPORT = 64 * 1024
"""Bytes of a StartupReport that are read: user code could write there."""
MAX_MESSAGE = 2000
"""Characters of a StartupReport's texts."""

T = TypeVar("T")
Reader = Callable[[Any], Any]


class Malformed(ValueError):
    """A document is not the message that it should be; the text names the field."""


# Supervision


class Reason(str, enum.Enum):
    """Why a command is over."""

    EXITED = "exited"
    SIGNAL = "signal"
    TIMEOUT = "timeout"
    CANCELED = "canceled"
    LOST = "lost"
    """Its runner vanished and left no record, and nothing of the command was there: nobody knows how it ended."""
    RUNNER_KILLED = "runner_killed"
    """Its runner was killed while the command went on; the supervisor ended the command."""
    FAILED_TO_START = "failed_to_start"
    OUT_OF_MEMORY = "out_of_memory"

    __str__ = str.__str__


ENDS_OF_COMMANDS = (Reason.EXITED, Reason.SIGNAL, Reason.TIMEOUT, Reason.OUT_OF_MEMORY)
"""Of a command that ran: its own log says more than what the yard noted."""


@dataclasses.dataclass
class Confinement:
    """What a process may touch, as `sandbox.enter` carries it out."""

    writable: List[str]
    readable: List[str]
    uid: Union[int, str, None] = None
    """A user id; "own": the supervisor chooses one that nobody has; None: the user stays."""
    namespace: bool = False
    landlock: bool = False
    private: bool = False
    """A view of the mounts of its own: `/dev/shm`, `/tmp` (which is `tmp`; closed where the yard lies in `/tmp`) and, as root, a `/proc` without the processes of others. Without
    root by a user namespace, which has no others below it."""
    tmp: Optional[str] = None
    hidden: List[str] = dataclasses.field(default_factory=list)
    """Folders that are empty in a private view, but for what of `writable` and `readable` lies in them."""
    tcp: Optional[List[int]] = None
    """The only TCP ports that may be connected to, where Landlock can see to it (its ABI 4, Linux 6.7); None: any."""


@dataclasses.dataclass
class ControlGroup:
    """Folders of the control groups that a command runs in, of one hierarchy or several; None where the machine has none that we may use."""

    kill: Optional[str] = None
    """Has `cgroup.kill`."""
    memory: Optional[str] = None
    pids: Optional[str] = None


@dataclasses.dataclass
class WarmStart:
    """A warm interpreter that may fork the command instead of starting it, and the script that it shall run."""

    folder: str
    key: str
    script: str
    arguments: List[str]


@dataclasses.dataclass
class JobRequest:
    """One command for a runner. `folder` is where it leaves its records: user code cannot write there."""

    id: str
    argv: List[str]
    cwd: str
    environment: Dict[str, str]
    folder: str
    log: str
    log_limit: int
    keep_log: bool = False
    """A log at its limit is begun anew, and one older part is retained; otherwise what follows is dropped and counted."""
    sandbox: Optional[Confinement] = None
    own: List[str] = dataclasses.field(default_factory=list)
    """Paths that are handed to the user of the sandbox."""
    timeout_s: Optional[float] = None
    memory_bytes: Optional[int] = None
    memory_by_group_only: bool = False
    """The limit holds only where a control group carries it: the resident sizes of processes that share pages add up to more than they use."""
    cgroup: Optional[ControlGroup] = None
    """Chosen by the supervisor, as is `mark`."""
    mark: str = ""
    """What the variable `processes.MARK` of the command says."""
    sample_s: float = 0
    """Seconds between samples of what the command uses of the machine; 0 for none."""
    cpus: int = 1
    warm: Optional[WarmStart] = None


@dataclasses.dataclass(frozen=True)
class ExitRecord:
    """How a command ended: `exit.json` in the folder of its request, and the supervisor's answer to `wait`."""

    reason: Reason
    code: Optional[int]
    """The exit code; None when it has none, such as after a signal."""
    message: str = ""
    started_ms: Optional[int] = None
    ended_ms: Optional[int] = None
    usage: Dict[str, float] = dataclasses.field(default_factory=dict)
    """cpu_s and max_rss_bytes of the whole tree; of a command that was ended for its memory also memory_peak_bytes and memory_limit_bytes."""
    start: str = ""
    """`warm` when a warm interpreter forked the process, else `new`."""
    log_dropped_bytes: int = 0


# Builds


@dataclasses.dataclass
class BuildStep:
    argv: List[str]
    optional: bool = False
    """The next step follows even when this one fails."""


@dataclasses.dataclass
class Egress:
    """Where the proxy of a build connects to: public addresses, and what is listed here, each as `HOST[:PORT][=PURPOSE]`."""

    allowed: List[str]
    private: bool = False
    """Networks beyond this machine are open too, since every address of these steps is the operator's."""
    proxies: Dict[str, str] = dataclasses.field(default_factory=dict)
    """The operator's own `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy`."""
    uid: Optional[int] = None
    """The user that the proxy runs as; None: the yard's."""


@dataclasses.dataclass
class BuildRequest:
    """Steps that run one after another, in one sandbox and one network. May hold credentials: it is handed over by standard input."""

    steps: List[BuildStep]
    environment: Dict[str, str]
    folder: str
    """Where they run."""
    egress: Egress
    seconds: float
    sandbox: Optional[Confinement] = None
    alone: bool = False
    """Nobody else has the sandbox's user: what an earlier build of that user left is ended first."""


# Warm interpreters


@dataclasses.dataclass
class ForkRequest:
    """What a runner asks of a warm interpreter."""

    script: str
    arguments: List[str]
    cwd: str
    environment: Dict[str, str]
    sandbox: Optional[Confinement] = None


@dataclasses.dataclass
class Usage:
    """Of a process and all that it has waited for."""

    cpu_s: float = 0.0
    max_rss_bytes: int = 0


@dataclasses.dataclass
class ForkEnd:
    """How a forked command ended. `status` is a wait status."""

    status: int
    usage: Usage
    not_started: str = ""
    """Why the script was not even begun; empty when it was."""


# Serving


@dataclasses.dataclass
class RouterConfig:
    host: str
    port: int
    routes: str
    """The file of the RouteTable."""
    control: str
    """The unix socket on which the control plane says that the table has changed."""
    log: str


@dataclasses.dataclass
class TokenSource:
    """Whose tokens open an endpoint: public keys, whom the tokens are for, and, for an issuer's, which callers are let in."""

    audience: str
    keys: List[str]
    issuer: Optional[str] = None
    callers: Optional[List[str]] = None


@dataclasses.dataclass
class DeploymentRoute:
    """Where the requests of one deployment go.

    `timeout_ms` reaches the model server as well (`ModelServerConfig`): the router answers 408 when it is over, and the model server,
    whose process cannot be freed otherwise, ends.
    """

    name: str
    generation: int
    sockets: List[str]
    timeout_ms: int
    queue_ms: int
    concurrent: Tuple[int, int]
    """Requests that a replica holds at a time: one that runs them alone, and one that predicts several in one call."""
    rate: Optional[Tuple[float, float]] = None
    """[requests, seconds]"""


@dataclasses.dataclass
class EndpointRoute:
    keys: List[str]
    """SHA-256 digests, in hexadecimal: the router never holds a key."""
    deployments: List[DeploymentRoute]
    traffic: Dict[str, float]
    mirror: Dict[str, float] = dataclasses.field(default_factory=dict)
    tokens: Optional[List[TokenSource]] = None
    open: bool = False
    """Whether it answers without a key or token."""


@dataclasses.dataclass
class RouteTable:
    """workspace/endpoint → where its requests go."""

    endpoints: Dict[str, EndpointRoute] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class DeploymentLoad:
    endpoint: str
    """workspace/endpoint, as everywhere in what the router reports."""
    deployment: str
    most: int
    """Requests that it held at a time since the last report."""
    takes: int
    """Requests that one instance of it takes at a time."""


@dataclasses.dataclass
class LoadReport:
    deployments: List[DeploymentLoad]


@dataclasses.dataclass
class Answered:
    endpoint: str
    deployment: str
    status: int
    """Of HTTP; 0 of a mirrored request that was dropped."""
    kind: str
    """Empty, `mirror` or `mirror dropped`."""
    count: int


@dataclasses.dataclass
class AnswerTimes:
    endpoint: str
    deployment: str
    buckets: List[int]
    """Answers by the bounds of the report, and last those that took longer."""
    count: int
    sum_ms: float


@dataclasses.dataclass
class DeploymentGauges:
    endpoint: str
    deployment: str
    in_flight: int
    waiting: int
    instances: int


@dataclasses.dataclass
class RouterReport:
    """What the router has counted since it was started."""

    bounds_ms: List[int]
    answered: List[Answered]
    times: List[AnswerTimes]
    deployments: List[DeploymentGauges]


class ModelKind(str, enum.Enum):
    SCRIPT = "script"
    MLFLOW = "mlflow"

    __str__ = str.__str__


@dataclasses.dataclass
class ModelServerConfig:
    socket: str
    kind: ModelKind
    kit: str
    """The folder of httptools, uvloop, orjson and werkzeug, for the end of `sys.path`."""
    timeout_ms: int
    code: Optional[str] = None
    script: Optional[str] = None
    model_dir: Optional[str] = None
    name: str = "model"
    version: str = "1"
    twin: Optional[str] = None
    """The path of the model's ONNX twin; None for a model without one."""
    batching: Optional[int] = None
    """Rows of several requests that are predicted in one call at most, whatever the model is; None: where that is proven to change no answer."""
    max_body: int = MAX_BODY
    peers: List[int] = dataclasses.field(default_factory=list)
    """The users who are answered, besides root: the router's and the server's. Everybody when empty."""


class StartupState(str, enum.Enum):
    READY = "ready"
    FAILED = "failed"

    __str__ = str.__str__


@dataclasses.dataclass
class StartupReport:
    """What a model server says of its own start, for a person to read. Its process runs user code, so nothing is decided by it."""

    state: StartupState
    message: str = ""
    """Why the model could not be loaded."""
    twin: str = ""
    """Whether the ONNX twin is used, and why not; empty when none was asked for."""
    batching: str = ""
    """Whether requests that meet are predicted in one call, and why not."""


# Documents


def document(message: Any) -> Dict[str, Any]:
    """A message as it is written."""
    return dataclasses.asdict(message)


def read(kind: Type[T], written: Any) -> T:
    """The message that a JSON document stands for. Raises Malformed."""
    if not isinstance(written, dict):
        raise Malformed("%s is an object, not %s" % (kind.__name__, type(written).__name__))
    values: Dict[str, Any] = {}
    for name, convert, needed in _fields(cast(Any, kind)):
        if name in written:
            try:
                values[name] = convert(written[name])
            except Malformed as problem:
                raise Malformed("%s.%s: %s" % (kind.__name__, name, problem)) from None
        elif needed:
            raise Malformed("%s lacks %s" % (kind.__name__, name))
    return kind(**values)


@functools.lru_cache(maxsize=None)
def _fields(kind: Any) -> List[Tuple[str, Reader, bool]]:
    """(name, how it is read, whether it must be there) of every field."""
    hints = get_type_hints(kind)
    return [
        (field.name, _reader(hints[field.name]), field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING)
        for field in dataclasses.fields(kind)
    ]


def _reader(hint: Any) -> Reader:
    """What checks a JSON value against a type, and makes it one."""
    if hint is Any:
        return lambda value: value
    origin = getattr(hint, "__origin__", None)
    parts: Tuple[Any, ...] = getattr(hint, "__args__", ())
    if origin is Union:
        return functools.partial(_one_of, [_reader(part) for part in parts])
    if origin is list:
        return functools.partial(_list_of, _reader(parts[0]))
    if origin is tuple:
        return functools.partial(_tuple_of, [_reader(part) for part in parts])
    if origin is dict:
        return functools.partial(_map_of, _reader(parts[1]))
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return functools.partial(read, hint)
    if issubclass(hint, enum.Enum):
        return functools.partial(_member, hint)
    return functools.partial(_plain, (int, float) if hint is float else (hint,), hint is bool)


def _plain(kinds: Tuple[type, ...], boolean: bool, value: Any) -> Any:
    if not isinstance(value, kinds) or isinstance(value, bool) != boolean:
        raise Malformed("%s is expected, not %s" % (" or ".join(kind.__name__ for kind in kinds), type(value).__name__))
    return value


def _member(kind: Type[enum.Enum], value: Any) -> Any:
    try:
        return kind(value)
    except ValueError:
        raise Malformed("%r is not one of %s" % (value, ", ".join(str(member.value) for member in kind))) from None


def _one_of(readers: List[Reader], value: Any) -> Any:
    first = None
    for reader in readers:
        try:
            return reader(value)
        except Malformed as problem:
            first = first or problem
    raise first or Malformed("nothing is expected")


def _list_of(reader: Reader, value: Any) -> Any:
    if not isinstance(value, (list, tuple)):
        raise Malformed("a list is expected, not %s" % type(value).__name__)
    return [reader(item) for item in value]


def _tuple_of(readers: List[Reader], value: Any) -> Any:
    if not isinstance(value, (list, tuple)) or len(value) != len(readers):
        raise Malformed("a list of %d items is expected" % len(readers))
    return tuple(reader(item) for reader, item in zip(readers, value))


def _map_of(reader: Reader, value: Any) -> Any:
    if not isinstance(value, dict):
        raise Malformed("an object is expected, not %s" % type(value).__name__)
    return {str(key): reader(item) for key, item in value.items()}
