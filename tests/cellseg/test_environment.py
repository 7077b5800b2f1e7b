import pytest

from cellseg import environment

INTEL = """processor\t: 0
model name\t: Some CPU
flags\t\t: fpu {flags}

processor\t: 1
model name\t: Some CPU
flags\t\t: fpu {flags}
"""


@pytest.mark.parametrize(
    ("flags", "told"),
    [("sse2", "Some CPU"), ("avx avx2", "Some CPU with AVX2"), ("avx2 avx512f avx512bw", "Some CPU with AVX-512")],
)
def test_a_processor_is_told_with_its_vectors(tmp_path, flags, told):
    (tmp_path / "cpuinfo").write_text(INTEL.format(flags=flags))
    assert environment._processor(tmp_path / "cpuinfo") == told


def test_a_processor_without_a_name_or_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(environment.platform, "processor", lambda: "")
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nBogoMIPS\t: 50.00\n")  # as ARM's is
    assert environment._processor(tmp_path / "cpuinfo") == "unknown processor"
    assert environment._processor(tmp_path / "no") == "unknown processor"
