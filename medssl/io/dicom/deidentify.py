"""De-identifies DICOM with a secret key: pseudonyms, new UIDs, shifted dates, and a short list of header attributes.

After DICOM PS3.15, annex E, "Basic Application Level Confidentiality Profile", with the option to keep modified dates,
https://dicom.nema.org/medical/dicom/current/output/chtml/part15/chapter_E.html. The profile lists the attributes
to remove; this module lists the attributes to keep, each with the form that its value must have.
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
from medssl.io import archives, dates
from medssl.io.dicom.header import get_text, parse

KEY_BYTES = 32
MAX_SHIFT_DAYS = 3650  # dates are shifted back by up to ten years
ZERO_RANGE_DAYS = 10**6  # day numbers are spread so widely that they reveal no year
MAX_AGE_YEARS = 89  # a higher age can identify a person; all ages above become 90
NUMBER = r"-?\d{1,7}(\.\d{1,7})?"
KEPT_ATTRIBUTES = {
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
# The words that the name of a structure may contain: those of these lists of the standard, and some of oncology.
ANATOMY = ("cid4031", "cid7140", "cid7160", "cid7159", "cid7166")
STRUCTURE_WORDS = (
    "gtv ctv itv ptv oar roi body external tumor tumour metastasis nodule lesion cyst mass organ spinal cord eye eyes "
    "parotid left right l r anterior posterior superior inferior upper lower lobe ct mr pet t1 t2 flair adc dwi "
    "primary node"
)


@dataclass(frozen=True)
class PseudonymKey:
    """A secret key from which pseudonyms, UIDs and date shifts are derived: the same name gives the same pseudonym."""

    secret: bytes = field(repr=False)

    @classmethod
    def read(cls, path: Path) -> "PseudonymKey":
        """Reads a key from a file that only its owner may read."""
        try:
            mode, digits = path.stat().st_mode, path.read_text(encoding="ascii").strip()
            secret = bytes.fromhex(digits)
        except (OSError, ValueError) as error:
            raise BadInput(f"{path}: no key ({type(error).__name__}); give the key file of an ingestion") from None
        if len(secret) != KEY_BYTES:
            raise BadInput(f"{path}: a key has {2 * KEY_BYTES} hexadecimal digits, this one has {len(digits)}")
        if stat.S_IMODE(mode) & 0o077:
            raise BadInput(f"{path}: others may read this key; chmod 600 {path}")
        return cls(secret)

    @classmethod
    def create(cls, path: Path) -> "PseudonymKey":
        """Creates a key in a new file that only its owner may read; the file is complete or absent."""
        part = path.with_name(f".part-{secrets.token_hex(8)}")
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as handle:
            handle.write(secrets.token_hex(KEY_BYTES) + "\n")
            handle.flush()
            os.fsync(handle.fileno())
        part.rename(path)
        return cls.read(path)

    def make_pseudonym(self, kind: str, name: str) -> str:
        """Returns sixteen hexadecimal digits that replace a name; equal names of two kinds get different ones."""
        return self._digest(kind, name).hex()[:16]

    def replace_uid(self, uid: str) -> str:
        """Returns the UID that replaces another one, in the form of a random UUID (PS3.5, B.2)."""
        return f"2.25.{uuid.UUID(bytes=self._digest('uid', uid)[:16], version=4).int}"

    def shift_date(self, patient: str, day: str) -> str:
        """Shifts a date (YYYYMMDD) back, by the same days for all dates of a patient; empty if it is no date."""
        date = dates.parse_date(day) if re.fullmatch(r"\d{8}", day) else None
        if date is None:
            return ""
        try:
            return f"{date - timedelta(1 + self._derive_number('days', patient) % MAX_SHIFT_DAYS):%Y%m%d}"
        except OverflowError:
            return ""

    def count_relative_days(self, patient: str, day: str) -> int | None:
        """Counts the days from a secret date of the patient; only differences between days carry information."""
        ordinal = dates.to_ordinal(day)
        return ordinal and ordinal + self._derive_number("zero", patient) % ZERO_RANGE_DAYS

    def _derive_number(self, kind: str, name: str) -> int:
        """Returns a pseudorandom number of 64 bits."""
        return int.from_bytes(self._digest(kind, name)[:8], "big")

    def _digest(self, kind: str, name: str) -> bytes:
        """Returns the keyed hash of a name of a kind."""
        return hmac.digest(self.secret, f"{kind}\0{name}".encode("utf-8", "surrogateescape"), "sha256")


def read_allowed_header(path: Path, key: PseudonymKey) -> dict[str, str]:
    """Reads the header attributes of a DICOM file that may be published."""
    with archives.open_file(path) as file:
        return filter_dataset(parse(path, file).data, key)


def filter_dataset(data: Dataset, key: PseudonymKey) -> dict[str, str]:
    """Returns the listed attributes that have a value of the listed form, with new UIDs and shifted dates."""
    patient = get_text(data, "PatientID")
    values = {name: get_text(data, name) for name in KEPT_ATTRIBUTES}
    allowed = {name: value for name, value in values.items() if re.fullmatch(KEPT_ATTRIBUTES[name], value)}
    if allowed.get("PatientAge", "").endswith("Y") and int(allowed["PatientAge"][:3]) > MAX_AGE_YEARS:
        allowed["PatientAge"] = f"{MAX_AGE_YEARS + 1:03}Y"
    allowed |= {name: key.replace_uid(uid) for name in UIDS if (uid := get_text(data, name))}
    return allowed | {name: day for name in DATES if (day := key.shift_date(patient, get_text(data, name)))}


def redact_structure_name(name: str, key: PseudonymKey) -> str:
    """Returns the name of a structure if all its words are terms of anatomy or oncology; else a pseudonym."""
    words = re.findall(r"[a-z]+\d?|\d{3,}", name.lower()) if re.fullmatch(r"[\w .+/()-]+", name, re.ASCII) else []
    if words and set(words) <= _load_anatomy_words():
        return name
    return f"structure-{key.make_pseudonym('structure', name)}"


def _load_anatomy_words() -> set[str]:
    """Returns the words, in lower case, that the name of a structure may contain."""
    codes = import_module("pydicom.sr.codedict").codes  # takes half a second, which few ingestions need
    keywords = " ".join(" ".join(dir(getattr(codes, group))) for group in ANATOMY)
    return {*(word.lower() for word in re.findall(r"[A-Z][a-z]{2,}", keywords)), *STRUCTURE_WORDS.split()}
