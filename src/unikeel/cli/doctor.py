"""``unikeel doctor``: can this host run guests?"""

from __future__ import annotations

from unikeel.cli.options import JSON, Command, Parsed
from unikeel.cli.output import clean, json, write
from unikeel.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from unikeel.cli.session import Session
    from unikeel.doctor.findings import Finding

COMMAND = Command(
    "doctor",
    "check the host, by trying everything, and tell how to mend what is missing",
    options=(JSON,),
    examples=(("unikeel doctor", "before the first guest, and when something does not work"),),
    details="Exit status 0: guests can run (there may be warnings); 1: they cannot. JSON keys: ok, and findings, each with check, level "
    "(ok, warning, problem), message and mend.",
)


def run(parsed: Parsed, session: Session) -> int:
    """Examine and print."""
    from unikeel.doctor.examination import examine
    from unikeel.doctor.findings import can_run

    config = session.configuration()
    findings = examine(config, session.state_root(config))
    fine = can_run(findings)
    if parsed.flag("json"):
        json({"ok": fine, "findings": [finding.to_json() for finding in findings]})
    else:
        write(rendered(findings))
        write("guests can run here\n" if fine else "guests cannot run here\n")
    return 0 if fine else 1


def rendered(findings: list[Finding]) -> str:
    """One line each, the mend below it."""
    width = max(len(finding.check) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{finding.level.value:8}{finding.check.ljust(width)}  {clean(finding.message)}")
        if finding.mend:
            lines.append(f"{'':8}{'':{width}}  -> {clean(finding.mend)}")
    return "\n".join(lines) + "\n"
