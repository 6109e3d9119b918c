"""Streams of random numbers.

Each purpose has its own stream, so that no two purposes use the same numbers.
"""

import enum

import tensorflow as tf


class Stream(enum.IntEnum):
    """The purpose of a draw: the first number of its stateless seed."""

    EVALUATION = 0
    TRAINING = 1
    LOG_PROB = 3
    EPOCHS = 4
    VALIDATION_DATA = 5
    TEST_DATA = 6
    SERVED_ESTIMATES = 7
    TRAINING_VALUES = 8
    MARGINALS = 9
    POINTS = 11
    RESTARTED_CODES = 12
    EXPORTED_REQUESTS = 13
    IMPUTATION = 14
    ANNEALING = 15
    SIMULATION = 16


def seed_of(stream: Stream, seed: int = 0) -> tf.Tensor:
    """Return a stateless seed, int32 `[2]`, of a stream and a user's seed.

    >>> seed_of(Stream.LOG_PROB, 7).numpy()
    array([3, 7], dtype=int32)
    """
    return tf.constant([stream, seed], tf.int32)
