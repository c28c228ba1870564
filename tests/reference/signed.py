"""Verifies effai's signed provenance with securesystemslib and in-toto's own statement.

    signed.py FILE PUBLIC-KEY DIRECTORY
"""

import hashlib
import json
import sys
from pathlib import Path

from cryptography.hazmat.primitives.serialization import load_pem_public_key
from in_toto_attestation.v1.statement import Statement
from google.protobuf import json_format
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey

file, public, directory = map(Path, sys.argv[1:])
text = file.read_text().splitlines()
assert len(text) == 1, text
envelope = json.loads(text[0])
key = SSlibKey.from_crypto(load_pem_public_key(public.read_bytes()), envelope["signatures"][0]["keyid"])
# Their base64 is the usual one, and their signatures are by keyid.
parsed = Envelope.from_dict(envelope)
assert parsed.verify([key], 1), "no signature"

statement = json.loads(parsed.payload)
message = Statement.copy_from_pb(json_format.ParseDict(statement, Statement([], "", {}).pb))
message.validate()
label = statement["subject"][0]["name"]
files = {subject["name"]: subject["digest"] for subject in statement["subject"][1:]}
for path in directory.rglob("*"):
    if path.is_file():
        name = f"{label}/{path.relative_to(directory)}"
        assert files.pop(name)["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest(), name
assert not files, files

parsed.payload = parsed.payload.replace(b'"backend":"none"', b'"backend":"mlx"')
try:
    parsed.verify([key], 1)
except VerificationError:
    pass
else:
    sys.exit("a changed statement was verified")
print(f"{public.name}: {len(statement['subject']) - 1} files, signed")
