"""De-identification of DICOM: pseudonyms, new identifiers and moved dates from a secret key; a short list of headers.

After DICOM PS3.15, annex E, "Basic Application Level Confidentiality Profile", with the option to keep modified dates,
https://dicom.nema.org/medical/dicom/current/output/chtml/part15/chapter_E.html. The profile lists what must go; here
only what is listed may stay, and only with a value of the listed form.
"""

import hmac
import os
import re
import secrets
import stat
import uuid
from dataclasses import dataclass, field
from datetime import timedelta
from importlib import import_module
from pathlib import Path

from pydicom import Dataset

from medssl.errors import BadInput
from medssl.io import archives as archive
from medssl.io import dates
from medssl.io.dicom.header import parse, text

KEY_BYTES = 32
LATEST_DAYS = 3650  # dates move back by up to ten years
ZERO_DAYS = 10**6  # where days are counted, nearly all numbers may be of any year
OLDEST_YEARS = 89  # from 90 on an age tells a person; all older ones become 90
NUMBER = r"-?\d{1,7}(\.\d{1,7})?"
KEPT = {
    "Modality": "CT|MR|PT",
    "PatientSex": "[MFO]",
    "PatientAge": r"\d{3}[DWMY]",
    "Manufacturer": r"(?i:siemens( healthineers)?|ge medical systems|philips( medical systems)?|toshiba|canon|hitachi)",
    "MagneticFieldStrength": NUMBER,
    "KVP": NUMBER,
    "SliceThickness": NUMBER,
    "RepetitionTime": NUMBER,
    "EchoTime": NUMBER,
    "InversionTime": NUMBER,
    "FlipAngle": NUMBER,
}
UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
DATES = ("StudyDate", "SeriesDate", "AcquisitionDate")
# Words that may stand in the name of a structure, beside those of the standard's lists of anatomy and of findings.
ANATOMY = ("cid4031", "cid7140", "cid7160", "cid7159", "cid7166")
DRAWN = (
    "gtv ctv itv ptv oar roi body external tumor tumour metastasis nodule lesion cyst mass organ spinal cord eye eyes "
    "parotid left right l r anterior posterior superior inferior upper lower lobe ct mr pet t1 t2 flair adc dwi "
    "primary node"
)


@dataclass(frozen=True)
class Key:
    """A secret from which everything that replaces a name follows: the same name, the same pseudonym."""

    secret: bytes = field(repr=False)

    @classmethod
    def read(cls, path: Path) -> "Key":
        """The key of a file that nobody else may read."""
        try:
            mode, told = path.stat().st_mode, path.read_text(encoding="ascii").strip()
            secret = bytes.fromhex(told)
        except (OSError, ValueError) as error:
            raise BadInput(f"{path}: no key ({type(error).__name__}); give the file an ingestion made") from None
        if len(secret) != KEY_BYTES:
            raise BadInput(f"{path}: a key has {2 * KEY_BYTES} hexadecimal digits, this has {len(told)}")
        if stat.S_IMODE(mode) & 0o077:
            raise BadInput(f"{path}: others may read this key; chmod 600 {path}")
        return cls(secret)

    @classmethod
    def make(cls, path: Path) -> "Key":
        """A new key in a file of its own, which only its owner may read; whole or absent."""
        part = path.with_name(f".part-{secrets.token_hex(8)}")
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as handle:
            handle.write(secrets.token_hex(KEY_BYTES) + "\n")
            handle.flush()
            os.fsync(handle.fileno())
        part.rename(path)
        return cls.read(path)

    def pseudonym(self, kind: str, name: str) -> str:
        """Sixteen hexadecimal digits in the place of a name; names of two kinds never meet."""
        return self._digest(kind, name).hex()[:16]

    def uid(self, uid: str) -> str:
        """Another identifier in its place, made as a random UUID is (PS3.5, B.2)."""
        return f"2.25.{uuid.UUID(bytes=self._digest('uid', uid)[:16], version=4).int}"

    def moved(self, patient: str, day: str) -> str:
        """A date (YYYYMMDD) moved back by as many days as all of its patient's; empty where it is none."""
        told = dates.day(day) if re.fullmatch(r"\d{8}", day) else None
        try:
            return f"{told - timedelta(1 + self._number('days', patient) % LATEST_DAYS):%Y%m%d}" if told else ""
        except OverflowError:
            return ""

    def counted(self, patient: str, day: str) -> int | None:
        """A date as a number of days from a secret one, the same for all dates of a patient: only differences tell."""
        told = dates.number(day)
        return told and told + self._number("zero", patient) % ZERO_DAYS

    def _number(self, kind: str, name: str) -> int:
        return int.from_bytes(self._digest(kind, name)[:8], "big")

    def _digest(self, kind: str, name: str) -> bytes:
        return hmac.digest(self.secret, f"{kind}\0{name}".encode("utf-8", "surrogateescape"), "sha256")


def header(path: Path, key: Key) -> dict[str, str]:
    """What may be told of a DICOM file's header."""
    with archive.opened(path) as file:
        return clean(parse(path, file).data, key)


def clean(data: Dataset, key: Key) -> dict[str, str]:
    """The listed attributes whose values have the listed form, with new identifiers and moved dates."""
    patient = text(data, "PatientID")
    told = {name: text(data, name) for name in KEPT}
    kept = {name: value for name, value in told.items() if re.fullmatch(KEPT[name], value)}
    if kept.get("PatientAge", "").endswith("Y") and int(kept["PatientAge"][:3]) > OLDEST_YEARS:
        kept["PatientAge"] = f"{OLDEST_YEARS + 1:03}Y"
    kept |= {name: key.uid(uid) for name in UIDS if (uid := text(data, name))}
    return kept | {name: day for name in DATES if (day := key.moved(patient, text(data, name)))}


def structure(name: str, key: Key) -> str:
    """The name of a drawn structure where all its words are of anatomy or oncology, else a pseudonym."""
    words = re.findall(r"[a-z]+\d?|\d{3,}", name.lower()) if re.fullmatch(r"[\w .+/()-]+", name, re.ASCII) else []
    return name if words and set(words) <= _anatomy() else f"structure-{key.pseudonym('structure', name)}"


def _anatomy() -> set[str]:
    codes = import_module("pydicom.sr.codedict").codes  # half a second that few ingestions need
    named = " ".join(" ".join(dir(getattr(codes, group))) for group in ANATOMY)
    return {*(word.lower() for word in re.findall(r"[A-Z][a-z]{2,}", named)), *DRAWN.split()}
