"""Settings of one running platform, and where its home folder keeps what."""

from dataclasses import dataclass
from pathlib import Path

ENGINES = ("local",)  # names that `cloche up --engine` takes; `cloche.app` has the engines


@dataclass(frozen=True, slots=True)
class Home:
    """The folder that holds everything the platform keeps."""

    path: Path

    @property
    def database(self) -> Path:
        """The records: resources, the index of objects, metrics."""
        return self.path / "cloche.db"

    @property
    def secrets(self) -> Path:
        """Keys and tokens that must be kept in clear, apart from the records (mode 0600)."""
        return self.path / "secrets.db"

    @property
    def choices(self) -> Path:
        """The options of the last `cloche up`, for the next one."""
        return self.path / "choices.json"

    @property
    def events(self) -> Path:
        """Who did what: every call, in files of bounded size."""
        return self.path / "events"

    @property
    def blobs(self) -> Path:
        """S3 object bodies, immutable."""
        return self.path / "blobs"

    @property
    def logs(self) -> Path:
        """CloudWatch log streams, one file each."""
        return self.path / "logs"

    @property
    def runs(self) -> Path:
        """The engine's run directories: one per gang."""
        return self.path / "runs"

    @property
    def data_checks(self) -> Path:
        """What was found in the pictures that jobs train on, by content."""
        return self.path / "data-checks"

    @property
    def instances(self) -> Path:
        """What stands behind `/opt/ml` of each training host and replica."""
        return self.path / "instances"

    @property
    def warm_pools(self) -> Path:
        """What warm pools keep for the next training job: a folder a pool, in it one a host."""
        return self.path / "warm-pools"

    @property
    def environments(self) -> Path:
        """What stands behind framework images: built virtual environments."""
        return self.path / "environments"

    @property
    def builds(self) -> Path:
        """Run directories of the sandboxes in which packages for environments are installed."""
        return self.path / "builds"

    @property
    def layers(self) -> Path:
        """What jobs' requirements.txt add to environments, by content."""
        return self.path / "layers"

    @property
    def environments_table(self) -> Path:
        """Environments that the user added."""
        return self.path / "environments.json"

    @property
    def authority(self) -> Path:
        """The local certificate authority and the bundle that clients trust."""
        return self.path / "authority"

    @property
    def bundle(self) -> Path:
        """Certificates that clients trust: the public ones and the local authority's (PEM)."""
        return self.authority / "bundle.pem"

    @property
    def credentials(self) -> Path:
        """The keys that `cloche env` prints (mode 0600)."""
        return self.path / "credentials.json"

    @property
    def server(self) -> Path:
        """Pid, address and settings of the server that is up."""
        return self.path / "server.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The options of `cloche up`."""

    home: Home
    host: str = "127.0.0.1"
    port: int = 4599  # the HTTPS proxy listens on the next one
    region: str = "us-east-1"
    account: str  # 12 digits
    engine: str = ENGINES[0]  # what runs jobs and replicas
    allow_egress: tuple[str, ...] = ()  # CIDRs that user code may reach besides public addresses
    host_names: tuple[str, ...] = ()  # names that browsers may use for this server, lower case
    public_buckets: tuple[str, ...] = ()  # of the real S3, besides the known ones
    pass_foreign_keys: bool = False  # whether reads that other accounts' keys signed go to it
    gpu_instances: str = "cpu"  # "cpu": their types run on CPUs; "refuse": they are refused
    s3_address: str | None = None  # HOST:PORT where the real S3's names are reached

    @property
    def client_host(self) -> str:
        """The host that clients on this machine use; IPv6 in brackets."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"[{host}]" if ":" in host else host

    @property
    def address(self) -> str:
        """The URL clients use."""
        return f"http://{self.client_host}:{self.port}"

    @property
    def proxy_port(self) -> int:
        """Where the HTTPS proxy listens: the port after the gateway's."""
        return self.port + 1

    @property
    def proxy_address(self) -> str:
        """The URL that clients set as HTTPS_PROXY."""
        return f"http://{self.client_host}:{self.proxy_port}"
