"""Output of `gradscope verify`."""

from collections.abc import Iterator

from gradscope.verification.verify import Verification


def verification_lines(found: Verification) -> Iterator[str]:
    """Findings, remarks, and whether the store is sound, in one line each."""
    for finding in found.findings:
        yield _printable(f"{finding.array or 'store'}: {finding}")
    for remark in found.remarks:
        yield _printable(f"note: {remark}")
    looked = f"{found.chunks:,} chunks ({found.bytes / 1e6:,.1f} MB), {found.values:,} values recomputed"
    if found.sound:
        yield f"sound: {looked}"
    else:
        arrays = sorted({finding.array or "store" for finding in found.findings})
        yield _printable(f"damaged: {', '.join(arrays)} ({len(found.findings)} findings; {looked})")


def _printable(text: str) -> str:
    """On one line, with control characters escaped: names may come from another user's store."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(text.split()))
