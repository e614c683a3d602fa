"""Shuffles the numbers below a size one at a time, without a list of them."""

ROUNDS = 8
MIN_HALF_BITS = 2  # a smaller domain has too few permutations to be even
MASK_64 = 2**64 - 1


def permute_index(index: int, size: int, *key: int) -> int:
    """Returns the place of a number in a pseudorandom permutation of the numbers below `size`.

    Time and memory do not depend on the size. A Feistel network over the next power of 4 permutes all numbers below
    that power; a result outside the size is permuted again until it lies inside ("cycle walking", Black and Rogaway,
    "Ciphers with arbitrary finite domains" (2002), https://doi.org/10.1007/3-540-45760-7_9).

    Args:
        index: A number from 0 to size - 1.
        size: How many numbers are permuted.
        key: Numbers that select the permutation, such as a seed and the number of an epoch.

    Raises:
        IndexError: The number is not below the size.
    """
    if not 0 <= index < size:
        raise IndexError(f"index {index} is outside 0 to {size - 1}")
    secret = 0
    for number in key:
        secret = _mix(secret ^ (number & MASK_64))
    half_bits = max(MIN_HALF_BITS, ((size - 1).bit_length() + 1) // 2)
    mask = (1 << half_bits) - 1
    while True:
        high, low = index >> half_bits, index & mask
        for round_ in range(ROUNDS):
            high, low = low, high ^ (_mix(secret + (low << 8) + round_) & mask)
        index = (high << half_bits) | low
        if index < size:
            return index


def _mix(number: int) -> int:
    """Hashes 64 bits: the step of Steele et al., "Fast splittable pseudorandom number generators" (2014)."""
    number = (number + 0x9E3779B97F4A7C15) & MASK_64
    number = ((number ^ (number >> 30)) * 0xBF58476D1CE4E5B9) & MASK_64
    number = ((number ^ (number >> 27)) * 0x94D049BB133111EB) & MASK_64
    return number ^ (number >> 31)
