"""What occurs in a label, found without sorting it."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as shaped

from medssl.io.voxels import present

KINDS = st.sampled_from([np.uint8, np.int16, np.int32, np.float32])


@given(
    KINDS.flatmap(
        lambda kind: shaped.arrays(kind, shaped.array_shapes(max_dims=3, min_side=0), elements=st.integers(0, 90))
    )
)
def test_every_number_that_occurs_is_named_once_in_order(label):
    assert present(label) == present(np.asfortranarray(label)) == np.unique(label).astype(int).tolist()
