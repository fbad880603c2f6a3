"""Do two kinds of processor train the same network, and what does it cost to make them?

    python benchmarks/processors.py

trains the study's flow for some steps under several instruction sets, each in a process of its own with one thread, and
adds a line for each to ``processors.csv``: a digest of the weights, and milliseconds per step. Equal digests on two
processors mean equal trainings there, to the last bit. Times are worth something only where nothing else runs.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pandas as pd

#: Instruction set → switches of ATen, oneDNN and MKL (its conditional numerical reproducibility).
SWITCHES = {
    "the processor's own": {},
    "AVX2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_CBWR": "AVX2"},
    "compatible": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE"},
}
STEPS, WARM = 40, 5
FILE = Path(__file__).with_suffix(".csv")


def processor() -> str:
    """Name of the processor, as the system knows it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    found = {name.strip(): value.strip() for name, value in fields.items()}
    return (f"{found.get('model name', platform.machine())}, family {found.get('cpu family', '?')} "
            f"model {found.get('model', '?')}")


def train() -> None:
    """Print digest and milliseconds per step."""
    import time

    import torch

    from cmri_lib.config.study import open_study
    from cmri_lib.cohort.vocabulary import Vocabulary
    from cmri_lib.measures.instruments.frozen import fingerprint
    from cmri_lib.systems.register import system

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)
    model = system("U10 FM").build(open_study("overnight", "phantom").params, Vocabulary({}), seed=0)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    started = 0.0
    for step in range(STEPS):
        started = time.perf_counter() if step == WARM else started
        torch.manual_seed(step)
        optimiser.zero_grad()
        model.loss({"image": torch.rand(8, 1, 64, 64) * 2 - 1}, "model").backward()
        optimiser.step()
    taken = 1000 * (time.perf_counter() - started) / (STEPS - WARM)
    print(f"{fingerprint(model)} {taken:.1f} {torch.__version__.split('+')[0]}")


def main() -> None:
    """One line for each of `SWITCHES`; those of this processor and this torch are replaced."""
    rows = []
    for name, switches in SWITCHES.items():
        done = subprocess.run([sys.executable, __file__, "--train"], capture_output=True, text=True, check=True,
                              env={**os.environ, **switches, "OMP_NUM_THREADS": "1"})
        digest, milliseconds, version = done.stdout.split()
        rows.append({"processor": processor(), "torch": version, "instructions": name, "digest": digest,
                     "ms_per_step": float(milliseconds)})
        print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    if FILE.exists():
        before = pd.read_csv(FILE, dtype={"torch": str})
        same = before["processor"].eq(processor()) & before["torch"].eq(table["torch"].iloc[0])
        table = pd.concat([before[~same], table])
    table.to_csv(FILE, index=False)


if __name__ == "__main__":
    train() if sys.argv[1:] == ["--train"] else main()
