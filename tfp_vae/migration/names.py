"""What old names mean, and their names on Keras 3 and in this package.

A name has up to three forms: as a program writes it (`tf.keras.layers.Dense`), its *meaning*, which
all forms of an import share (`keras.layers.Dense`), and its *new* name, which differs from the
meaning where Keras 3 renamed it.
"""

import functools
import importlib
import re

# Functions of `keras.backend` that `keras.ops` has under the same name, with the same defaults.
SAME_OPS = (
    "abs all any arange binary_crossentropy categorical_crossentropy cos dot elu equal exp eye "
    "greater greater_equal less less_equal log max maximum mean min minimum not_equal one_hot "
    "ones_like prod relu reshape round shape sigmoid sign sin softmax softplus softsign sqrt "
    "square squeeze stack std sum tanh transpose var zeros_like"
)
# Functions of `keras.backend` whose `axis` has another default in `keras.ops`.
AXIS_OPS = ("argmax", "argmin", "concatenate", "cumprod", "cumsum", "expand_dims")
OTHER_OPS = {
    "cast": "ops.cast",
    "clip": "ops.clip",
    "get_value": "ops.convert_to_numpy",
    "int_shape": "ops.shape",
    "permute_dimensions": "ops.transpose",
    "pow": "ops.power",
    "random_normal": "random.normal",
    "random_uniform": "random.uniform",
    "stop_gradient": "ops.stop_gradient",
    "truncated_normal": "random.truncated_normal",
}
OPS = {
    **{name: f"ops.{name}" for name in (*SAME_OPS.split(), *AXIS_OPS)},
    **OTHER_OPS,
}
SHORT_NAMES = {
    "KLD": "kl_divergence",
    "kld": "kl_divergence",
    "kullback_leibler_divergence": "kl_divergence",
    "MAE": "mean_absolute_error",
    "mae": "mean_absolute_error",
    "MAPE": "mean_absolute_percentage_error",
    "mape": "mean_absolute_percentage_error",
    "MSE": "mean_squared_error",
    "mse": "mean_squared_error",
    "MSLE": "mean_squared_logarithmic_error",
    "msle": "mean_squared_logarithmic_error",
}
# Patterns of old names, with their meaning. `tfp.layers` stands for TFP's layers.
MEANINGS = (
    (r"(tf_keras|tensorflow(\.compat\.v2)?\.keras)\b", "keras"),
    (r"tensorflow(\.compat\.v2)?\.(initializers|losses|metrics|optimizers)\b", r"keras.\2"),
    (
        r"tensorflow_probability(\.python)?\.bijectors(\.masked_autoregressive)?"
        r"\.AutoregressiveNetwork\b",
        "tfp.layers.AutoregressiveNetwork",
    ),
    (r"tensorflow_probability(\.python)?\.layers\b", "tfp.layers"),
    (
        r"tfp\.layers\.(conv_variational|dense_variational(_v2)?|distribution_layer|initializers"
        r"|masked_autoregressive|util|variable_input)\b",
        "tfp.layers",
    ),
)
# Patterns of meanings, with their new names.
RENAMED = (
    (r"tfp\.layers\b", "tfp_vae.layers"),
    (r"keras\.optimizers\.(legacy|experimental)\b", "keras.optimizers"),
    (r"keras\.layers\.experimental(\.preprocessing)?\b", "keras.layers"),
    (r"keras\.utils\.np_utils\b", "keras.utils"),
    *((rf"keras\.backend\.{old}\b(?!\.)", f"keras.{new}") for old, new in OPS.items()),
    *(
        (rf"keras\.(losses|metrics)\.{old}$", rf"keras.\1.{new}")
        for old, new in SHORT_NAMES.items()
    ),
)

# Patterns of meanings that this package does not rename, and of those that become literals.
OLDER = r"tensorflow\.(compat\.v1\.(keras|train)|python\.keras|train\.\w+Optimizer)\b"
LITERALS = r"keras\.losses\.Reduction\b"


def meaning(name: str) -> str:
    """Return what a full name means.

    >>> meaning("tensorflow.keras.layers.Dense"), meaning("tf_keras.layers.Dense")
    ('keras.layers.Dense', 'keras.layers.Dense')
    >>> meaning("tensorflow_probability.python.layers.dense_variational.DenseFlipout")
    'tfp.layers.DenseFlipout'
    """
    return _replaced(name, MEANINGS)


def new_name(meaning: str) -> str:
    """Return the new name of what a meaning stands for.

    >>> new_name("keras.optimizers.legacy.Adam"), new_name("tfp.layers.IndependentNormal")
    ('keras.optimizers.Adam', 'tfp_vae.layers.IndependentNormal')
    >>> new_name("keras.backend.random_normal"), new_name("numpy.mean")
    ('keras.random.normal', 'numpy.mean')
    """
    return _replaced(meaning, RENAMED)


def _replaced(name: str, table) -> str:
    for pattern, replacement in table:
        name = re.sub(f"^{pattern}", replacement, name)
    return name


def is_unknown(meaning: str) -> bool:
    """Return whether a meaning has no new name in Keras 3.

    >>> is_unknown("keras.layers.Dense"), is_unknown("keras.layers.LocallyConnected1D")
    (False, True)
    """
    new = new_name(meaning)
    if re.match(OLDER, meaning):
        return True
    return new.startswith("keras.") and not is_in_keras(new) and not re.match(LITERALS, new)


@functools.cache
def is_in_keras(name: str) -> bool:
    """Return whether the installed Keras has a dotted name.

    >>> is_in_keras("keras.layers.Dense"), is_in_keras("keras.layers.LocallyConnected1D")
    (True, False)
    """
    value = importlib.import_module("keras")
    for part in name.split(".")[1:]:
        if not hasattr(value, part):
            return False
        value = getattr(value, part)
    return True
