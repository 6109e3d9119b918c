"""The command line `tfp-vae`.

It parses the options before it imports TensorFlow, so that `--help` is fast.
"""

import dataclasses
import gc
import importlib.metadata
import inspect
import logging
import math
import os
import sys
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

try:
    import typer
    from rich.console import Console
    from rich.markup import escape
except ImportError as error:
    print(f"tfp-vae needs {error.name}: pip install 'tfp_vae[cli]'.", file=sys.stderr)
    sys.exit(2)

# Each example has its own line in `train --help`, even in a narrow terminal.
EXAMPLES = """\b
Examples:
  tfp-vae train --dataset mnist --epochs 40 --patience 5
  tfp-vae train --dataset mine.npz --likelihood IndependentNormal
  tfp-vae train --dataset mnist --condition label
  tfp-vae train --prior "NormalMixture(num_components=10)" --latent-size 8
  tfp-vae train --objective "IWAE(num_samples=5, estimator='dreg')"
  tfp-vae train --resume runs/digits-1 --epochs 200
"""
# Options of an earlier run that `--resume` may change.
GOING_ON = ("epochs", "patience")
SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 120}
app = typer.Typer(
    pretty_exceptions_enable=False,
    context_settings=SETTINGS,
    rich_markup_mode=None,
    help="Train, judge and serve variational autoencoders.",
    no_args_is_help=True,
)


def _version(wanted: bool) -> None:
    if wanted:
        print(importlib.metadata.version("tfp_vae"))
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Show the version and stop."
        ),
    ] = False,
) -> None:
    """Take the options that stand before a command."""


Dataset = Annotated[str | None, typer.Option(help="Data to use; default: the run's own.")]
Model = Annotated[
    Path | None,
    typer.Argument(
        help="Run folder, .keras file or (evaluate, sample, score) SavedModel; default: the newest run under runs/."
    ),
]
ConditionName = Annotated[
    str | None,
    typer.Option(
        "--condition", help="Of a conditional model outside its run folder: its name, as in train."
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        min=0, max=2**31 - 1, help="Seed of every draw; the same seed gives the same numbers."
    ),
]
NumSamples = Annotated[
    int, typer.Option(min=1, help="Draws for each example in the importance-sampled NLL.")
]
SavedModels = Annotated[Path, typer.Option(help="Folder of exported models.")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """The options of `tfp-vae train`, and facts about the data, which are known once the data are
    loaded.
    """

    dataset: Annotated[
        str,
        typer.Option(
            help="digits, shapes, a TFDS image data set such as mnist, an .npy file, or an .npz file: one array x "
            "[num_examples, ...], or x_train, x_test and perhaps x_validation; of a table the "
            "arrays that --likelihood names; a .csv or .parquet file of a table with named columns; a "
            "folder of PNG or JPEG images; a .tfrecord file, or a folder of some; a folder of a saved "
            "tf.data.Dataset; or a .txt, .smi or .selfies file of texts, one a line."
        ),
    ] = "digits"
    condition: Annotated[
        str | None,
        typer.Option(
            help="What the VAE is conditional on: label, another feature, or the name of arrays of an .npz file."
        ),
    ] = None
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training data.")] = 100
    batch_size: Annotated[int, typer.Option(min=1, help="Examples in one training step.")] = 100
    learning_rate: Annotated[
        float, typer.Option(min=0.0, help="Adam's first rate, above 0; it falls to 0 as a cosine.")
    ] = 2e-3
    tokens: Annotated[
        str | None,
        typer.Option(
            help="How to split texts: characters, words, smiles, selfies, or a regular expression for "
            "one token; default: as the file's ending says."
        ),
    ] = None
    network: Annotated[
        str,
        typer.Option(
            help="mlp or conv; of sequences causal-conv, gru or transformer. auto: the first of them."
        ),
    ] = "auto"
    hidden_size: Annotated[
        int,
        typer.Option(
            min=0,
            help="Width of the mlp's hidden layer, or of the layers of a network of sequences; 0 for "
            "the usual one: 500, of sequences 128 (gru: 256).",
        ),
    ] = 0
    word_dropout: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=0.99,
            help="Share of tokens hidden from the decoder in training, against posterior collapse.",
        ),
    ] = 0.0
    latent_size: Annotated[int, typer.Option(min=1, help="Dimensions of z.")] = 24
    posterior: Annotated[
        str,
        typer.Option(
            help="Distribution layer of the encoder (tfp-vae list posteriors), such as "
            "'RelaxedOneHotCategorical(temperature=0.5)'; several by name: "
            "Joint(style='MultivariateNormalDiag', kind='...')."
        ),
    ] = "MultivariateNormalDiag"
    likelihood: Annotated[
        str,
        typer.Option(
            help="Distribution layer of the decoder (tfp-vae list likelihoods), perhaps with arguments. auto looks at "
            "the data: zeros and ones: Bernoulli; grey 8-bit images that are nearly black and "
            "white: Bernoulli of binarized pixels; other 8-bit images: quantized logistic; whole "
            "numbers up to 255: binomial, larger ones: negative binomial; else normal. Of a table "
            "one for each array of the .npz file: Joint(age='auto', job='IndependentCategorical')."
        ),
    ] = "auto"
    without: Annotated[
        str,
        typer.Option(
            help="Columns of a .csv or .parquet file to leave out, with commas between them, such as "
            "'first name,notes'."
        ),
    ] = ""
    prior: Annotated[
        str,
        typer.Option(
            help="Prior (tfp-vae list priors), such as 'NormalMixture(num_components=10)'; several by name: Joint(...)."
        ),
    ] = "StandardNormal"
    objective: Annotated[
        str,
        typer.Option(help="Objective (tfp-vae list objectives), such as 'IWAE(num_samples=5)'."),
    ] = "ELBO"
    beta: Annotated[
        float, typer.Option(min=0.0, help="Weight of the KL divergence in the loss.")
    ] = 1.0
    warm_up: Annotated[int, typer.Option(min=0, help="Epochs in which beta rises from 0.")] = 0
    cycles: Annotated[
        int, typer.Option(min=1, help="Times that the warm-up is repeated, equally far apart.")
    ] = 1
    decoder_decay: Annotated[
        float,
        typer.Option(min=0.0, help="Weight of the decoder's squared kernels in the loss (RAE-L2)."),
    ] = 0.0
    precision: Annotated[
        str,
        typer.Option(
            help="float32; mixed_bfloat16 or mixed_float16, in which networks compute in 16 bits, and "
            "weights and densities stay in 32; float64."
        ),
    ] = "float32"
    missing: Annotated[
        bool,
        typer.Option(
            "--missing/--no-missing",
            help="NaN in x is a missing value; tfp-vae impute fills it in.",
        ),
    ] = False
    patience: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Epochs without a better val_elbo after which training stops. The model of the best epoch is the "
            "run's; last.keras is there to go on from.",
        ),
    ] = None
    ema: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=0.9999,
            help="Momentum of a moving average of the weights, such as 0.999, which is then the run's model; 0: "
            "no average.",
        ),
    ] = 0.0
    tracker: Annotated[
        str, typer.Option(help="Experiment tracker that gets the run: mlflow or wandb.")
    ] = ""
    tensorboard: Annotated[
        bool,
        typer.Option(
            "--tensorboard/--no-tensorboard",
            help="Write event files, of curves and pictures or texts, into the run's folder tensorboard/.",
        ),
    ] = False
    num_samples: NumSamples = 500
    seed: Seed = 0
    saved_models: Annotated[str, typer.Option(help="Folder of exported models.")] = "saved_models"
    name: str  # name of the data set
    data: str = ""  # how the data were changed, for readers: `datasets.Splits.note`


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wishes:
    """The options of `tfp-vae evaluate` that ask for more numbers; without any, there are none."""

    labels: Annotated[
        str | None,
        typer.Option(
            help="What codes are probed for: label, another feature, or the name of arrays of an .npz file."
        ),
    ] = None
    factors: Annotated[
        str | None,
        typer.Option(
            help="Factors of the data, with commas between them, for scores of disentanglement; one that "
            "--labels names too has values that are names, not numbers."
        ),
    ] = None
    against: Annotated[
        str | None,
        typer.Option(help="Other data, as in --dataset, that the model should tell from its own."),
    ] = None
    samples: Annotated[
        int | None,
        typer.Option(
            min=5,
            help="How many draws are compared with as many test examples, in features of a classifier.",
        ),
    ] = None
    features: Annotated[
        Path | None,
        typer.Option(
            help=".keras file of that classifier; default: a small one that learns --labels here."
        ),
    ] = None
    checks: Annotated[
        bool,
        typer.Option(
            "--checks",
            help="Add reconstruction errors, collapsed dimensions, and p-values of predictive checks.",
        ),
    ] = False
    rate_distortion: Annotated[
        str | None,
        typer.Option(
            help="Betas with commas between them, such as 0.1,1,10: rate and distortion of the decoder's "
            "best codes, and of the encoder's, of the first 100 test examples."
        ),
    ] = None

    def __post_init__(self):
        _ = self.betas  # which raises if they are none
        if self.features is not None and self.samples is None:
            raise ValueError("--features is about --samples: give how many of them, too.")
        if self.samples is not None and self.features is None and self.labels is None:
            raise ValueError(
                "--samples are compared with data in the features of a classifier. Give --labels "
                "NAME, which a small one learns here, or --features FILE.keras, any Keras classifier."
            )

    @property
    def betas(self) -> tuple[float, ...]:
        """The betas of `--rate-distortion`, each once; none if it was not given."""
        if self.rate_distortion is None:
            return ()
        try:
            betas = tuple(dict.fromkeys(float(beta) for beta in self.rate_distortion.split(",")))
        except ValueError:
            betas = ()
        if not betas or not all(0.0 < beta < math.inf for beta in betas):
            raise ValueError(
                "--rate-distortion takes positive numbers with commas between them, such as 0.1,1,10, "
                f"received {self.rate_distortion}."
            )
        return betas

    def __bool__(self) -> bool:
        return self != Wishes()


def takes_options(kind: type, *, first: bool) -> Callable:
    """Return the decorator of a command that takes `**options`: it adds those of a dataclass, before
    the command's own options or after them.
    """

    def decorate(command: Callable) -> Callable:
        own = [
            one
            for one in inspect.signature(command).parameters.values()
            if one.kind is not one.VAR_KEYWORD
        ]
        fields = {
            field.name: field
            for field in dataclasses.fields(kind)
            if typing.get_args(field.type)[1:]
        }
        shared = [
            own[0].replace(name=name, annotation=one.type, default=one.default)
            for name, one in fields.items()
        ]
        both = (own[0], *shared, *own[1:]) if first else (*own, *shared)
        signature = inspect.Signature([one.replace(kind=one.KEYWORD_ONLY) for one in both])
        command.__signature__ = signature  # type: ignore[attr-defined]
        return command

    return decorate


def _defaults_by(reader: str) -> Callable:
    """Make a callback that uses the options which a function of the package reads from its option's
    value, where no other is given.
    """

    def take(ctx: typer.Context, value):
        if value is not None:
            ctx.default_map = getattr(_cli(), reader)(value)
        return value

    return take


@app.command(short_help="Train a VAE, judge it, draw pictures, and export it.", epilog=EXAMPLES)
@takes_options(Options, first=True)
def train(
    ctx: typer.Context,
    run: Annotated[
        Path | None,
        typer.Option(help="New folder for the run; default: the next number under runs/."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="config.json of another run, whose options hold where no other is given.",
            callback=_defaults_by("read_config"),
            is_eager=True,
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="Options that ship with the package, which hold where no other is given: best-mnist.",
            callback=_defaults_by("read_preset"),
            is_eager=True,
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            help="Go on with an interrupted run, with the options it began with. With more --epochs, or more "
            "--patience, train longer than planned, a finished run too: the learning rate then "
            "follows the cosine over all of these epochs."
        ),
    ] = None,
    workers: Annotated[
        str | None,
        typer.Option(
            help="Processes that train together, host:port,host:port, each started by this command with its own "
            "--index; the first one writes the files. Default: those of TF_CONFIG, if it is set."
        ),
    ] = None,
    index: Annotated[
        int | None, typer.Option(min=0, help="Which of --workers this process is, from 0.")
    ] = None,
    **options,
) -> None:
    """Train a VAE, evaluate it, draw pictures, and export it for serving."""
    if (workers is None) != (index is None):
        raise ValueError("--workers and --index go together: which processes, and which this is.")
    cli = _cli()
    together = cli.Workers.of_environment()
    if workers is not None and index is not None:
        together = cli.Workers(workers.split(","), index)
    if resume is None:
        return cli.train(run, options, together)
    given = [name for name in ctx.params if "COMMANDLINE" in str(ctx.get_parameter_source(name))]
    if others := [name for name in given if name not in (*GOING_ON, "resume", "workers", "index")]:
        names = ", ".join("--" + name.replace("_", "-") for name in others)
        raise ValueError(
            "--resume takes all options but --epochs and --patience from the run's config.json. "
            f"Leave out {names}."
        )
    cli.resume(resume, together, **{name: ctx.params[name] for name in GOING_ON if name in given})


@app.command(short_help="Judge a model on its test data.")
@takes_options(Wishes, first=False)
def evaluate(
    model: Model = None,
    dataset: Dataset = None,
    condition: ConditionName = None,
    num_samples: NumSamples = 1000,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples held in memory at once.")] = 500,
    annealed: Annotated[
        int,
        typer.Option(
            min=0,
            help="Steps of annealed importance sampling of the first 100 examples; 0 leaves it out.",
        ),
    ] = 0,
    seed: Seed = 0,
    **further,
) -> None:
    """Judge a model on its test data: -ELBO, log-likelihood, KL, NLL and active units.

    On request: probes, disentanglement, outliers, quality of samples, predictive checks, rate and
    distortion.
    """
    _cli().evaluate(
        model,
        dataset,
        condition,
        num_samples=num_samples,
        batch_size=batch_size,
        annealed=annealed,
        seed=seed,
        wishes=Wishes(**further),
    )


@app.command(short_help="Generate examples.")
def sample(
    model: Model = None,
    num_examples: Annotated[int, typer.Option(min=1, help="How many.")] = 60,
    seed: Seed = 0,
    output: Annotated[
        Path | None,
        typer.Option(
            help="New file: .png for a picture, .txt for texts, .csv or .parquet for a table, .npz for "
            "arrays; default: samples.png, samples.txt or samples.csv."
        ),
    ] = None,
    condition: Annotated[
        str | None,
        typer.Option(help="Of a conditional model: a label such as 7, or numbers such as 0.5,1."),
    ] = None,
    draws: Annotated[
        bool,
        typer.Option("--draws", help="Draws from p(x|z) instead of its means, not for a picture."),
    ] = False,
) -> None:
    """Generate examples: means of p(x|z), or draws from it, for z from the prior."""
    _cli().sample(model, num_examples, seed, output, condition, draws=draws)


@app.command(short_help="Fill in missing values.")
def impute(
    data: Annotated[
        Path,
        typer.Argument(
            help=".npz or .npy file of an array, or .npz of the arrays of a table, with NaN in it; or the "
            ".csv or .parquet file of a table."
        ),
    ],
    model: Model = None,
    num_samples: Annotated[int, typer.Option(min=1, help="Draws of z for each example.")] = 1000,
    num_draws: Annotated[
        int | None,
        typer.Option(min=1, help="Draws of the missing values; default: their means instead."),
    ] = None,
    seed: Seed = 0,
    output: Annotated[
        Path | None,
        typer.Option(
            help="New file: the same data, without gaps; default: imputed.npz or imputed.csv."
        ),
    ] = None,
) -> None:
    """Fill in missing values, with a model that was trained with --missing."""
    _cli().impute(model, data, output, num_samples=num_samples, num_draws=num_draws, seed=seed)


@app.command(short_help="Tell how probable each row of a table is.")
def score(
    data: Annotated[Path, typer.Argument(help=".csv or .parquet file of a table.")],
    model: Model = None,
    num_samples: NumSamples = 1000,
    seed: Seed = 0,
    output: Annotated[
        Path, typer.Option(help="New .csv or .parquet file: the rows, and log_prob beside them.")
    ] = Path("scores.csv"),
) -> None:
    """Estimate log p(x) of each row of a table, in nats, such as to find unusual rows.

    The density of a number is per unit of its column, that of a date per day.
    """
    _cli().score(model, data, output, num_samples=num_samples, seed=seed)


@app.command(short_help="Export a model for TensorFlow Serving.")
def export(
    model: Model = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the served model; default: the data set's.")
    ] = None,
    saved_models: SavedModels = Path("saved_models"),
    score_samples: Annotated[
        int, typer.Option(min=1, help="Draws a row in the signature score.")
    ] = 16,
    log_prob_samples: Annotated[
        int, typer.Option(min=1, help="Draws a row in the signature log_prob.")
    ] = 128,
    keep: Annotated[
        int | None, typer.Option(min=1, help="Versions that stay, the newest ones; default: all.")
    ] = None,
    target: Annotated[
        list[str] | None, typer.Option(help="onnx or openvino: for these too; may be repeated.")
    ] = None,
) -> None:
    """Export a model as the next version of a SavedModel for TensorFlow Serving."""
    numbers = {"score_samples": score_samples, "log_prob_samples": log_prob_samples}
    _cli().export(model, name, saved_models, **numbers, keep=keep, targets=tuple(target or ()))


@app.command(short_help="Draw a model's pictures.")
def plot(
    model: Model = None,
    dataset: Dataset = None,
    condition: ConditionName = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder of the pictures; default: the run's.")
    ] = None,
    seed: Seed = 0,
) -> None:
    """Draw a model's pictures: reconstructions, samples, traversals, curves.

    Of a table its values.
    """
    _cli().plot(model, dataset, condition, output, seed)


@app.command(short_help="Write all about one run or several as one HTML file.")
def report(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Run folders, which are shown side by side; default: the newest run under runs/."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="The .html file; default: report.html in the run folder, or of several runs in the "
            "current one. An earlier report is replaced, any other file is not."
        ),
    ] = None,
    seed: Seed = 0,
) -> None:
    """Write numbers, pictures, curves and the configuration of runs as one HTML file.

    It needs no network and no other file.
    """
    _cli().write_report(runs or [], output, seed)


@app.command(short_help="Explore a model in the browser.")
def explore(
    model: Annotated[
        str | None,
        typer.Argument(
            help="Run folder, .keras file, SavedModel, or the address of a model on a server, such as "
            "http://localhost:8501/v1/models/digits or grpc://localhost:8500/digits; default: the "
            "newest run under runs/."
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Data to use; default: the run's own, and of a SavedModel or a server draws from the model."
        ),
    ] = None,
    condition: ConditionName = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the page; 0 takes a free one.")
    ] = 0,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Whether to open the page.")
    ] = True,
    seed: Seed = 0,
) -> None:
    """Explore a model in the browser: sliders, a map of the test set, paths, your own examples.

    Only this computer can open the page. Ctrl-C ends it.
    """
    _cli().explore(model, dataset, condition, port=port, browser=browser, seed=seed)


@app.command(short_help="List all runs.")
def runs(
    folder: Annotated[Path, typer.Argument(help="Folder of run folders.")] = Path("runs"),
) -> None:
    """List all runs: data, epochs, numbers, and the options that are not the usual ones."""
    _cli().list_runs(folder)


@app.command(short_help="Compare runs: options that differ, and numbers.")
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Two run folders or more.")],
) -> None:
    """Show the options in which runs differ and their numbers side by side, from their files alone."""
    _cli().compare(runs)


@app.command(short_help="Check this installation.")
def doctor() -> None:
    """Show versions and devices, and what is missing with the line that mends it.

    The exit code is 1 if the package cannot work as it is.
    """
    from tfp_vae_doctor import examine

    raise typer.Exit(0 if examine(Console(soft_wrap=True, highlight=False)) else 1)


@app.command("list", short_help="List what the options of train can name.")
def list_members(
    kind: Annotated[
        str | None,
        typer.Argument(
            help="posteriors, likelihoods, priors, objectives or networks; default: all."
        ),
    ] = None,
) -> None:
    """List what can be named in the options of train, with a line on each."""
    _cli().list_members(kind)


@app.command(short_help="Rewrite programs on tf_keras and tfp.layers.")
def migrate(
    files: Annotated[list[Path], typer.Argument(help="Programs (.py) and notebooks (.ipynb).")],
    in_place: Annotated[
        bool, typer.Option("--in-place", help="Rewrite the files; default: only print a diff.")
    ] = False,
) -> None:
    """Rewrite programs on tf_keras and tfp.layers to Keras 3 and this package.

    What it cannot decide becomes a comment.
    """
    _cli().migrate(files, in_place=in_place)


def _cli():
    """Import the package and TensorFlow without TensorFlow's start-up log (Python's own errors are
    still shown).
    """
    if "tfp_vae.cli" in sys.modules:
        return sys.modules["tfp_vae.cli"]
    if "tensorflow" not in sys.modules:
        import tfp_vae_cache

        tfp_vae_cache.keep_programs()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("absl").setLevel(logging.ERROR)
    stderr = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    # What imports make stays. To look through it for garbage would take two seconds of a command.
    gc.disable()
    try:
        from tfp_vae import cli
    finally:
        gc.freeze()
        gc.enable()
        os.dup2(stderr, 2)
        os.close(stderr)
    return cli


def run(arguments: list[str]) -> int:
    """Run a command line and return its exit code.

    Bad input prints one line and returns 2; Ctrl-C returns 130.
    """
    try:
        return app(arguments or ["--help"], standalone_mode=False) or 0
    except _users_errors() as error:
        if os.environ.get("TFP_VAE_TRACEBACK"):
            raise
        Console(stderr=True, soft_wrap=True, highlight=False).print(
            f"[bold red]error:[/] {escape(_one_line(error))}"
        )
        return 2


def _users_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions that bad input, a full disk or too little memory lead to.

    They include TensorFlow's own errors once it is imported.
    """
    tensorflow = sys.modules.get("tensorflow")
    own = (tensorflow.errors.OpError,) if tensorflow else ()
    return (typer.TyperException, ValueError, TypeError, OSError, ImportError, MemoryError, *own)


def _one_line(error: Exception) -> str:
    if isinstance(error, typer.TyperException):
        return " ".join(error.format_message().split())
    # This module is imported only together with TensorFlow, whose errors it handles.
    failures = sys.modules.get("tfp_vae.cli.failures")
    return failures.in_words(error) if failures else " ".join(str(error).split())


def main() -> None:
    """Start from the shell."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
