"""Keras's `fit` and `evaluate` with many steps in one call."""

import functools
import inspect
import math
from collections.abc import Callable, Iterable, Iterator

import keras
import tensorflow as tf

from tfp_vae import batch, blocks, replicas
from tfp_vae.batch import BATCH_SIZE, num_examples
from tfp_vae.checks import as_count
from tfp_vae.layers.internals import without_retracing_warnings
from tfp_vae.not_finite import StopIfNotFinite, with_first

# Callbacks that write files, which several workers would write at once.
WRITERS = (
    keras.callbacks.CSVLogger,
    keras.callbacks.ModelCheckpoint,
    keras.callbacks.TensorBoard,
)


class BlockModel(keras.Model):
    """A Keras model that runs blocks of steps in one call, where that is possible and faster.

    Blocks are used for training and evaluation on arrays, and for training on a `tf.data.Dataset`
    of known length, if all layers come from Keras or this package. Dense networks become one XLA
    program, other networks a loop around the fastest kind of step. Blocks are not used under a
    distribution strategy, with `run_eagerly` or `jit_compile=False`, or if a callback runs on each
    batch. The results are the same as with single steps.

    Shuffled arrays have a new order in each epoch. After `keras.utils.set_random_seed` it is the one
    that Keras takes then: the same in each epoch.

    Under a distribution strategy, each step runs on all replicas, of one process or of several
    workers; of these, only the chief runs callbacks that write files.
    """

    # Draws of z for each example; the cost of a step is proportional to it.
    num_draws = 1
    _blocks: blocks.Blocks | None = None

    def compile(self, *args, **kwargs):
        for name in ("_train_program", "_test_program"):
            vars(self).pop(name, None)
        super().compile(*args, **kwargs)

    def fit(self, x=None, y=None, *args, **kwargs) -> keras.callbacks.History:
        arguments = inspect.signature(super().fit).bind(x, y, *args, **kwargs).arguments
        arguments["y"] = batch.labels(x, y, arguments.get("sample_weight"))
        if arguments.get("batch_size") is not None:
            arguments["batch_size"] = as_count(arguments["batch_size"], "batch_size")
        if self.is_distributed:
            guard = StopIfNotFinite(lambda epoch: None)
            arguments["callbacks"] = with_first(guard, arguments.get("callbacks"), self)
            return super().fit(**self._for_all_workers(arguments))
        training = self._training(arguments)
        guard = StopIfNotFinite(functools.partial(self._batches_of, arguments))
        arguments["callbacks"] = with_first(guard, arguments.get("callbacks"), self)
        if training is None:
            return super().fit(**arguments)
        if not self.optimizer.built:  # inside the program it would be traced twice
            self.optimizer.build(self.trainable_variables)
        self._blocks = training
        # This is for training only: `make_train_function` restores the value for validation.
        training.own_steps = self.steps_per_execution  # type: ignore[has-type]
        self.steps_per_execution = training.most_steps
        if training.epoch is not None:  # then Keras only counts the batches
            counted = tf.data.Dataset.range(len(training.epoch))
            size = arguments.get("validation_batch_size") or arguments.get("batch_size")
            arguments |= {"x": counted, "y": None, "sample_weight": None, "batch_size": None}
            arguments |= {"shuffle": False, "validation_batch_size": size}
        try:
            return super().fit(**arguments)
        finally:
            training.close()
            self._blocks = None
            self.train_function = None
            self.steps_per_execution = training.own_steps

    def make_train_function(self, force=False):
        if self._blocks is not None:
            self.train_function = self._blocks
            self.steps_per_execution = self._blocks.own_steps
        elif self.is_distributed:
            if force or self.train_function is None:
                self.train_function = self._on_all_replicas(self.train_step)
        else:
            super().make_train_function(force)

    def make_test_function(self, force=False):
        if not self.is_distributed:
            super().make_test_function(force)
        elif force or self.test_function is None:
            self.test_function = self._on_all_replicas(self.test_step)

    # Under a distribution strategy

    @property
    def is_distributed(self) -> bool:
        """Whether the model was made under a distribution strategy."""
        return self._distribute_strategy is not None

    def _on_all_replicas(self, step: Callable) -> Callable:
        """Return the function of an iterator that makes `steps_per_execution` steps.

        Its metrics are those of the first replica; Keras's own function would average them over
        the replicas, which several workers cannot. At the end of an epoch, Keras asks the metrics
        themselves, which then are those of all replicas.
        """
        strategy = self.distribute_strategy

        def one_step(data):
            logs = strategy.run(step, args=(data,))
            return {
                name: strategy.experimental_local_results(value)[0] for name, value in logs.items()
            }

        if not self.run_eagerly:
            one_step = without_retracing_warnings(
                tf.function(one_step, autograph=False, reduce_retracing=True)
            )

        def steps(iterator: Iterator) -> dict[str, tf.Tensor]:
            logs = None
            for _, data in zip(range(self.steps_per_execution), iterator, strict=False):
                logs = one_step(data)
            if logs is None:
                raise StopIteration
            return logs

        return steps

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        """Build model and optimizer; Keras would average a batch over the replicas for it, which
        several workers cannot.
        """
        if not (self.is_distributed and self.built):
            super()._maybe_symbolic_build(iterator, data_batch)
        elif not self.optimizer.built:
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_variables)

    def _for_all_workers(self, arguments: dict) -> dict:
        """Return the arguments of `fit` for this worker: its data in the order of all workers, and
        callbacks that write files on the chief alone.
        """
        if replicas.num_workers(self.distribute_strategy) == 1:
            return arguments
        if not replicas.is_chief(self.distribute_strategy):
            callbacks = keras.tree.flatten(arguments.get("callbacks"))
            own = [one for one in callbacks if one and not isinstance(one, WRITERS)]
            arguments = {**arguments, "callbacks": own}
        x = arguments["x"]
        if not batch.are_arrays(x) or not arguments.get("shuffle", True):
            return arguments
        if arguments.get("validation_split") or arguments.get("steps_per_epoch"):
            raise ValueError(
                "Several workers shuffle arrays alike only if each epoch goes once through all of "
                "them: give validation_data instead of validation_split, and no steps_per_epoch; "
                "or pass a tf.data.Dataset, shuffled by a seed that all workers share."
            )
        given = keras.utils.pack_x_y_sample_weight(
            x, arguments["y"], arguments.get("sample_weight")
        )
        rows = tf.data.Dataset.from_tensor_slices(keras.tree.map_structure(blocks.as_tensor, given))
        batches = rows.shuffle(num_examples(x), seed=0).batch(
            arguments.get("batch_size") or BATCH_SIZE
        )
        left = {"x", "y", "sample_weight", "batch_size", "shuffle"}
        kept = {name: value for name, value in arguments.items() if name not in left}
        return {**kept, "x": batches, "shuffle": False}

    def _batches_of(self, arguments: dict, epoch: int) -> Iterable | None:
        """Return the batches of an epoch again, with the numbers of their examples; None if they
        cannot be had again, or in another order if Keras has shuffled them.
        """
        if self._blocks is not None and self._blocks.rows is not None:
            return _gathered(self._blocks.rows, self._blocks.order)
        x = arguments["x"]
        steps = arguments.get("steps_per_epoch")
        if batch.is_dataset(x):
            if self._blocks is not None and self._blocks.are_stacked:
                x = x.unbatch()
            if steps:  # then an epoch goes on where the one before it ended
                x = x.skip((epoch - arguments.get("initial_epoch", 0)) * steps).take(steps)
            return ((data if isinstance(data, tuple) else (data,), None) for data in x)
        rows = blocks.rows_of(x, arguments["y"], arguments.get("sample_weight"))
        if rows is None:
            return None
        size = arguments.get("batch_size") or _batch_size(num_examples(x), steps)
        numbers = tf.data.Dataset.range(num_examples(x)).batch(size)
        return _gathered(rows, numbers)

    def _training(self, arguments: dict) -> blocks.Blocks | None:
        """Return the `Blocks` that train many steps at once; None if Keras's own loop is needed."""
        if not self._goes_by_the_block(arguments.get("callbacks"), blocks.OF_TRAINING):
            return None
        x = arguments["x"]
        weight = arguments.get("sample_weight")
        given = arguments.get("steps_per_epoch")
        batch_size = arguments.get("batch_size")
        epoch = None
        if batch.are_arrays(x) and not arguments.get("validation_split"):
            batch_size = batch_size or _batch_size(num_examples(x), given)
            rows = blocks.rows_of(x, arguments["y"], weight)
            if rows is not None:
                shuffle = arguments.get("shuffle", True)
                epoch = blocks.RowOrder(num_examples(x), batch_size, shuffle)
            steps = given or math.ceil(num_examples(x) / batch_size)
            copied = 0
        elif batch.is_dataset(x) and weight is None:
            rows, copied = None, blocks.bytes_of(x)
            steps = given or max(0, int(x.cardinality()))
            batch_size = tf.nest.flatten(x.element_spec)[0].shape[0] or batch_size or BATCH_SIZE
        else:
            return None
        if not steps:  # a data set of unknown length
            return None
        most = self._most_steps(batch_size, steps, divides=given is not None, copied=copied)
        several = blocks.stacked(x, most) if rows is None and given and steps % most == 0 else None
        if several is not None:
            arguments["x"] = several
        return blocks.Blocks(
            self._train_program, most, steps, rows, epoch, are_stacked=several is not None
        )

    def evaluate(
        self,
        x=None,
        y=None,
        batch_size=None,
        verbose="auto",
        sample_weight=None,
        steps=None,
        callbacks=None,
        return_dict=False,
        **kwargs,
    ):
        y = batch.labels(x, y, sample_weight)
        rows = None
        is_known = kwargs.keys() <= {"_use_cached_eval_dataset"} and (batch_size or 1) > 0
        if is_known and self._goes_by_the_block(callbacks, blocks.OF_EVALUATION):
            rows = blocks.rows_of(x, y, sample_weight)
        if rows is None:
            return super().evaluate(
                x, y, batch_size, verbose, sample_weight, steps, callbacks, return_dict, **kwargs
            )
        number = num_examples(x)
        size = batch_size or _batch_size(number, steps)
        steps = min(steps or math.inf, math.ceil(number / size))
        test = blocks.Blocks(
            self._test_program, self._most_steps(size, steps, divides=False), steps, rows
        )
        numbers = iter(blocks.RowOrder(number, size, shuffle=False))
        if not isinstance(callbacks, keras.callbacks.CallbackList):
            callbacks = keras.callbacks.CallbackList(
                callbacks,
                add_progbar=verbose != 0,
                verbose=verbose,
                epochs=1,
                steps=steps,
                model=self,
            )
        logs = self._test(test, numbers, callbacks)
        return logs if return_dict else [logs[name] for name in self.metrics_names]

    def _test(
        self, test: blocks.Blocks, numbers: Iterator, callbacks: keras.callbacks.CallbackList
    ) -> dict[str, float]:
        """Evaluate as Keras does, with its callbacks."""
        callbacks.on_test_begin()
        self.reset_metrics()
        self.stop_evaluating = False
        for step in range(0, test.steps, test.most_steps):
            callbacks.on_test_batch_begin(step)
            logs = {name: float(value) for name, value in test(numbers).items()}
            callbacks.on_test_batch_end(min(step + test.most_steps, test.steps) - 1, logs)
            if self.stop_evaluating:
                break
        callbacks.on_test_end(logs)
        return logs

    def _goes_by_the_block(self, callbacks, hooks: tuple[str, ...]) -> bool:
        callbacks = keras.tree.flatten(getattr(callbacks, "callbacks", callbacks))
        if not self.jit_compile or self.run_eagerly or self.is_distributed:
            return False
        if any(blocks.looks_at_batches(one, hooks) for one in callbacks if one is not None):
            return False
        return blocks.engine_of(self) is not None

    def most_rows(self, x) -> int | None:
        """Return how many rows of an array to compute at once; None for other data."""
        if not batch.are_arrays(x):
            return None
        steps = math.ceil(num_examples(x) / BATCH_SIZE)
        return BATCH_SIZE * blocks.most_steps(self, BATCH_SIZE, 1, steps, divides=False)

    def _most_steps(self, batch_size: int, steps: int, **limits) -> int:
        if self.steps_per_execution != 1:
            return self.steps_per_execution
        return blocks.most_steps(self, batch_size, self.num_draws, steps, **limits)

    @functools.cached_property
    def _train_program(self) -> Callable:
        return blocks.program_of(self, self.train_step, str(blocks.engine_of(self)))

    @functools.cached_property
    def _test_program(self) -> Callable:
        return blocks.program_of(self, self.test_step, str(blocks.engine_of(self)))


def _gathered(rows: tuple, order: Iterable[tf.Tensor]) -> Iterator[tuple]:
    """Yield batches of rows by their numbers, with these numbers."""
    for numbers in order:
        yield tf.nest.map_structure(lambda part, at=numbers: tf.gather(part, at), rows), numbers


def _batch_size(number: int, steps: int | None) -> int:
    """Return the batch size that Keras takes if none is given."""
    return math.ceil(number / steps) if steps else BATCH_SIZE


__all__: list[str] = []
