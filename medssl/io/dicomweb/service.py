"""Connects to a DICOMweb service: signs in, repeats requests that fail for a moment, and explains why others fail."""

import logging
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import requests
from dicomweb_client.api import DICOMwebClient
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase

from medssl.errors import BadInput, Message

HEADERS_VARIABLE = "MEDSSL_DICOMWEB_HEADERS"  # names a file with one header a line
TIMEOUT_S = (10.0, 60.0)  # to connect, and between two packets
PAUSES_S = (1.0, 2.0, 4.0, 8.0)
BUSY = (408, 425, 429, 500, 502, 503, 504)
NO_ANSWER, NO_CONNECTION = Message("no answer in time"), Message("no connection")
T = TypeVar("T")


class HeaderSignIn(AuthBase):
    """Adds headers, such as a bearer token, to the requests to one host."""

    def __init__(self, headers: dict[str, str]) -> None:
        self._headers = headers

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Adds the headers to a request."""
        request.headers.update(self._headers)
        return request


class WildcardAdapter(HTTPAdapter):
    """Sends the wildcard * of a search as it is; Orthanc matches no scan with its escaped form."""

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        """Sends a request."""
        place, mark, query = (request.url or "").partition("?")
        request.url = place + mark + query.replace("%2A", "*")
        return super().send(request, *args, **options)


@dataclass(frozen=True)
class Service:
    """A DICOMweb service.

    Args:
        url: Its address.
        client: Sends single requests.
        pause: Waits for a number of seconds before a request is repeated.
    """

    url: str
    client: DICOMwebClient = field(repr=False)
    pause: Callable[[float], None] = field(default=time.sleep, repr=False)

    def request(self, send: Callable[[DICOMwebClient], T]) -> T:
        """Returns what `send` returns, which is called again after a pause if the service is away or busy.

        Raises:
            BadInput: If the service refuses the request, or is still away after the last pause.
        """
        for pause_s in (*PAUSES_S, None):
            try:
                with warnings.catch_warnings(action="ignore"):  # about details of DICOM, with private values
                    return send(self.client)
            except requests.HTTPError as error:
                status = error.response.status_code if error.response is not None else 500
                if status not in BUSY:
                    raise BadInput(_explain_status(self.url, status)) from None
                reason = Message("it answers {status}", status=status)
            except requests.exceptions.SSLError:
                raise BadInput(Message(
                    "{url}: its certificate is not trusted; name the certificate of its authority in the variable "
                    "REQUESTS_CA_BUNDLE", url=self.url,
                )) from None  # fmt: skip
            except Exception as error:  # the parsers of an answer can raise any exception
                if isinstance(error, requests.JSONDecodeError) or not isinstance(error, requests.RequestException):
                    raise BadInput(Message(
                        "{url}: its answer is not DICOMweb ({error}); check the path of the address",
                        url=self.url, error=type(error).__name__,
                    )) from None  # fmt: skip
                reason = NO_ANSWER if isinstance(error, requests.Timeout) else NO_CONNECTION
            if pause_s is not None:
                self.pause(pause_s)
        raise BadInput(Message(
            "{url}: the DICOMweb service cannot be reached ({reason}); check the address and the network, and run the "
            "command again", url=self.url, reason=reason,
        ))  # fmt: skip


def connect(url: str, pause: Callable[[float], None] = time.sleep) -> Service:
    """Returns a service; no request is sent yet.

    The user name and password of a host come from ~/.netrc (or the file that NETRC names). The variable
    MEDSSL_DICOMWEB_HEADERS names a file with headers, one `Name: value` a line, which are sent instead.

    Args:
        url: The address of the service.
        pause: Waits for a number of seconds before a request is repeated.

    Raises:
        BadInput: If the file of headers cannot be read.
    """
    for name in ("dicomweb_client", "urllib3"):  # their logs show the values of a search
        logging.getLogger(name).setLevel(logging.ERROR)
    session = requests.Session()
    for scheme in ("https://", "http://"):
        session.mount(scheme, WildcardAdapter())
    if path := os.environ.get(HEADERS_VARIABLE):
        session.auth = HeaderSignIn(_read_headers(Path(path)))
    client = DICOMwebClient(url, session, permissive_uid=True, timeout=TIMEOUT_S)
    client.set_http_retry_params(retry=False)
    return Service(url, client, pause)


def _read_headers(path: Path) -> dict[str, str]:
    """Reads a file of headers; no message shows its content."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise BadInput(f"{path}: the headers of {HEADERS_VARIABLE} cannot be read ({reason})") from None
    headers = [line.partition(":") for line in lines if line and not line.startswith("#")]
    if not headers or not all(name.strip() and value.strip() for name, _, value in headers):
        raise BadInput(f"{path}: expected is one header a line, for example Authorization: Bearer TOKEN")
    return {name.strip(): value.strip() for name, _, value in headers}


def _explain_status(url: str, status: int) -> Message:
    """Returns what to do about a request that was refused."""
    if status in (401, 403):
        return Message(
            "{url}: refuses access ({status}); write user name and password into ~/.netrc, or name a file of headers "
            "in the variable {variable}", url=url, status=status, variable=HEADERS_VARIABLE,
        )  # fmt: skip
    if status == 404:
        return Message("{url}: no DICOMweb service at this address (404); check its path", url=url)
    return Message("{url}: refuses the request ({status}); its log has the reason", url=url, status=status)
