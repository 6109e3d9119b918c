"""Tables: imputation and generation beside scikit-learn's imputers and SDV's TVAE and CTGAN.

python benchmarks/tables.py                                # all tables, without TVAE and CTGAN
pip install --target peers ctgan                           # with its torch, into a folder of its own
python benchmarks/tables.py --peers peers --tables wine mixed

It writes the end of docs/tables.md. All contenders have their default settings but IterativeImputer, which has 20
rounds instead of 10; those of tfp_vae's imputer were chosen on other splits of the same tables. All seeds are 0.
--epochs is a shorter training of tfp_vae.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pandas as pd
from sklearn import datasets
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits

from tfp_vae.sklearn import Imputer

PAGE, MARK = Path("docs/tables.md"), "<!-- Written by benchmarks/tables.py: -->\n"
SHARE, DRAWS, LEVEL = 0.2, 50, 0.9  # missing values; draws of each of them; of the intervals
PEERS = """
import sys, pandas, ctgan
name, source, target, number, discrete = sys.argv[1:6]
frame = pandas.read_csv(source)
model = getattr(ctgan, name)()
model.set_random_state(0)
model.fit(frame, [column for column in discrete.split(",") if column])
model.sample(int(number)).to_csv(target, index=False)
"""


def of_sklearn(load):
    bunch = load(as_frame=True)
    return bunch.frame, "target"


def mixed(number=1000):
    """One factor drives numbers, counts, categories and a flag; the target depends on it and on noise."""
    random = np.random.default_rng(0)
    z = random.normal(size=(number, 2))
    logits = z @ random.normal(size=(2, 4)) * 1.5
    frame = pd.DataFrame(
        {
            "size": (170 + 8 * z[:, 0] + 2 * random.normal(size=number)).round(1),
            "weight": (70 + 8 * z[:, 0] + 4 * z[:, 1] + 3 * random.normal(size=number)).round(1),
            "visits": random.poisson(np.exp(0.7 * z[:, 1] + 1)),
            "income": np.exp(7 + 0.5 * z[:, 0] + 0.3 * random.normal(size=number)).round(),
            "job": np.array(["clerk", "cook", "pilot", "nurse"])[
                (logits + random.gumbel(size=logits.shape)).argmax(1)
            ],
            "smokes": z[:, 1] + random.normal(size=number) > 0,
            "target": (z.sum(1) + random.normal(size=number) > 0).astype(int),
        }
    )
    return frame, "target"


TABLES = {
    "wine": lambda: of_sklearn(datasets.load_wine),
    "breast cancer": lambda: of_sklearn(datasets.load_breast_cancer),
    "diabetes": lambda: of_sklearn(datasets.load_diabetes),
    "mixed": mixed,
}


def is_name(values) -> bool:
    return values.dtype.kind not in "iuf"


def one_hot(frame, like):
    """Numbers alone, for imputers that know no names: NaN where a name is missing."""
    parts = {}
    for name in frame:
        if is_name(like[name]):
            for value in sorted(like[name].unique()):
                same = (frame[name] == value).astype(float)
                parts[name, value] = same.where(frame[name].notna())
        else:
            parts[name, ""] = frame[name].astype(float)
    return pd.DataFrame(parts)


def from_one_hot(numbers, like):
    frame = {}
    for name in like:
        if is_name(like[name]):
            frame[name] = numbers[name].idxmax(axis=1)
        else:
            frame[name] = numbers[name, ""]
    return pd.DataFrame(frame)


class OnNumbers:
    """An imputer of scikit-learn on standardized and one-hot columns."""

    def __init__(self, imputer):
        self.imputer = imputer

    def fit(self, frame, like):
        self.like = like
        numbers = one_hot(frame, like)
        self.mean, self.scale = numbers.mean(), numbers.std() + 1e-9
        self.imputer.fit(((numbers - self.mean) / self.scale).to_numpy())
        return self

    def transform(self, frame):
        numbers = (one_hot(frame, self.like) - self.mean) / self.scale
        filled = pd.DataFrame(
            self.imputer.transform(numbers.to_numpy()), frame.index, numbers.columns
        )
        return from_one_hot(filled * self.scale + self.mean, self.like)


def errors(filled, truth, missing):
    """Root mean squared error of numbers in standard deviations, and the share of wrong names."""
    squares, wrong = [], []
    for name in truth:
        at = missing[name].to_numpy()
        if is_name(truth[name]):
            wrong.append(filled[name].astype(str).to_numpy()[at] != truth[name].astype(str)[at])
        else:
            residual = filled[name].to_numpy(float)[at] - truth[name].to_numpy(float)[at]
            squares.append((residual / truth[name].std()) ** 2)
    share = np.concatenate(wrong).mean() if wrong else np.nan
    return np.sqrt(np.concatenate(squares).mean()), share


def coverage(draws, truth, missing):
    """Share of the missing numbers that lie in the interval between quantiles of their draws."""
    inside = []
    for name in truth:
        if not is_name(truth[name]):
            values = np.stack([draw[name].to_numpy(float) for draw in draws])
            low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
            number = truth[name].to_numpy(float)
            inside.append(((low <= number) & (number <= high))[missing[name].to_numpy()])
    return np.concatenate(inside).mean()


def calibrated(number=100_000):
    """The coverage of draws that are distributed as the truth is: less than LEVEL, as quantiles of few
    draws are closer together.
    """
    drawn = np.random.default_rng(0).normal(size=(DRAWS + 1, number, 1))
    draws = [pd.DataFrame(values) for values in drawn]
    return coverage(draws[1:], draws[0], draws[0].notna())


def imputation(train, test, epochs):
    random = np.random.default_rng(1)
    holes = [part.mask(random.uniform(size=part.shape) < SHARE) for part in (train, test)]
    missing = holes[1].isna()
    like = pd.concat([train, test])
    rows = {}
    for name, imputer in {
        "means and modes": SimpleImputer(),
        "KNNImputer": KNNImputer(),
        "IterativeImputer": IterativeImputer(max_iter=20, random_state=0),
    }.items():
        start = time.perf_counter()
        filled = OnNumbers(imputer).fit(holes[0], like).transform(holes[1])
        rows[name] = [*errors(filled, test, missing), np.nan, time.perf_counter() - start]
    drawn = []
    for seed in range(DRAWS):
        sampler = IterativeImputer(max_iter=20, random_state=seed, sample_posterior=True)
        with threadpool_limits(1):  # more threads take longer for so few rows
            drawn.append(OnNumbers(sampler).fit(holes[0], like).transform(holes[1]))
    rows["IterativeImputer"][2] = coverage(drawn, test, missing)
    start = time.perf_counter()
    own = Imputer(epochs=epochs).fit(holes[0])
    filled = own.transform(holes[1])
    seconds = time.perf_counter() - start
    draws = own.vae_.impute(holes[1], 200, num_draws=DRAWS)
    drawn = [draws.loc[draw] for draw in range(DRAWS)]
    rows["tfp_vae"] = [*errors(filled, test, missing), coverage(drawn, test, missing), seconds]
    return rows


def efficacy(train, test, target):
    """Accuracy, or of a number the share of explained variance, of a forest on the real test rows."""
    is_number = train[target].dtype.kind == "f" or train[target].nunique() > 20
    forest = (RandomForestRegressor if is_number else RandomForestClassifier)(random_state=0)
    both = pd.get_dummies(pd.concat([train, test]).drop(columns=target))
    answers = train[target] if is_number else train[target].astype(str)
    truth = test[target] if is_number else test[target].astype(str)
    forest.fit(both[: len(train)], answers)
    return forest.score(both[len(train) :], truth)


def of_peer(name, train, target, folder):
    """Rows drawn by a model of the package ctgan, in a process of its own, which has torch."""
    with tempfile.TemporaryDirectory() as work:
        train.to_csv(f"{work}/train.csv", index=False)
        is_label = train[target].nunique() <= 20
        discrete = ",".join(c for c in train if is_name(train[c]) or (c == target and is_label))
        files = [f"{work}/train.csv", f"{work}/new.csv", str(len(train)), discrete]
        environment = {**os.environ, "PYTHONPATH": str(folder)}
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", PEERS, name, *files], check=True, env=environment
        )
        return pd.read_csv(f"{work}/new.csv")


def likelihoods(train, test, epochs):
    """Log-densities of the test rows by tfp_vae, and by one multivariate normal if all are numbers."""
    own = np.asarray(Imputer(epochs=epochs).fit(train).vae_.log_prob(test, 1000))
    if any(is_name(train[name]) for name in train):
        return own, None
    return own, GaussianMixture(reg_covar=1e-9).fit(train).score_samples(test)


def with_error(differences) -> str:
    """Mean and standard error of the differences of pairs."""
    error = differences.std(ddof=1) / len(differences) ** 0.5
    return f"{differences.mean():.2f} ± {error:.2f}"


def of_normal(train, target):
    """Rows drawn from one multivariate normal, the target rounded."""
    normal = GaussianMixture(reg_covar=1e-9, random_state=0).fit(train)
    drawn = pd.DataFrame(normal.sample(len(train))[0], columns=train.columns)
    drawn[target] = drawn[target].round().clip(train[target].min(), train[target].max())
    if train[target].nunique() <= 20:
        drawn[target] = drawn[target].astype(int)
    return drawn


def generation(train, test, target, epochs, peers):
    start = time.perf_counter()
    vae = Imputer(epochs=epochs).fit(train).vae_
    seconds = time.perf_counter() - start
    new = vae.generate(len(train), draws=True)
    own, normal = likelihoods(train.drop(columns=target), test.drop(columns=target), epochs)
    rows = {"real rows": [efficacy(train, test, target), np.nan, "", 0.0]}
    if normal is not None:
        drawn = of_normal(train, target)
        rows["one multivariate normal"] = [
            efficacy(drawn, test, target),
            normal.mean(),
            with_error(own - normal),
            0.0,
        ]
    rows["tfp_vae"] = [efficacy(new, test, target), own.mean(), "", seconds]
    for name in ("TVAE", "CTGAN") if peers else ():
        start = time.perf_counter()
        drawn = of_peer(name, train, target, peers)
        spent = time.perf_counter() - start
        rows[name] = [efficacy(drawn, test, target), np.nan, "", spent]
    return rows


def measure(name, epochs, peers):
    """Both tables of a data set, as lines of a page."""
    frame, target = TABLES[name]()
    order = np.random.default_rng(0).permutation(len(frame))
    train, test = (
        frame.iloc[rows].reset_index(drop=True) for rows in np.split(order, [len(frame) * 4 // 5])
    )
    # Every category, and both ends of each range, are known from all rows, as in `datasets.load`.
    known = within(test, train)
    for contender, row in imputation(train, known, epochs).items():
        yield "imputation", [name, contender, *row]
    for contender, row in generation(train, known, target, epochs, peers).items():
        yield "generation", [name, contender, *row]


def within(test, train):
    """The test rows whose whole numbers lie in the range of the training rows, and whose names occur there."""
    good = np.ones(len(test), bool)
    for name in train:
        if is_name(train[name]):
            good &= test[name].isin(train[name].unique()).to_numpy()
        elif (train[name] % 1 == 0).all():
            good &= test[name].between(train[name].min(), train[name].max()).to_numpy()
    return test[good].reset_index(drop=True)


HEADS = {
    "imputation": (
        "table",
        "imputer",
        "error of numbers (standard deviations)",
        "wrong names",
        "coverage of 90 % intervals",
        "seconds",
    ),
    "generation": (
        "table",
        "rows from",
        "score of a forest on real rows",
        "held-out log-likelihood without the target (nats per row)",
        "that of tfp_vae minus it, ± standard error",
        "seconds",
    ),
}


def page(rows, command) -> str:
    def cell(value):
        return value if isinstance(value, str) else "" if np.isnan(value) else f"{value:.3f}"

    lines = [
        f"`{command}`",
        "",
        f"With {DRAWS} draws, intervals of a perfectly calibrated sampler cover {calibrated():.2f}.",
        "",
    ]
    for kind, head in HEADS.items():
        lines += [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
        lines += [f"| {' | '.join(map(cell, row))} |" for found, row in rows if found == kind]
        lines.append("")
    return "\n".join(lines)


def main(names, epochs, peers) -> str:
    rows = []
    for name in names:
        for row in measure(name, epochs, peers):
            print(*row, file=sys.stderr, flush=True)
            rows.append(row)
    chosen = " ".join(f"'{name}'" if " " in name else name for name in names)
    command = f"python benchmarks/tables.py --tables {chosen}"
    command += f" --epochs {epochs}" if epochs else ""
    return page(rows, command + " --peers peers" * bool(peers))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=[*TABLES])
    parser.add_argument("--epochs", type=int, help="default: the usual ones")
    parser.add_argument("--peers", type=Path, help="folder in which ctgan is installed")
    arguments = parser.parse_args()
    peers = arguments.peers and arguments.peers.resolve()
    text = main(arguments.tables, arguments.epochs, peers)
    print(text)
    if PAGE.is_file():
        before = PAGE.read_text().partition(MARK)[0]
        PAGE.write_text(f"{before}{MARK}\n{text}")
