"""Which instructions the processor has."""

from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")  # of Linux


def instructions(cpu_info: Path = CPU_INFO) -> set[str]:
    """Instructions of an x86 processor as Linux names them, none where no such file says any."""
    try:
        lines = cpu_info.read_text().splitlines()
    except OSError:  # no Linux
        return set()
    return {word for line in lines if line.startswith("flags") for word in line.split()}


def lacks_vnni(cpu_info: Path = CPU_INFO) -> bool:
    """Whether this is an x86 processor without instructions for sums of products of 8 bits, as far
    as a file says."""
    there = instructions(cpu_info)
    return bool(there) and not any("vnni" in name for name in there)
