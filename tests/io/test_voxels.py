"""The values of a label map are listed completely without sorting all voxels."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as shaped

from medssl.io.voxels import list_label_values

KINDS = st.sampled_from([np.uint8, np.int16, np.int32, np.float32])


@given(
    KINDS.flatmap(
        lambda kind: shaped.arrays(kind, shaped.array_shapes(max_dims=3, min_side=0), elements=st.integers(0, 90))
    )
)
def test_every_number_that_occurs_is_named_once_in_order(label):
    assert (
        list_label_values(label) == list_label_values(np.asfortranarray(label)) == np.unique(label).astype(int).tolist()
    )
