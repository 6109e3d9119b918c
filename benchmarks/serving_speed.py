"""Latency and rows a second of a served VAE, 784-512-32-512-784, in several runtimes, all on the same weights.

Run: make benchmark   (or: python benchmarks/serving_speed.py --threads 1 --clients 2 --batch-sizes 32 512)

Each runtime answers `encode` and `reconstruct` in a process of its own, with the same number of threads, and its
answers are compared with the live model's. All take turns over the rounds. A latency is that of one request; with
several clients, each in a thread of its own, requests share the cores.
"""

import argparse
import concurrent.futures
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parents[1]))  # for tests.c_api

DIM, HIDDEN, LATENT = 784, 512, 32
SIGNATURES = ("encode", "reconstruct")


def make_vae():
    import keras

    import tfp_vae
    from tfp_vae import layers as tfpl

    keras.utils.set_random_seed(0)
    encoder = [
        keras.Input((DIM,)),
        keras.layers.Dense(HIDDEN, "relu"),
        keras.layers.Dense(2 * LATENT),
    ]
    decoder = [keras.Input((LATENT,)), keras.layers.Dense(HIDDEN, "relu"), keras.layers.Dense(DIM)]
    return tfp_vae.VAE(
        keras.Sequential([*encoder, tfpl.MultivariateNormalDiag(LATENT)]),
        keras.Sequential([*decoder, tfpl.IndependentBernoulli(DIM)]),
    )


# Contenders: folder, threads and clients give a function of signature and x, which gives two: one that answers, and one
# that tells its last loc or mean. What is timed begins with tensors of the runtime's own and ends with such, as in a
# server that has parsed a request.

FIRST = {"encode": "loc", "reconstruct": "mean"}


def saved_model_in_python(folder, threads, clients):
    import tensorflow as tf

    set_threads(threads)
    model = tf.saved_model.load(str(folder))

    def bind(signature, x):
        function, tensor = model.signatures[signature], tf.constant(x)
        return keeping(
            lambda: function(x=tensor), lambda outputs: outputs[FIRST[signature]].numpy()
        )

    return bind


def cpp_session(folder, threads, clients):
    import tensorflow as tf

    from tests import c_api

    # -1: the operations of a request run in the thread that asks, which spares the way to another and back
    config = tf.compat.v1.ConfigProto(
        intra_op_parallelism_threads=threads, inter_op_parallelism_threads=-1
    )
    session = c_api.Session(folder, config.SerializeToString())

    def bind(signature, x):
        run = session.bound(signature, x=x)
        return run, lambda: run.outputs()[FIRST[signature]]

    return bind


def live_vae(folder, threads, clients):
    import tensorflow as tf

    set_threads(threads)
    vae = make_vae()
    vae.compile()

    def bind(signature, x):
        if signature == "encode":
            tensor = tf.constant(x)
            return keeping(lambda: vae.encode(tensor), lambda posterior: posterior.loc.numpy())
        return keeping(lambda: vae.predict(x, batch_size=len(x), verbose=0), np.asarray)

    return bind


def onnx_runtime(folder, threads, clients):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    sessions = {}
    for signature in SIGNATURES:
        path = folder / "assets.extra" / f"{signature}.onnx"
        sessions[signature] = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )

    def bind(signature, x):
        session = sessions[signature]
        binding = session.io_binding()
        binding.bind_ortvalue_input("x", onnxruntime.OrtValue.ortvalue_from_numpy(x))
        for output in session.get_outputs():
            binding.bind_output(output.name)
        first = [output.name for output in session.get_outputs()].index(FIRST[signature])
        return lambda: session.run_with_iobinding(binding), lambda: binding.get_outputs()[
            first
        ].numpy()

    return bind


def openvino(folder, threads, clients):
    import openvino

    options = {
        "NUM_STREAMS": clients,
        "INFERENCE_NUM_THREADS": threads * clients,
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
    }
    models = {
        signature: openvino.compile_model(
            str(folder / "assets.extra" / f"{signature}.xml"), "CPU", options
        )
        for signature in SIGNATURES
    }

    def bind(signature, x):
        request = models[signature].create_infer_request()
        request.set_tensor("x", openvino.Tensor(x))
        return request.infer, lambda: request.get_tensor(FIRST[signature]).data

    return bind


def torchscript(folder, threads, clients):
    import torch

    torch.set_num_threads(threads)
    weights = [torch.from_numpy(value) for value in np.load(folder / "weights.npz").values()]

    def dense(x, layer):
        return x @ weights[2 * layer] + weights[2 * layer + 1]

    def encode(x):
        loc, scale = dense(torch.relu(dense(x, 0)), 1).chunk(2, -1)
        return loc, torch.nn.functional.softplus(scale) + 1e-5

    def reconstruct(x):
        return (torch.sigmoid(dense(torch.relu(dense(encode(x)[0], 2)), 3)),)

    example = torch.zeros([2, DIM])
    with torch.inference_mode():
        traced = {
            "encode": torch.jit.trace(encode, example),
            "reconstruct": torch.jit.trace(reconstruct, example),
        }

    def bind(signature, x):
        tensor = torch.from_numpy(x)

        def run():
            with torch.inference_mode():
                return traced[signature](tensor)

        return keeping(run, lambda outputs: outputs[0].numpy())

    return bind


def keeping(run, read):
    """Pair a function that gives its outputs with one that reads the last of them."""
    last = []

    def run_and_keep():
        last[:] = [run()]

    return run_and_keep, lambda: read(last[0])


CONTENDERS = {
    "C++ session, as TensorFlow Serving": cpp_session,
    "SavedModel in Python": saved_model_in_python,
    "live: vae.encode, vae.predict": live_vae,
    "ONNX Runtime": onnx_runtime,
    "OpenVINO": openvino,
    "TorchScript": torchscript,
}


def set_threads(threads):
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def measure(name, arguments):
    """Return latencies, and rows a second, by signature and batch size; all clients at the same time."""
    bind, found = CONTENDERS[name](arguments.folder, arguments.threads, arguments.clients), {}
    expected = np.load(arguments.folder / "expected.npz")
    for signature in SIGNATURES:
        for size in arguments.batch_sizes:
            x = np.resize(expected["x"], [size, DIM])
            clients = [bind(signature, x) for _ in range(arguments.clients)]
            for run, read in clients:
                for _ in range(20):
                    run()
                rows = min(size, len(expected[signature]))
                np.testing.assert_allclose(
                    read()[:rows], expected[signature][:rows], rtol=1e-3, atol=1e-3
                )
            with concurrent.futures.ThreadPoolExecutor(len(clients)) as pool:
                start = time.perf_counter()
                asked = [pool.submit(ask, run, arguments.seconds) for run, _ in clients]
                latencies = [latency for future in asked for latency in future.result()]
                found[f"{signature} {size}"] = (
                    latencies,
                    size * len(latencies) / (time.perf_counter() - start),
                )
    return found


def ask(run, seconds):
    """Run again and again; give the latencies."""
    latencies, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        run()
        latencies.append(time.perf_counter() - start)
    return latencies


def prepare(folder):
    """Export the model for all runtimes, with its weights and what it should answer."""
    vae = make_vae()
    version = vae.export(folder / "vae", targets=("onnx", "openvino"))
    x = np.random.default_rng(0).uniform(size=[512, DIM]).astype("float32")
    answers = {"encode": vae.encode(x[:16]).loc, "reconstruct": vae.reconstruct(x[:16])}
    np.savez(version / "expected.npz", x=x, **answers)
    np.savez(version / "weights.npz", *vae.get_weights())
    return version


def run(name, arguments, folder):
    """Run one contender in a new process."""
    command = [__file__, "--only", name, "--folder", folder, "--threads", arguments.threads]
    command += [
        "--clients",
        arguments.clients,
        "--seconds",
        arguments.seconds,
        "--batch-sizes",
        *arguments.batch_sizes,
    ]
    result = subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, check=False
    )
    if result.returncode:
        sys.exit(f"{name} failed:\n{result.stderr[-2000:]}")
    return json.loads(result.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 32, 512])
    parser.add_argument(
        "--threads", type=int, default=1, help="of each runtime, within one operation"
    )
    parser.add_argument("--clients", type=int, default=1, help="threads that ask at the same time")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--only", choices=CONTENDERS, help="run this contender here, print its latencies as json"
    )
    parser.add_argument("--folder", type=Path, help="of the version that --only measures")
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(measure(arguments.only, arguments)))
        return
    latencies, speeds = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        version = prepare(Path(folder))
        for _ in range(arguments.rounds):
            for name in CONTENDERS:
                for case, (values, speed) in run(name, arguments, version).items():
                    latencies.setdefault(case, {}).setdefault(name, []).extend(values)
                    speeds.setdefault((case, name), []).append(speed)
    asked = f"threads of an operation: {arguments.threads}, clients: {arguments.clients}, cores: {os.cpu_count()}"
    print(f"{asked}; milliseconds a request, rows a second")
    for case, found in latencies.items():
        print(f"\n{case + ' rows':42}{'p50':>9}{'p99':>9}{'rows/s':>12}")
        for name, values in found.items():
            p50, p99 = np.percentile(values, [50, 99])
            print(f"{name:42}{1e3 * p50:9.3f}{1e3 * p99:9.3f}{np.mean(speeds[case, name]):12,.0f}")


if __name__ == "__main__":
    main()
