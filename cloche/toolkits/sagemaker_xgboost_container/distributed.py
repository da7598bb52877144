"""Training on several hosts, by XGBoost's own tracker (Rabit, before XGBoost 2)."""

import logging
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from xgboost import collective
from xgboost.tracker import RabitTracker

PORT = 9099
RESOLVES_WITHIN_S = 900.0
TRIES = 60  # to reach the tracker
LOOK_AGAIN_S = 0.5


def wait_hostname_resolution(sm_hosts: Sequence[str]) -> None:
    """Wait until every host's name has an address."""
    until = time.monotonic() + RESOLVES_WITHIN_S
    for host in sm_hosts:
        while True:
            try:
                socket.gethostbyname(host)
                break
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(LOOK_AGAIN_S)


@contextmanager
def connected(hosts: Sequence[str], current_host: str, port: int) -> Iterator[bool]:
    """Join the hosts' ring; gives whether this is the first one, which runs the tracker."""
    first, tracker = sorted(hosts)[0], None
    if current_host == first:
        address = socket.gethostbyname(first)
        tracker = RabitTracker(n_workers=len(hosts), host_ip=address, port=port)
        tracker.start()
    given = {"dmlc_tracker_uri": socket.gethostbyname(first), "dmlc_tracker_port": port}
    with collective.CommunicatorContext(**given, dmlc_task_id=current_host, dmlc_retry=TRIES):
        yield current_host == first
    if tracker is not None:
        tracker.wait_for()


def rabit_run(
    exec_fun: Callable[..., Any],
    args: dict[str, Any],
    include_in_training: bool,
    hosts: Sequence[str],
    current_host: str,
    first_port: int | None = None,
    second_port: int | None = None,
    max_connect_attempts: int | None = None,
    connect_retry_timeout: int = 3,
    update_rabit_args: bool = False,
) -> None:
    """Call the function on each host that has data, joined where they are several.

    update_rabit_args: it is given `is_master`.
    """
    port, taking = first_port or PORT, [current_host]
    if len(hosts) > 1:
        with connected(hosts, current_host, port):
            said = [
                collective.broadcast((current_host, include_in_training), rank)
                for rank in range(collective.get_world_size())
            ]
        taking = [host for host, included in said if included]
    elif not include_in_training:
        raise RuntimeError("No hosts received training data.")
    if not taking:
        raise RuntimeError("No hosts received training data.")
    if not include_in_training:
        logging.warning("Host %s not being used for distributed training.", current_host)
        sys.exit(0)
    if len(taking) == 1:
        exec_fun(**args, **({"is_master": True} if update_rabit_args else {}))
        return
    with connected(taking, current_host, second_port or port + 1) as first:
        exec_fun(**args, **({"is_master": first} if update_rabit_args else {}))
