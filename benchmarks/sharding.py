"""What FSDP saves of the memory of a GPU, by the model of `medssl plan`: state of the weights against activations."""

from medssl.nn.encoders.resenc import Config
from medssl.planning.network_cost import STATE_BYTES, WORKSPACE, estimate_cost

PROCESSES, BATCH, SIDES = 8, 2, (128, 160)
WHOLE_BYTES = 8  # per parameter with FSDP: the whole weights, and the whole gradients at the end of a backward pass


def main() -> None:
    """Prints a markdown table."""
    divided_bytes = WHOLE_BYTES + STATE_BYTES / PROCESSES
    print(
        f"A ResEnc-L U-Net in float32 with Adam, {BATCH} crops on each of {PROCESSES} GPUs; calculated, not measured\n"
    )
    print("| crop | million parameters | state, ddp GB | state, fsdp GB | activations GB | saved |")
    print("|---|---|---|---|---|---|")
    for side in SIDES:
        cost = estimate_cost(Config(size="L"), 1, (side, side, side))
        whole, divided = (size * cost.parameters / 2**30 for size in (STATE_BYTES, divided_bytes))
        activations = WORKSPACE * BATCH * cost.saved_bytes / 2**30
        row = f"| {side}^3 | {cost.parameters / 1e6:.0f} | {whole:.1f} | {divided:.1f} | {activations:.1f} "
        print(f"{row}| {(whole - divided) / (whole + activations):.1%} |")


if __name__ == "__main__":
    main()
