"""High-throughput JPEG 2000: pixels that another program (OpenJPH 0.26) compressed come out as they went in."""

from base64 import b85decode

import numpy as np
import pytest
from pydicom.uid import HTJ2K, HTJ2KLossless, HTJ2KLosslessRPCL

from medssl.errors import BadInput
from medssl.io import dicom
from tests.helpers.dicom_phantom import error_against_truth, make_slices, save, with_compressed_frames

# What `slices(count=3)` of dicom_phantom shows, painted: 12 x 16 signed 16-bit numbers each, reversible.
HEAD = (
    "|4;u>04YEK0000G0000C00000000000000G0000C000000000000EBy0sl|{2mk^A000XAQUDA90ssL31q1{@0smY86Cj9?kdTm&kdTm&kdTmwh="
    "~7W02crOPjF>!N>E53R%LP^FfKASE;BCwkN^q*00000"
)
FRAMES = tuple(
    b85decode(HEAD + rest)
    for rest in (
        "p8x^>lfVEa_yLD>006)M62JfwzyK0}mjMTK0Ga^@bO81M$8-R|029Cf5&%Io`~Zk_0PPAh0KfnhZ~z5N00Ah4vk?9O1@{0v7XVCDbpQZwtY!e>60GC"
        "^zyK{600pZ60ICA;0{jCY`U1A!T3AL>#Tozr01g5GkRm{GYv+?*a^oi3)@pqK0^k8V*+iP*7y$p-",
        "q5uK^lfVEbCjJ5kbN~Rr0206e62JfwfR_OWbO4wE2Xp}T0LOFyzyK4#01`j|5&%Ik6#zoC0P6}f0R8}D0KfnhFaQNy00Ah2a|i$}Kmw)!fJ6%Z000k"
        "jP8R^+0fqzszyK@Y02Z780;Gr#51{=(6K3Q?lM97<003|R0stu`&<;sq`8~Q8*CTrXB>V#QAOM9I0RPz",
        "qW}T_lfVEbRQ>`7bN~Rr0206e62JfwfSCaYbO4wE2Xp}R0LOFyzyK4#01?0d5r9At6#zoC00uJv0OJ6_02NRG1zZ3DC<dhzgeTkpOf~?Brs@6w007@"
        "zCjh|$o)iGU04tyX7Nh_ItRfQr1GL23b62%%lBocI-~a*$A`<91CHv&$Hu@`x<s1Npf&rVgn35JT2>}1u",
    )
)


@pytest.mark.parametrize("syntax", [HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K], ids=lambda uid: uid.name)
def test_htj2k_is_right_voxel_by_voxel(tmp_path, syntax):
    save(make_slices(count=3), tmp_path / "plain")
    save(
        [with_compressed_frames(d, f) for d, f in zip(make_slices(count=3), FRAMES, strict=True)],
        tmp_path / "packed",
        syntax,
    )
    (plain,), (series,) = dicom.read(tmp_path / "plain"), dicom.read(tmp_path / "packed")
    assert error_against_truth(series.volume()) <= 0.51
    assert np.array_equal(series.volume().voxels, plain.volume().voxels)


@pytest.mark.parametrize("spoil", [lambda f: f[:90], lambda f: f[:40] + bytes(20) + f[60:], lambda f: b"\0\0"])
def test_broken_htj2k_is_refused(tmp_path, spoil):
    save(
        [with_compressed_frames(d, spoil(f)) for d, f in zip(make_slices(count=3), FRAMES, strict=True)],
        tmp_path,
        HTJ2KLossless,
    )
    for result in dicom.read(tmp_path):
        if isinstance(result, dicom.Series):
            with pytest.raises(BadInput, match="decode"):
                result.volume()
