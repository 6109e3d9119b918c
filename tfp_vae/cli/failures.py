"""Errors as messages that a user of the command line can act on."""

import errno
import re

import tensorflow as tf

# What quotas of the system mean, by the number of the error.
LIMITS = {
    errno.EFBIG: "A file would become larger than allowed here (ulimit -f). Allow more and try again; what "
    "was there before is unharmed.",
    errno.EMFILE: "More files are open than allowed here (ulimit -n). Allow more and try again; what was "
    "there before is unharmed.",
}
# How numpy and TensorFlow report the size of a failed allocation.
ASKED_FOR = re.compile(r"allocate ([\d.]+ [KMGT]iB)|(shape ?\[[\d,]+\])|allocat\w+ (\d+ bytes)")
# Names of nodes and operations in TensorFlow's messages; they do not help the user.
NODES = re.compile(r"\{\{.*?\}\}\s*|\s*\[Op:\w*\]( name:\s*\S*)?|\s*\[\[.*?\]\]")
# Where in the code an operation of a graph was made, which TensorFlow says before what is wrong with it.
STACK = re.compile(r'^Graph execution error:.* File "[^"]+", line \d+, in \S+ ')
# What TensorFlow says when another worker does not answer.
OF_WORKERS = ("Collective ops is aborted", "coordination service", "Connection reset by peer")


def in_words(error: Exception) -> str:
    """Return one line that says what has happened.

    >>> in_words(ValueError("{{function_node __wrapped__Softmax}} Input dims must be <= 5 [Op:Softmax] name: "))
    'Input dims must be <= 5'
    >>> in_words(MemoryError("Unable to allocate 7.45 GiB for an array with shape (1000000000,)"))
    'There is not enough memory (asked for: 7.45 GiB). Try fewer examples or draws at once (--batch-size, \
--num-examples, --num-samples) or smaller networks (--hidden-size, --latent-size).'
    """
    of_system = error if isinstance(error, OSError) else OSError()
    number, filename = of_system.errno, of_system.filename
    text = STACK.sub("", " ".join(NODES.sub("", " ".join(str(error).split())).split()))
    if _is_full_disk(error, text):
        place = f", writing {filename}" if filename else ""
        return f"The disk is full{place}. Free some space and try again; what was there before is unharmed."
    if _is_out_of_memory(error, text):
        found = ASKED_FOR.search(text)
        asked = f" (asked for: {next(filter(None, found.groups()))})" if found else ""
        return (
            f"There is not enough memory{asked}. Try fewer examples or draws at once (--batch-size, "
            "--num-examples, --num-samples) or smaller networks (--hidden-size, --latent-size)."
        )
    if isinstance(error, tf.errors.OpError) and any(sign in text for sign in OF_WORKERS):
        return (
            "Another worker has stopped. Start all workers again with the same command: they go on "
            "after the last epoch that was saved."
        )
    if number in LIMITS:
        return LIMITS[number]
    if filename:
        return f"{filename}: {of_system.strerror}."
    return text or type(error).__name__


def _is_full_disk(error: Exception, text: str) -> bool:
    # H5py and TensorFlow report it only in words.
    told = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
    return told or "No space left on device" in text or "Disk quota exceeded" in text


def _is_out_of_memory(error: Exception, text: str) -> bool:
    if isinstance(error, (MemoryError, tf.errors.ResourceExhaustedError)):
        return True
    return isinstance(error, tf.errors.OpError) and "out of memory" in text.lower()
