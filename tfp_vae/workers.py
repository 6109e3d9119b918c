"""Several processes, on one host or many, that train one model together.

Each of them is started with the same command and its own index. They meet within bounded time, or
fail with an error that names who is missing: TensorFlow by itself still waits after ten minutes.
"""

import contextlib
import dataclasses
import json
import os
import socket
import time
from collections.abc import Sequence

import tensorflow as tf

# How long the workers wait for each other at the start, in seconds.
PATIENCE = 300.0
# Jobs of TF_CONFIG whose tasks are workers, the chief first.
JOBS = ("chief", "worker")


@dataclasses.dataclass(frozen=True)
class Workers:
    """The processes that train together, and which of them this one is.

    Args:
        addresses: "host:port" of each worker, the same in each of them. The first is the chief,
            which alone writes files. This worker's own port must be free.
        index: which of them this process is, from 0.

    Raises:
        ValueError: if there are fewer than two addresses, one is not "host:port" or given twice, or
            the index is out of range.

    Example:
    >>> Workers(["10.0.0.1:2222", "10.0.0.2:2222"], 1).is_chief
    False
    """

    addresses: Sequence[str]
    index: int

    def __post_init__(self):
        wrong = [one for one in self.addresses if not _is_address(one)]
        if len(self.addresses) < 2 or wrong or len({*self.addresses}) < len(self.addresses):
            raise ValueError(
                "Workers are at least two different addresses host:port, with commas between them, "
                f"such as 10.0.0.1:2222,10.0.0.2:2222; received {','.join(self.addresses)!r}."
            )
        if not 0 <= self.index < len(self.addresses):
            raise ValueError(
                f"The index of one of {len(self.addresses)} workers is from 0 to "
                f"{len(self.addresses) - 1}, received {self.index}."
            )

    @classmethod
    def of_environment(cls) -> "Workers | None":
        """Read TF_CONFIG, as clusters set it; None if it is not set, or names one process.

        Raises:
            ValueError: if TF_CONFIG is not a description of workers.
        """
        text = os.environ.get("TF_CONFIG", "").strip() or "{}"
        try:
            config = json.loads(text)
            jobs = config.get("cluster", {})
            addresses = [one for job in JOBS for one in jobs.get(job, [])]
            if len(addresses) < 2:
                return None
            task = config["task"]
            before = len(jobs.get("chief", [])) if task["type"] == "worker" else 0
            if task["type"] not in JOBS or jobs.keys() - {*JOBS}:
                raise KeyError(f"other jobs than {' and '.join(JOBS)}")
            return cls(addresses, before + int(task["index"]))
        except (AttributeError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(
                'TF_CONFIG must be JSON such as {"cluster": {"worker": ["10.0.0.1:2222", '
                '"10.0.0.2:2222"]}, "task": {"type": "worker", "index": 0}}; received '
                f"{text!r} ({error})."
            ) from error

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the files."""
        return self.index == 0

    def join(self, patience: float = PATIENCE) -> tf.distribute.MultiWorkerMirroredStrategy:
        """Wait for the others, and return the strategy under which to make the model.

        Call it before anything else of TensorFlow, which sets up its devices only once.

        Args:
            patience: seconds to wait.

        Raises:
            TimeoutError: if a worker has not come by then.
            OSError: if the port of this worker is taken.
        """
        self._meet(patience)
        cluster = tf.train.ClusterSpec({"worker": list(self.addresses)})
        resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
            cluster, task_type="worker", task_id=self.index, rpc_layer="grpc"
        )
        return tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)

    def _meet(self, patience: float) -> None:
        """Return when each worker has answered; one that is further on answers by TensorFlow."""
        missing = [one for place, one in enumerate(self.addresses) if place != self.index]
        end = time.monotonic() + patience
        port = int(self.addresses[self.index].rpartition(":")[2])
        with _listening(port, self.addresses[self.index]):
            while missing := [one for one in missing if not _answers(one)]:
                if time.monotonic() > end:
                    raise TimeoutError(
                        f"Worker {self.index} of {len(self.addresses)} has waited for "
                        f"{patience:g} seconds, but none answers at {' and '.join(missing)}. Start "
                        "all workers with the same addresses, each with its own index, and see that "
                        "their ports are open to each other."
                    )
                time.sleep(0.2)


@contextlib.contextmanager
def _listening(port: int, address: str):
    family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    try:
        server = socket.create_server(
            ("", port), family=family, dualstack_ipv6=family is socket.AF_INET6
        )
    except OSError as error:
        raise OSError(
            f"This worker cannot listen at {address}: {error.strerror}. Choose a free port, or stop "
            "the process that has it."
        ) from error
    with server:
        yield


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=2.0).close()
    except OSError:
        return False
    return True


def _is_address(text: str) -> bool:
    host, _, port = text.rpartition(":")
    return bool(host) and port.isdecimal() and 0 < int(port) < 65536


__all__ = ["Workers"]
