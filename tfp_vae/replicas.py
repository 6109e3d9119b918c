"""Numbers of the whole batch, which a `tf.distribute.Strategy` has split over replicas.

Each replica computes with the rows that are its own. Outside of a strategy they are all rows, and
these functions do nothing.
"""

import tensorflow as tf


def several() -> tf.distribute.ReplicaContext | None:
    """Return the context of this replica; None if it is the only one."""
    context = tf.distribute.get_replica_context()
    return context if context is not None and context.num_replicas_in_sync > 1 else None


def fold_in(seed: tf.Tensor) -> tf.Tensor:
    """Return a replica's own stateless seed, made from the one that all of them share."""
    context = several()
    return seed if context is None else tf.random.fold_in(seed, context.replica_id_in_sync_group)


def total(values: tf.Tensor) -> tf.Tensor:
    """Return the sum over the replicas of a tensor that has the same shape on each of them.

    >>> total(tf.constant([1.0, 2.0])).numpy()
    array([1., 2.], dtype=float32)
    """
    context = several()
    return values if context is None else context.all_reduce(tf.distribute.ReduceOp.SUM, values)


def mean(values: tf.Tensor, axis=None) -> tf.Tensor:
    """Return the mean along axes, also over the rows of all replicas, which may differ in number.

    >>> mean(tf.constant([[1.0, 2.0], [3.0, 4.0]]), 0).numpy()
    array([2., 3.], dtype=float32)
    """
    if several() is None:
        return tf.reduce_mean(values, axis)
    sums = tf.reduce_sum(values, axis)
    number = tf.size(values) // tf.maximum(1, tf.size(sums))
    return total(sums) / total(tf.cast(number, values.dtype))


def gather(values: tf.Tensor) -> tf.Tensor:
    """Return the rows of all replicas, `[batch, ...]`, with gradients to each.

    >>> gather(tf.constant([1.0, 2.0])).numpy()
    array([1., 2.], dtype=float32)
    """
    context = several()
    return values if context is None else context.all_gather(values, axis=0)


def first_row(number: tf.Tensor) -> tf.Tensor:
    """Return which row of the whole batch is the first of this replica, which has so many rows.

    >>> first_row(tf.constant(3)).numpy()
    np.int32(0)
    """
    context = several()
    if context is None:
        return tf.constant(0)
    numbers = context.all_gather(tf.reshape(number, [1]), axis=0)
    return tf.cumsum(numbers, exclusive=True)[context.replica_id_in_sync_group]


def num_workers(strategy: tf.distribute.Strategy) -> int:
    """Return the number of processes of a strategy.

    >>> num_workers(tf.distribute.get_strategy())
    1
    """
    resolver = strategy.cluster_resolver
    return (
        1 if resolver is None else max(1, sum(map(len, resolver.cluster_spec().as_dict().values())))
    )


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Return whether this process writes files: of several workers the first one.

    >>> is_chief(tf.distribute.get_strategy())
    True
    """
    if num_workers(strategy) == 1:
        return True
    resolver = strategy.cluster_resolver
    has_chief = "chief" in resolver.cluster_spec().jobs
    return resolver.task_type == "chief" or (not has_chief and resolver.task_id == 0)


__all__: list[str] = []
