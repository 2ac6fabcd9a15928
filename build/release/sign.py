"""Sign what `freeze --release` made, where the secrets exist; say loudly where they do not.

    python -m release.sign             # macOS: sign and notarize; Windows: list what to sign
    python -m release.sign --verify    # Windows: after Azure's action has signed what was listed

It comes before the archives and their sums are made. It must never print a secret, and never let
half of the secrets pass for none: a release that was meant to be signed would go out unsigned.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT = Path(__file__).resolve().parents[2]
FROZEN = ROOT / "dist" / "frozen"
ENTITLEMENTS = Path(__file__).with_name("entitlements.plist")
CATALOG = "sign-these.txt"
"""Below FROZEN: one relative path a line, as azure/artifact-signing-action's `files-catalog`."""

SECRETS: dict[str, tuple[str, ...]] = {
    # A "Developer ID Application" certificate with its key (.p12, base64), and a key of App Store
    # Connect's API (.p8, base64), which notarytool takes instead of a person's password.
    "darwin": (
        "APPLE_CERTIFICATE", "APPLE_CERTIFICATE_PASSWORD",
        "APPLE_API_KEY", "APPLE_API_KEY_ID", "APPLE_API_ISSUER",
    ),
    # An app registration that may sign, and the account and profile of Azure Artifact Signing.
    "win32": (
        "AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET",
        "AZURE_SIGNING_ENDPOINT", "AZURE_SIGNING_ACCOUNT", "AZURE_SIGNING_PROFILE",
    ),
}  # fmt: skip
_CONSEQUENCES = {
    "darwin": "Gatekeeper stops a copy that a browser downloaded.",
    "win32": "SmartScreen warns of it.",
}
# 64-bit Mach-O, and one file for several processors.
_MACH_O = (b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe")
_PE = (b"MZ",)


class SignError(Exception):
    """What is missing or was refused, and the way out."""


def have_secrets(system: str, environment: Mapping[str, str]) -> bool:
    """Whether to sign on `system` (a `sys.platform`).

    Raises SignError where some of the secrets exist and some do not.
    """
    missing = [name for name in SECRETS[system] if not environment.get(name)]
    if missing and len(missing) < len(SECRETS[system]):
        raise SignError(
            f"{', '.join(missing)} is missing while the other secrets for signing exist. Set all "
            f"of {', '.join(SECRETS[system])} in the repository's environment `signing`, or none."
        )
    return not missing


def code_files(frozen: Path, magics: tuple[bytes, ...]) -> list[Path]:
    """Executables and libraries of the assets, by their first bytes: libraries first.

    Raises SignError where there is none. PyInstaller's work directories (`.work`) are left out.
    """
    found = []
    for path in sorted(frozen.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(frozen).parts[:-1])
        if path.is_file() and not path.is_symlink() and not hidden:
            with path.open("rb") as file:
                if file.read(4).startswith(magics):
                    found.append(path)
    if not found:
        raise SignError(f"nothing to sign in {frozen}. Run `nox -s freeze -- --release` first.")
    # An executable's signature is made last, as for bundles: what it loads is signed by then.
    return sorted(found, key=lambda path: (is_executable(path), path))


def is_executable(path: Path) -> bool:
    """Whether it is what a person starts, in either form."""
    return path.stem in ("cortex-embed", "cortex-embed-onedir")


def announce(title: str, text: str) -> None:
    """A warning that GitHub shows on the run's page, and a line of its summary."""
    print(f"::warning title={title}::{text}", flush=True)
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(summary).open("a", encoding="utf-8") as file:
            file.write(f"> [!WARNING]\n> **{title}** {text}\n\n")


def run(*command: str | Path, shown: str = "") -> str:
    """stdout. Raises SignError with the command's words, not its arguments: they may be secret."""
    name = shown or str(command[0])
    try:
        done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    except FileNotFoundError as why:
        raise SignError(f"{name}: not found on this machine.") from why
    if done.returncode:
        raise SignError(f"{name} exited with {done.returncode}: {done.stderr.strip()[-800:]}")
    return done.stdout


@contextmanager
def keychain(scratch: Path, environment: Mapping[str, str]) -> Iterator[tuple[Path, str]]:
    """A keychain of our own with the certificate in it, and the SHA-1 of its identity.

    The person's keychains are searched again afterwards, and only they. Raises SignError.
    """
    path, password = scratch / "signing.keychain-db", secrets.token_hex(16)
    certificate = scratch / "certificate.p12"
    certificate.write_bytes(base64.b64decode(environment["APPLE_CERTIFICATE"]))
    before = [line.strip().strip('"') for line in run("security", "list-keychains").splitlines()]
    run("security", "create-keychain", "-p", password, path, shown="security create-keychain")
    try:
        run("security", "set-keychain-settings", "-lut", "3600", path)
        run("security", "unlock-keychain", "-p", password, path, shown="security unlock-keychain")
        run(
            "security", "import", certificate, "-k", path, "-T", "/usr/bin/codesign",
            "-P", environment["APPLE_CERTIFICATE_PASSWORD"], shown="security import",
        )  # fmt: skip
        # Without it codesign asks a person for the keychain's password, in a window.
        run(
            "security", "set-key-partition-list", "-S", "apple-tool:,apple:", "-s",
            "-k", password, path, shown="security set-key-partition-list",
        )  # fmt: skip
        run("security", "list-keychains", "-d", "user", "-s", path, *before)
        listed = run("security", "find-identity", "-v", "-p", "codesigning", path)
        identities = [line.split()[1] for line in listed.splitlines() if "Developer ID" in line]
        if len(identities) != 1:
            raise SignError(
                f"APPLE_CERTIFICATE holds {len(identities)} valid identities `Developer ID "
                "Application`; it must hold one, with its private key."
            )
        yield path, identities[0]
    finally:
        run("security", "list-keychains", "-d", "user", "-s", *before)
        run("security", "delete-keychain", path)


def sign_macos(frozen: Path, environment: Mapping[str, str]) -> None:
    """Sign every Mach-O file below `frozen`, and have Apple notarize all. Raises SignError."""
    files = code_files(frozen, _MACH_O)
    with tempfile.TemporaryDirectory(prefix="signing-") as directory:
        scratch = Path(directory)
        with keychain(scratch, environment) as (chain, identity):
            for path in files:
                # Libraries inherit their executable's entitlements, and may have none.
                rights = ["--entitlements", str(ENTITLEMENTS)] if is_executable(path) else []
                run(
                    "codesign", "--force", "--sign", identity, "--keychain", chain, "--timestamp",
                    "--options", "runtime", *rights, path,
                )  # fmt: skip
                run("codesign", "--verify", "--strict", path)
        notarize(files, frozen, scratch, environment)
    print(f"Signed and notarized {len(files)} files in {frozen}.")


def notarize(
    files: Sequence[Path], frozen: Path, scratch: Path, environment: Mapping[str, str]
) -> None:
    """Submit `files` in one archive and wait for Apple's verdict. Raises SignError for another.

    A bare executable cannot be stapled: Gatekeeper asks Apple for the ticket by its hash.
    """
    staged, upload, key = scratch / "upload", scratch / "upload.zip", scratch / "key.p8"
    for path in files:
        target = staged / path.relative_to(frozen)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)
    run("ditto", "-c", "-k", staged, upload)
    key.write_bytes(base64.b64decode(environment["APPLE_API_KEY"]))
    login = ["--key", str(key), "--key-id", environment["APPLE_API_KEY_ID"]]
    login += ["--issuer", environment["APPLE_API_ISSUER"]]
    said = run(
        "xcrun", "notarytool", "submit", upload, *login, "--wait", "--timeout", "30m",
        "--output-format", "json", shown="notarytool submit",
    )  # fmt: skip
    verdict = json.loads(said)
    # It exits with 0 for a refusal too: it was told, after all.
    if verdict.get("status") != "Accepted":
        log = run("xcrun", "notarytool", "log", verdict["id"], *login, shown="notarytool log")
        raise SignError(f"Apple's verdict is {verdict.get('status')!r}: {log[-2000:]}")


def list_windows(frozen: Path) -> None:
    """Write the catalog for Azure's action, and tell the workflow to call it. Raises SignError."""
    names = [path.relative_to(frozen) for path in code_files(frozen, _PE)]
    (frozen / CATALOG).write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    with Path(os.environ["GITHUB_OUTPUT"]).open("a", encoding="utf-8") as file:
        file.write("azure=true\n")
    print(f"{len(names)} files to sign: {frozen / CATALOG}")


def verify_windows(frozen: Path) -> None:
    """Hold every listed file to a valid signature. Raises SignError, naming those without."""
    names = (frozen / CATALOG).read_text(encoding="utf-8").splitlines()
    # The path comes by the environment: in a command's text it would be PowerShell's to interpret.
    script = "(Get-AuthenticodeSignature -LiteralPath $env:SIGNED_FILE).Status.ToString()"
    wrong = []
    for name in names:
        done = subprocess.run(
            ["pwsh", "-NoProfile", "-NonInteractive", "-Command", script],
            env=os.environ | {"SIGNED_FILE": str(frozen / name)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.stdout.strip() != "Valid":
            wrong.append(f"{name}: {done.stdout.strip() or done.stderr.strip()[-200:]}")
    if wrong or not names:
        raise SignError(f"not signed: {'; '.join(wrong) or 'the list is empty'}")
    (frozen / CATALOG).unlink()
    print(f"{len(names)} signatures are valid.")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Sign what was frozen, before it is packaged.")
    parser.add_argument("--frozen", type=Path, default=FROZEN, metavar="DIR")
    parser.add_argument("--verify", action="store_true", help="Windows: after the signing")
    args = parser.parse_args(arguments)
    try:
        if sys.platform not in SECRETS:
            print(
                "Executables carry no signature on this system; the attestation vouches for them."
            )
        elif args.verify:
            verify_windows(args.frozen)
        elif not have_secrets(sys.platform, os.environ):
            names = ", ".join(SECRETS[sys.platform])
            announce(
                f"UNSIGNED: no code signature on {sys.platform}.",
                f"None of {names} is set. {_CONSEQUENCES[sys.platform]}",
            )
        elif sys.platform == "darwin":
            sign_macos(args.frozen, os.environ)
        else:
            list_windows(args.frozen)
    except SignError as why:
        print(f"::error title=Signing::{why}", flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
