"""A whole SparK training step: visible blocks against masked-dense execution and against a dense MAE like nnssl's."""

import multiprocessing
import time
from statistics import median

import torch
from dynamic_network_architectures.architectures.unet import ResidualEncoderUNet
from jaxtyping import Float, Int
from torch import Tensor, nn

from benchmarks._memory import read_peak_mb
from medssl.data.crops import Crops
from medssl.nn.encoder import ResEncoder
from medssl.objectives.reconstruction.spark import Config, Spark

BLOCKS = (1, 2, 2, 2)
CPU = ((64, 2, 5), (96, 1, 3))  # side of the crop, crops in a batch, pairs of steps
GPU = ((128, 2, 20),)
RATIOS = (0.60, 0.75)
COLUMNS = (
    "dense s", "blocks s", "faster", "MAE s", "faster than MAE", "dense peak MB", "blocks peak MB", "dense kept MB",
    "blocks kept MB",
)  # fmt: skip


def main() -> None:
    """Prints one markdown table."""
    torch.set_num_threads(1)
    gpu = torch.cuda.is_available()
    where = f"{torch.cuda.get_device_name()}, bf16" if gpu else "CPU, fp32, 1 thread"
    net = f"ResEncoder((32, 64, 128, 256), blocks={BLOCKS}), default decoder, AdamW"
    print(f"{net}; {where}, torch {torch.__version__}\n")
    print(f"| crop | batch | hidden | {' | '.join(COLUMNS)} |\n{'|---' * (3 + len(COLUMNS))}|")
    for side, batch, pairs in GPU if gpu else CPU:
        for ratio in RATIOS:
            times = time_pairs(side, batch, ratio, pairs)
            dense, blocks, mae = (median(t) for t in zip(*times, strict=True))
            faster, than_mae = (median(t[n] / t[1] for t in times) for n in (0, 2))
            peaks = [peak_mb(side, batch, ratio, way) for way in (True, False)]
            saved_mb = [measure_saved_mb(side, batch, ratio, way) for way in (True, False)]
            row = f"| {side}^3 | {batch} | {ratio:.2f} | {dense:.2f} | {blocks:.2f} | {faster:.2f}x "
            row += f"| {mae:.2f} | {than_mae:.2f}x "
            print(f"{row}| {peaks[0]:.0f} | {peaks[1]:.0f} | {saved_mb[0]:.0f} | {saved_mb[1]:.0f} |", flush=True)
    print("\nSeconds are CPU time on CPU, which other processes disturb least, and wall time on GPU; `faster` is the")
    print("median of paired steps. Peak: growth of the process during the first step. Kept: held for the way back.")
    print("MAE: the step of nnssl's BaseMAETrainer, made again from its description with the same layers from")
    print("dynamic-network-architectures: a dense ResidualEncoderUNet with one convolution a decoder level, hidden")
    print("patches set to zero, squared error on them, SGD with Nesterov momentum.")


class TimedSpark:
    """A network with its optimiser, on crops of noise: what is computed does not depend on the values."""

    def __init__(self, side: int, batch: int, ratio: float) -> None:
        torch.manual_seed(0)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        encoder = ResEncoder(blocks=BLOCKS)
        self.learner = Spark(Config(mask_ratio=ratio), encoder).to(self.device)
        self.optimiser = torch.optim.AdamW(self.learner.parameters(), lr=1e-4)
        self.crops = crops(torch.rand(batch, 1, 1, side, side, side, device=self.device))

    def forward(self, dense: bool) -> Float[Tensor, ""]:
        """The loss; outside of training a draw repeats, so that both ways get the same mask."""
        self.learner.encoder.dense = dense
        self.learner.draws.eval()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            return self.learner.step(self.crops).loss

    def step(self, dense: bool) -> float:
        """Seconds of one step: forward, loss, backward, optimiser."""
        start = self.clock()
        self.optimiser.zero_grad()
        self.forward(dense).backward()
        self.optimiser.step()
        return self.clock() - start

    def clock(self) -> float:
        """Seconds, after all queued work is done."""
        if self.device.type == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()


class DenseMae:
    """The MAE of nnssl with the network of the bench: widths, strides and blocks are the same."""

    def __init__(self, bench: TimedSpark, ratio: float) -> None:
        torch.manual_seed(0)
        widths, strides = bench.learner.encoder.channels, bench.learner.encoder.strides
        self.bench = bench
        self.network = ResidualEncoderUNet(
            1, 4, widths, nn.Conv3d, 3, strides, BLOCKS, 1, 1, True, nn.InstanceNorm3d, {"eps": 1e-5, "affine": True},
            nonlin=nn.LeakyReLU, nonlin_kwargs={"inplace": True},
        ).to(bench.device)  # fmt: skip
        self.optimiser = torch.optim.SGD(
            self.network.parameters(), 1e-2, momentum=0.99, nesterov=True, weight_decay=3e-5
        )
        x = bench.crops.x.flatten(0, 1)
        patches = [n // p for n, p in zip(x.shape[2:], bench.learner.encoder.patch, strict=True)]
        visible = torch.rand(len(x), 1, *patches, device=bench.device) >= ratio
        self.visible = nn.functional.interpolate(visible.float(), x.shape[2:])

    def step(self) -> float:
        """Seconds of one step: forward, loss, backward, optimiser."""
        start, x = self.bench.clock(), self.bench.crops.x.flatten(0, 1)
        self.optimiser.zero_grad()
        with torch.autocast(x.device.type, torch.bfloat16, enabled=x.device.type == "cuda"):
            error = (self.network(x * self.visible) - x).square()
        ((error * (1 - self.visible)).sum() / (1 - self.visible).sum()).backward()
        self.optimiser.step()
        return self.bench.clock() - start


def time_pairs(side: int, batch: int, ratio: float, pairs: int) -> list[tuple[float, float, float]]:
    """Seconds of dense and of block steps and of steps of the MAE, taken in turn after one warm-up each."""
    bench = TimedSpark(side, batch, ratio)
    mae = DenseMae(bench, ratio)
    return [(bench.step(dense=True), bench.step(dense=False), mae.step()) for _ in range(pairs + 1)][1:]


def measure_saved_mb(side: int, batch: int, ratio: float, dense: bool) -> float:
    """Memory that the forward pass holds for the way back, each storage counted once, weights left out."""
    bench = TimedSpark(side, batch, ratio)
    weights = {p.untyped_storage().data_ptr() for p in bench.learner.parameters()}
    sizes: dict[int, int] = {}

    def count(x: Tensor) -> Tensor:
        sizes[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(count, lambda x: x):
        loss = bench.forward(dense)
    total = sum(size for key, size in sizes.items() if key not in weights)
    del loss
    return total / 2**20


def peak_mb(side: int, batch: int, ratio: float, dense: bool) -> float:
    """How far the memory of a fresh process grows in one step."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_mb, (side, batch, ratio, dense))


def _peak_mb(side: int, batch: int, ratio: float, dense: bool) -> float:
    bench = TimedSpark(side, batch, ratio)
    if bench.device.type == "cuda":
        allocated = torch.cuda.memory_allocated()
        bench.step(dense)
        return (torch.cuda.max_memory_allocated() - allocated) / 2**20
    before = read_peak_mb()
    bench.step(dense)
    return read_peak_mb() - before


def crops(x: Float[Tensor, "b v c i j k"], label: Int[Tensor, "b v i j k"] | None = None) -> Crops:
    """Crops that are whole volumes of their own."""
    b, v, size = len(x), x.shape[1], torch.tensor(x.shape[3:])
    corner = torch.zeros(b, v, 3, dtype=torch.int64)
    return Crops(x, corner, size.expand(b, 3), torch.eye(4).expand(b, v, 4, 4), torch.arange(b), label)


if __name__ == "__main__":
    main()
