"""Distributions to plain tensors and back: what crosses the border of a SavedModel."""

import tensorflow as tf
import tensorflow_probability as tfp

tfd = tfp.distributions


def describe(distribution: tfd.Distribution, *, whole: bool = False) -> tuple[dict, dict[str, tf.Tensor]]:
    """Split a distribution into a description for json, and its parameters as tensors under their tfd names.

    Scalars that are known when the graph is made (a number of trials) go into the description; all other parameters
    are broadcast to the batch shape, so that each has the batch as its first axis. With `whole`, for a prior, which
    depends on nothing, all parameters go into the description.

    Raises:
        ValueError: if the parameters do not determine the distribution (flows, joint distributions).

    Example:
    >>> description, tensors = describe(tfd.Independent(tfd.Binomial(16., logits=tf.zeros([1, 2])), 1))
    >>> description["distribution"]["constants"], sorted(tensors)
    ({'total_count': 16.0}, ['logits'])
    """
    name = type(distribution).__name__
    if isinstance(distribution, tfd.Independent):
        inner, tensors = describe(distribution.distribution, whole=whole)
        ndims = int(tf.get_static_value(distribution.reinterpreted_batch_ndims))
        return {"class": "Independent", "reinterpreted_batch_ndims": ndims, "distribution": inner}, tensors
    properties = type(distribution).parameter_properties()
    parameters = {key: distribution.parameters[key] for key in properties}
    if any(isinstance(value, tfd.Distribution) for value in parameters.values()) or not hasattr(tfd, name):
        raise ValueError(f"{name} is not determined by tensors, so it has no served form.")
    constants: dict[str, float | list] = {}
    tensors = {}
    description = {"class": name, "constants": constants}
    if "dtype" in distribution.parameters:
        description["dtype"] = tf.as_dtype(distribution.dtype).name
    for key, value in parameters.items():
        if value is None:
            continue
        value = tf.convert_to_tensor(value)
        static = tf.get_static_value(value)
        if static is not None and (whole or static.ndim == 0):
            constants[key] = static.tolist()
        else:
            cut = value.shape.rank - properties[key].event_ndims
            tensors[key] = tf.broadcast_to(
                value, tf.concat([distribution.batch_shape_tensor(), tf.shape(value)[cut:]], 0)
            )
    return description, tensors


def rebuild(description: dict, tensors: dict[str, tf.Tensor]) -> tfd.Distribution:
    """Build the distribution that `describe` took apart.

    >>> rebuild(*describe(tfd.MultivariateNormalDiag(tf.zeros([1, 2]), tf.ones([1, 2]))))
    <tfp.distributions.MultivariateNormalDiag 'MultivariateNormalDiag' batch_shape=[1] event_shape=[2] dtype=float32>
    """
    if description["class"] == "Independent":
        return tfd.Independent(rebuild(description["distribution"], tensors), description["reinterpreted_batch_ndims"])
    arguments = {**tensors, **description["constants"]}
    if "dtype" in description:
        arguments["dtype"] = description["dtype"]
    return getattr(tfd, description["class"])(**arguments)
